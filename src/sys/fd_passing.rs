//! Descriptors that go from one process to another over a Unix socket (SCM_RIGHTS), and who is at
//! its other end.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_int, c_uint};

use super::platform::{RECV_FDS_FLAGS, SEND_FLAGS};

/// Descriptors in one message. Linux takes 253.
pub(crate) const FDS_MAX: usize = 64;

/// Room for a control message with `FDS_MAX` descriptors, aligned as its header asks for.
const CONTROL_WORDS: usize = 64;

// SAFETY: computes a length from a length.
const _: () = assert!(
    unsafe { libc::CMSG_SPACE((FDS_MAX * size_of::<RawFd>()) as c_uint) } as usize
        <= CONTROL_WORDS * size_of::<u64>()
);

/// Sends the beginning of `bytes`, which are not to be empty, and with it all of `fds`; says how many
/// bytes.
///
/// # Panics
///
/// When there are more than `FDS_MAX` of them.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    assert!(fds.len() <= FDS_MAX && !bytes.is_empty());
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let mut control = [0_u64; CONTROL_WORDS];
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: made of integers and pointers alone, for which zero is a valid value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !numbers.is_empty() {
        let len = mem::size_of_val(&numbers[..]);
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: computes a length from a length, which `CONTROL_WORDS` has room for.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(len as c_uint) } as _;
        // SAFETY: `control` is writable, aligned and long enough for one header and the numbers
        // behind it, which is what the message says of it.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(len as c_uint) as _;
            ptr::copy_nonoverlapping(numbers.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), len);
        }
    }
    super::retry_interrupted(|| {
        // SAFETY: `message` and all that it points to are valid and outlive the call.
        let sent = unsafe {
            syscall!(sendmsg(
                socket.as_raw_fd(),
                ptr::from_ref(&message),
                SEND_FLAGS & !libc::MSG_DONTWAIT
            ))
        }?;
        Ok(sent as usize)
    })
}

/// Receives into `bytes`, which is not to be empty, and puts the descriptors that came with it into
/// `fds`, close-on-exec; says how many bytes. 0 is the end.
///
/// # Errors
///
/// Also when some descriptors did not arrive, because this process has none left: those that did are
/// in `fds`.
pub(crate) fn recv(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut control = [0_u64; CONTROL_WORDS];
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: made of integers and pointers alone, for which zero is a valid value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of_val(&control) as _;
    let received = super::retry_interrupted(|| {
        // SAFETY: `message` and all that it points to are valid, writable where the kernel writes,
        // and outlive the call.
        unsafe {
            syscall!(recvmsg(
                socket.as_raw_fd(),
                &raw mut message,
                RECV_FDS_FLAGS,
            ))
        }
    })?;
    // SAFETY: the kernel has filled `control` and said how far; the macros stay within that. Numbers
    // that come as SCM_RIGHTS are new descriptors of this process, owned by nobody yet.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let len = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let numbers = libc::CMSG_DATA(header).cast::<RawFd>();
                for at in 0..len / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(ptr::read_unaligned(numbers.add(at))));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    if RECV_FDS_FLAGS == 0 {
        for fd in fds.iter() {
            super::descriptor::set_cloexec(fd.as_fd())?;
        }
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::other(
            "not all descriptors arrived: this process may open no more of them",
        ));
    }
    Ok(received as usize)
}

pub(crate) use super::platform::peer_uid;

/// The user that this process acts as.
pub(crate) fn own_uid() -> u32 {
    // SAFETY: takes nothing, and cannot fail.
    unsafe { libc::geteuid() }
}

/// Ends whoever waits in an accept on this listening Unix socket, and every accept to come.
pub(crate) fn end_accepts(listener: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointer.
    unsafe { syscall!(shutdown(listener.as_raw_fd(), libc::SHUT_RDWR)) }.map(drop)
}

/// Takes over the descriptors from `first` on that this process was started with, `count` of them,
/// and keeps them from being handed down.
///
/// # Errors
///
/// When one of them is not open; then none is taken.
pub(crate) fn inherited(first: c_int, count: usize) -> io::Result<Vec<OwnedFd>> {
    let numbers = (first..).take(count);
    for number in numbers.clone() {
        // SAFETY: takes no pointer.
        unsafe { syscall!(fcntl(number, libc::F_GETFD)) }?;
    }
    let fds: Vec<OwnedFd> = numbers
        // SAFETY: open, as was looked at; the caller says that they were handed down to this process
        // for it to take over, and takes them once.
        .map(|number| unsafe { OwnedFd::from_raw_fd(number) })
        .collect();
    for fd in &fds {
        super::descriptor::set_cloexec(fd.as_fd())?;
    }
    Ok(fds)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::sys::test_util::TempDir;

    fn is_cloexec(fd: &OwnedFd) -> bool {
        // SAFETY: takes no pointer.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) & libc::FD_CLOEXEC != 0 }
    }

    #[test]
    fn descriptors_arrive_with_their_bytes_and_close_on_exec() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut pipe, writer) = io::pipe().unwrap();
        let fds = vec![writer.as_fd(); FDS_MAX];
        assert_eq!(send(one.as_fd(), b"sixty-four", &fds).unwrap(), 10);
        assert_eq!(send(one.as_fd(), b"none", &[]).unwrap(), 4);
        let (mut bytes, mut got) = ([0; 16], Vec::new());
        assert_eq!(recv(other.as_fd(), &mut bytes[..6], &mut got).unwrap(), 6);
        assert_eq!((&bytes[..6], got.len()), (&b"sixty-"[..], FDS_MAX));
        assert!(got.iter().all(is_cloexec));
        assert_eq!(recv(other.as_fd(), &mut bytes, &mut got).unwrap() % 4, 0);
        assert_eq!(got.len(), FDS_MAX);
        drop(writer);
        std::fs::File::from(got.pop().unwrap())
            .write_all(b"x")
            .unwrap();
        pipe.read_exact(&mut [0]).unwrap();
        drop(got);
        assert_eq!(pipe.read(&mut [0]).unwrap(), 0, "all of them are closed");
        drop(one);
        assert_eq!(recv(other.as_fd(), &mut bytes, &mut Vec::new()).unwrap(), 0);
    }

    #[test]
    fn the_peer_of_a_pair_is_this_user() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(peer_uid(one.as_fd()).unwrap(), own_uid());
    }

    #[test]
    fn an_accept_that_waits_is_ended() {
        let dir = TempDir::new();
        let listener = UnixListener::bind(dir.path("listener")).unwrap();
        std::thread::scope(|scope| {
            let accept = scope.spawn(|| listener.accept().map(drop));
            end_accepts(listener.as_fd()).unwrap();
            assert!(accept.join().unwrap().is_err());
        });
        assert!(listener.accept().is_err());
    }

    #[test]
    fn what_is_not_open_is_not_inherited() {
        let error = inherited(1_000_000, 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        assert!(inherited(3, 0).unwrap().is_empty());
    }
}
