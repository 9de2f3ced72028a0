//! Several datagrams in one system call.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::ptr;

use libc::{MSG_DONTWAIT, MSG_TRUNC, c_int};

use crate::sys::addr::SockAddr;
use crate::sys::datagram::options::{Control, Destination, SourceAddr};
use crate::sys::datagram::{Batched, DatagramAddr, Family, mmsghdr};
use crate::sys::retry_interrupted;
use crate::sys::selector::Source;
use crate::sys::socket::Socket;

/// The most datagrams that are received at once. Enough to share out the cost of a call, which is
/// twenty times that of a datagram in it, and few enough for those who wait meanwhile.
const BATCH: usize = 32;

/// How many bytes the places for them have together, unless one alone has more.
const BUFFER_MAX: usize = 4 << 20;

/// Room for what one call receives. A poller has one for all its sockets, and only if it has any.
///
/// Each datagram has a place of its own. What of a place no datagram has reached yet takes no
/// memory: the pages of a large allocation that nobody has written to are not there.
pub(crate) struct ReceiveBatch {
    buffer: Vec<u8>,
    place: usize,
    /// How many bytes the kernel may say beside a datagram.
    control_room: usize,
    names: Vec<SockAddr>,
    controls: Vec<Control>,
    slices: Vec<libc::iovec>,
    /// Invariant: each points to its place of the buffer, its name, control and slice, none of
    /// which moves or grows while it is there.
    headers: Vec<mmsghdr>,
    received: Vec<Received>,
    /// What recvmsg(2) has returned behind them.
    error: Option<io::Error>,
    #[cfg_attr(
        not(any(target_os = "linux", target_os = "android")),
        allow(dead_code, reason = "one by one is the only way")
    )]
    batched: Batched,
}

/// One that has come.
#[derive(Clone, Debug)]
struct Received {
    len: usize,
    /// Of the datagram as it was sent.
    whole: usize,
    is_cut: bool,
    from: DatagramAddr,
    destination: Destination,
}

/// The same, as it is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) whole: usize,
    pub(crate) is_cut: bool,
    pub(crate) from: &'a DatagramAddr,
    pub(crate) destination: Destination,
}

impl ReceiveBatch {
    /// For datagrams of up to `place` bytes.
    pub(crate) fn new(place: usize, batched: Batched) -> ReceiveBatch {
        let count = (BUFFER_MAX / place).clamp(1, BATCH);
        let mut batch = ReceiveBatch {
            buffer: vec![0; count * place],
            place,
            control_room: Control::ROOM,
            names: (0..count).map(|_| SockAddr::zeroed()).collect(),
            controls: vec![Control::EMPTY; count],
            slices: Vec::with_capacity(count),
            headers: Vec::with_capacity(count),
            received: Vec::with_capacity(count),
            error: None,
            batched,
        };
        let start = batch.buffer.as_mut_ptr();
        for at in 0..count {
            batch.slices.push(libc::iovec {
                // SAFETY: within the buffer, which has `count` places.
                iov_base: unsafe { start.add(at * place) }.cast(),
                iov_len: place,
            });
        }
        let (names, controls) = (batch.names.as_mut_ptr(), batch.controls.as_mut_ptr());
        let slices = batch.slices.as_mut_ptr();
        for at in 0..count {
            // SAFETY: made of integers and pointers alone, for which zero is a valid value.
            let mut header: mmsghdr = unsafe { mem::zeroed() };
            // SAFETY: each of the three has `count` elements.
            unsafe {
                header.msg_hdr.msg_name = (*names.add(at)).as_mut_ptr().cast();
                header.msg_hdr.msg_control = controls.add(at).cast();
                header.msg_hdr.msg_iov = slices.add(at);
            }
            header.msg_hdr.msg_iovlen = 1;
            batch.headers.push(header);
            batch.make_ready(at, place);
        }
        batch
    }

    /// How long a datagram may be.
    pub(crate) fn place(&self) -> usize {
        self.place
    }

    fn make_ready(&mut self, at: usize, max: usize) {
        self.slices[at].iov_len = max;
        let header = &mut self.headers[at].msg_hdr;
        header.msg_namelen = SockAddr::ROOM;
        header.msg_controllen = self.control_room as _;
        header.msg_flags = 0;
    }

    /// Receives up to [`BATCH`] datagrams of at most `max` bytes each: how many, at least one. What
    /// is longer is cut off.
    ///
    /// An error of the socket that a datagram sent earlier has brought about comes once, and in a
    /// call of its own.
    pub(crate) fn receive(
        &mut self,
        socket: &Socket,
        family: Family,
        max: usize,
    ) -> io::Result<usize> {
        self.received.clear();
        let max = max.min(self.place);
        let fd = match socket.source() {
            Source::Fd(fd) => fd.as_raw_fd(),
            Source::Simulated(number) => {
                while self.received.len() < self.headers.len() {
                    let at = self.received.len() * self.place;
                    let place = &mut self.buffer[at..at + max];
                    match number.receive_datagram(place) {
                        Ok((whole, from, to)) => self.received.push(Received {
                            len: whole.min(max),
                            whole,
                            is_cut: whole > max,
                            from,
                            destination: Destination {
                                to,
                                answers_from: to.map(SourceAddr::from),
                                interface: None,
                            },
                        }),
                        Err(error) if self.received.is_empty() => return Err(error),
                        Err(_) => break,
                    }
                }
                return Ok(self.received.len());
            }
        };
        if max != self.slices[0].iov_len {
            let slices = self.slices.iter_mut();
            slices.for_each(|slice| slice.iov_len = max);
        }
        let control_room = Control::room(family);
        if control_room != self.control_room {
            self.control_room = control_room;
            let headers = self.headers.iter_mut();
            headers.for_each(|header| header.msg_hdr.msg_controllen = control_room as _);
        }
        let count = self.call(fd)?;
        for at in 0..count {
            let header = &self.headers[at];
            let whole = header.msg_len as usize;
            self.names[at].set_len(header.msg_hdr.msg_namelen);
            // SAFETY: the call has filled this header in.
            let destination = unsafe { Control::read(&header.msg_hdr) };
            let received = Received {
                len: whole.min(max),
                whole,
                is_cut: header.msg_hdr.msg_flags & MSG_TRUNC != 0,
                from: DatagramAddr::of(&self.names[at]).unwrap_or(DatagramAddr::Unnamed),
                destination,
            };
            self.received.push(received);
            self.make_ready(at, max);
        }
        Ok(count)
    }

    fn call(&mut self, fd: RawFd) -> io::Result<usize> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if self.batched != Batched::No {
            let (headers, count) = (self.headers.as_mut_ptr(), self.headers.len());
            // MSG_TRUNC, as a request: the length is to be that of the whole datagram.
            let flags = MSG_DONTWAIT | MSG_TRUNC;
            let received = retry_interrupted(|| {
                // SAFETY: `count` headers, whose pointers are valid by their invariant.
                unsafe {
                    syscall!(recvmmsg(
                        fd,
                        headers,
                        count as _,
                        flags as _,
                        ptr::null_mut()
                    ))
                }
            });
            match received {
                Ok(count) => return Ok(count as usize),
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                    self.batched = Batched::No;
                }
                Err(error) => return Err(error),
            }
        }
        self.call_one_by_one(fd)
    }

    /// Where the kernel has no call for several.
    fn call_one_by_one(&mut self, fd: RawFd) -> io::Result<usize> {
        const WHOLE: c_int = if cfg!(any(target_os = "linux", target_os = "android")) {
            MSG_TRUNC
        } else {
            0
        };
        for at in 0..self.headers.len() {
            let header: *mut libc::msghdr = &raw mut self.headers[at].msg_hdr;
            let received = retry_interrupted(|| {
                // SAFETY: the header's pointers are valid by its invariant.
                unsafe { syscall!(recvmsg(fd, header, MSG_DONTWAIT | WHOLE)) }
            });
            match received {
                Ok(len) => self.headers[at].msg_len = len as _,
                Err(error) if at == 0 => return Err(error),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(at),
                Err(error) => {
                    self.error = Some(error);
                    return Ok(at);
                }
            }
        }
        Ok(self.headers.len())
    }

    /// An error that came behind the datagrams of the last call: to be dealt with after them. (One
    /// that recvmmsg(2) meets there, the kernel keeps for the next call.)
    pub(crate) fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// One of those that the last call has received.
    pub(crate) fn get(&self, at: usize) -> Arrived<'_> {
        let received = &self.received[at];
        let start = at * self.place;
        Arrived {
            bytes: &self.buffer[start..start + received.len],
            whole: received.whole,
            is_cut: received.is_cut,
            from: &received.from,
            destination: received.destination,
        }
    }
}
