//! From a file to a socket.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::retry_interrupted;
use super::socket::Socket;

impl Socket {
    /// Sends up to `most` bytes of `file` from `at` on; says how many, 0 at the end of the file.
    ///
    /// It may wait for the disk, never for the socket. Where the kernel does not do it alone, the
    /// bytes go through `scratch`; of what was read and is refused nothing is kept.
    pub(crate) fn send_file(
        &self,
        file: &File,
        at: u64,
        most: usize,
        scratch: &mut [u8],
    ) -> io::Result<usize> {
        #[cfg(target_os = "linux")]
        if let Some(sent) = linux::send_file(self, file, at, most) {
            return sent;
        }
        let most = most.min(scratch.len());
        let read = read_file_at(file, &mut scratch[..most], at)?;
        if read == 0 {
            return Ok(0);
        }
        self.send(&scratch[..read])
    }
}

/// Reads from `at` on; says how much, 0 at the end of the file.
pub(crate) fn read_file_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    retry_interrupted(|| file.read_at(buffer, at))
}

#[cfg(target_os = "linux")]
mod linux {
    use std::cell::Cell;
    use std::fs::File;
    use std::io;
    use std::mem;
    use std::os::fd::{AsRawFd, BorrowedFd};
    use std::ptr;

    use crate::sys::retry_interrupted;
    use crate::sys::selector::Source;
    use crate::sys::socket::Socket;

    thread_local! {
        static HAS_BLOCKED_SIGPIPE: Cell<bool> = const { Cell::new(false) };
    }

    /// `None` where this socket or this file does not do it.
    pub(super) fn send_file(
        socket: &Socket,
        file: &File,
        at: u64,
        most: usize,
    ) -> Option<io::Result<usize>> {
        let Source::Fd(fd) = socket.source() else {
            return None;
        };
        let mut at = libc::off64_t::try_from(at).ok()?;
        if !is_nonblocking(fd) {
            return None;
        }
        block_sigpipe();
        let sent = retry_interrupted(|| {
            // SAFETY: both descriptors are borrowed, and `at` is writable and outlives the call.
            let sent = unsafe {
                syscall!(sendfile64(
                    fd.as_raw_fd(),
                    file.as_raw_fd(),
                    &raw mut at,
                    most
                ))
            }?;
            Ok(sent as usize)
        });
        match sent {
            // Said at once and before anything was sent.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => None,
            sent => Some(sent),
        }
    }

    /// Whether a call on it returns rather than waits: sendfile cannot be told so for itself, and
    /// whoever shares the socket with us may have changed it.
    fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
        // SAFETY: takes no pointer.
        let flags = unsafe { syscall!(fcntl(fd.as_raw_fd(), libc::F_GETFL)) };
        flags.is_ok_and(|flags| flags & libc::O_NONBLOCK != 0)
    }

    /// A peer that has gone raises `SIGPIPE` on the thread that sends, and sendfile takes no flag
    /// against it. Once for each thread: the others, and the process, keep it as it is.
    fn block_sigpipe() {
        if HAS_BLOCKED_SIGPIPE.replace(true) {
            return;
        }
        // SAFETY: made of integers alone, for which zero is a valid value.
        let mut signals: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: `signals` is writable and outlives the calls; the set before is not asked for.
        unsafe {
            libc::sigemptyset(&raw mut signals);
            libc::sigaddset(&raw mut signals, libc::SIGPIPE);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("a socket");
        (OwnedFd::from(ours).into(), theirs)
    }

    fn file(bytes: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!(
            "greenroom-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&path, bytes).expect("a file");
        let file = File::open(&path).expect("the same");
        std::fs::remove_file(&path).expect("the same");
        file
    }

    #[test]
    fn a_part_of_a_file_is_sent_from_where_it_is_and_its_end_is_zero() {
        let bytes: Vec<u8> = (0..10_000).map(|at| (at % 251) as u8).collect();
        let file = file(&bytes);
        let (socket, mut theirs) = pair();
        let sent = socket.send_file(&file, 100, 5000, &mut []);
        assert_eq!(sent.expect("there is room"), 5000);
        let mut got = vec![0; 5000];
        theirs.read_exact(&mut got).expect("they are there");
        assert!(got == bytes[100..5100]);
        let sent = socket.send_file(&file, 9_990, 5000, &mut []);
        assert_eq!(sent.expect("the last"), 10);
        let sent = socket.send_file(&file, 10_000, 5000, &mut [0; 10]);
        assert_eq!(sent.expect("the end"), 0);
    }

    #[test]
    fn a_socket_that_would_wait_is_sent_by_hand_and_never_waits() {
        let (socket, theirs) = UnixStream::pair().expect("a pair");
        // Blocking, as somebody else may have made it.
        let socket = Socket::from(OwnedFd::from(socket));
        let bytes = vec![7; 4 << 20];
        let file = file(&bytes);
        let (mut at, mut scratch) = (0, vec![0; 64 << 10]);
        let refused = loop {
            match socket.send_file(&file, at, 1 << 20, &mut scratch) {
                Ok(sent) => at += sent as u64,
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(at > 0 && at < 4 << 20);
        drop(theirs);
        let error = socket.send_file(&file, at, 1, &mut scratch);
        assert_eq!(error.expect_err("gone").kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_peer_that_has_gone_is_an_error_and_no_signal() {
        let file = file(&[1; 1000]);
        let (socket, theirs) = pair();
        drop(theirs);
        // As in a process that is not Rust's from the start, which ignores the signal.
        // SAFETY: no handler is installed, and everybody else here sends without the signal.
        let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let error = socket.send_file(&file, 0, 1000, &mut []);
        // SAFETY: as it was.
        unsafe { libc::signal(libc::SIGPIPE, before) };
        assert_eq!(error.expect_err("gone").kind(), io::ErrorKind::BrokenPipe);
    }
}
