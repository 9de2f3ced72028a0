//! Several datagrams out in one system call.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use crate::sys::addr::SockAddr;
use crate::sys::datagram::options::{Control, SourceAddr};
use crate::sys::datagram::{Batched, DatagramAddr, Family, mmsghdr};
use crate::sys::platform::SEND_FLAGS;
use crate::sys::retry_interrupted;
use crate::sys::selector::Source;
use crate::sys::socket::Socket;

/// The most datagrams that one call sends: as many as the answers to two batches received.
const SEND_BATCH: usize = 64;

/// A datagram to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    /// `None` for where the socket is connected to.
    pub(crate) to: Option<&'a DatagramAddr>,
    /// Which of our addresses it is to leave from, if not one that the system chooses.
    pub(crate) from: Option<SourceAddr>,
    pub(crate) bytes: &'a [u8],
}

/// What a call that sends several is told them by. Of use to all sockets of a poller.
pub(crate) struct SendBatch {
    names: Vec<SockAddr>,
    controls: Vec<Control>,
    slices: Vec<libc::iovec>,
    headers: Vec<mmsghdr>,
    #[cfg_attr(
        not(any(target_os = "linux", target_os = "android")),
        allow(dead_code, reason = "one by one is the only way")
    )]
    batched: Batched,
}

impl SendBatch {
    pub(crate) fn new(batched: Batched) -> SendBatch {
        SendBatch {
            names: Vec::with_capacity(SEND_BATCH),
            controls: vec![Control::EMPTY; SEND_BATCH],
            slices: Vec::with_capacity(SEND_BATCH),
            headers: Vec::with_capacity(SEND_BATCH),
            batched,
        }
    }

    /// Sends up to [`SEND_BATCH`] of `datagrams`, in their order: how many, at least one unless there
    /// is none. An error is that of the first, of which nothing was sent.
    pub(crate) fn send<'a>(
        &mut self,
        socket: &Socket,
        family: Family,
        datagrams: impl Iterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        let datagrams = datagrams.take(SEND_BATCH);
        let fd = match socket.source() {
            Source::Fd(fd) => fd.as_raw_fd(),
            Source::Simulated(number) => {
                let mut sent = 0;
                for datagram in datagrams {
                    match number.send_datagram(&datagram) {
                        Ok(()) => sent += 1,
                        Err(error) if sent == 0 => return Err(error),
                        Err(_) => break,
                    }
                }
                return Ok(sent);
            }
        };
        self.names.clear();
        self.slices.clear();
        self.headers.clear();
        for datagram in datagrams {
            match self.add(family, &datagram) {
                Ok(()) => {}
                Err(error) if self.headers.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        if self.headers.is_empty() {
            return Ok(0);
        }
        self.call(fd)
    }

    /// Invariant: no more than [`SEND_BATCH`], for which there is room: nothing moves.
    fn add(&mut self, family: Family, datagram: &Outgoing<'_>) -> io::Result<()> {
        let at = self.headers.len();
        // SAFETY: made of integers and pointers alone, for which zero is a valid value.
        let mut header: mmsghdr = unsafe { mem::zeroed() };
        if let Some(to) = datagram.to {
            let mut name = to.sock_addr(family)?;
            header.msg_hdr.msg_namelen = name.len();
            debug_assert!(self.names.len() < self.names.capacity());
            let _ = name.as_mut_ptr();
            self.names.push(name);
            let name = self.names.last_mut().expect("just pushed");
            header.msg_hdr.msg_name = name.as_mut_ptr().cast();
        }
        if let Some(from) = datagram.from {
            let len = self.controls[at].write_source(family, from);
            if len > 0 {
                header.msg_hdr.msg_control = (&raw mut self.controls[at]).cast();
                header.msg_hdr.msg_controllen = len as _;
            }
        }
        self.slices.push(libc::iovec {
            // Not written to; the structure is not const because recvmsg shares it.
            iov_base: datagram.bytes.as_ptr().cast_mut().cast(),
            iov_len: datagram.bytes.len(),
        });
        let slice = self.slices.last_mut().expect("just pushed");
        header.msg_hdr.msg_iov = ptr::from_mut(slice);
        header.msg_hdr.msg_iovlen = 1;
        self.headers.push(header);
        Ok(())
    }

    fn call(&mut self, fd: RawFd) -> io::Result<usize> {
        let flags = SEND_FLAGS;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if self.batched != Batched::No && self.headers.len() > 1 {
            let (headers, count) = (self.headers.as_mut_ptr(), self.headers.len());
            let sent = retry_interrupted(|| {
                // SAFETY: `count` headers, each pointing to a name, a control and a slice that are
                // there until the next call, and the slices to bytes that are borrowed for this one.
                unsafe { syscall!(sendmmsg(fd, headers, count as _, flags as _)) }
            });
            match sent {
                Ok(count) => return Ok(count as usize),
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                    self.batched = Batched::No;
                }
                Err(error) => return Err(error),
            }
        }
        for at in 0..self.headers.len() {
            let header: *const libc::msghdr = &raw const self.headers[at].msg_hdr;
            let sent = retry_interrupted(|| {
                // SAFETY: as above.
                unsafe { syscall!(sendmsg(fd, header, flags)) }
            });
            match sent {
                Ok(_) => {}
                Err(error) if at == 0 => return Err(error),
                Err(_) => return Ok(at),
            }
        }
        Ok(self.headers.len())
    }
}
