//! What the two processes of a handover say to one another.
//!
//! Frames over a Unix stream socket: the length of what follows in four bytes, a tag, a body; numbers
//! are little-endian. Descriptors travel with the first byte of a frame of their own.
//!
//! ```text
//! successor: Hello ->                 its version and process id
//! predecessor:                        Hello <- the same; where versions differ, both leave here
//!                                     Listener <- name, file, how many sockets; Fds <- up to 64 of them
//!                                     (again for each listener)
//!                                     Control <- the path, with the socket that offers at it
//!                                     End <-
//! successor: Confirm ->               it accepts on all of them
//! predecessor:                        Released <- it does not any more
//! successor: Taken ->                 and only now the predecessor closes its own
//! ```
//!
//! `Refused`, with a reason, may stand in place of whatever the predecessor would say next. It says
//! so whenever it goes on by itself: an end without it is the predecessor's death.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::handover::HandoverError;
use crate::sys::fd_passing::{self, FDS_MAX};

/// Raised when a frame changes. The first frame of either side never does.
pub(super) const VERSION: u16 = 1;

/// What both sides begin with, so that a stranger is known as one.
const MAGIC: &[u8; 8] = b"GRNROOM\0";

/// The longest frame: names and paths are short.
const FRAME_MAX: usize = 64 << 10;

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Which version, and which process.
    Hello {
        version: u16,
        pid: u32,
    },
    Listener {
        name: String,
        file: Option<Vec<u8>>,
        sockets: u32,
    },
    Fds,
    Control(Vec<u8>),
    End,
    Confirm,
    Released,
    Taken,
    Refused(String),
}

impl Frame {
    fn encode(&self) -> Vec<u8> {
        let mut body = vec![0; 4];
        match self {
            Frame::Hello { version, pid } => {
                body.push(b'H');
                body.extend_from_slice(MAGIC);
                body.extend_from_slice(&version.to_le_bytes());
                body.extend_from_slice(&pid.to_le_bytes());
            }
            Frame::Listener {
                name,
                file,
                sockets,
            } => {
                body.push(b'L');
                body.extend_from_slice(&sockets.to_le_bytes());
                put(&mut body, name.as_bytes());
                if let Some(file) = file {
                    put(&mut body, file);
                }
            }
            Frame::Fds => body.push(b'F'),
            Frame::Control(path) => {
                body.push(b'O');
                put(&mut body, path);
            }
            Frame::End => body.push(b'E'),
            Frame::Confirm => body.push(b'C'),
            Frame::Released => body.push(b'R'),
            Frame::Taken => body.push(b'T'),
            Frame::Refused(reason) => {
                body.push(b'X');
                put(&mut body, reason.as_bytes());
            }
        }
        let len = (body.len() - 4) as u32;
        body[..4].copy_from_slice(&len.to_le_bytes());
        body
    }

    /// `None` for what is no frame.
    fn decode(body: &[u8]) -> Option<Frame> {
        let (tag, mut rest) = body.split_first()?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
        let frame = match tag {
            b'H' => {
                take(&mut rest, MAGIC.len()).filter(|magic| magic == MAGIC)?;
                let version = u16::from_le_bytes(take(&mut rest, 2)?.try_into().ok()?);
                let pid = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
                // Later versions may say more behind it.
                return Some(Frame::Hello { version, pid });
            }
            b'L' => Frame::Listener {
                sockets: u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?),
                name: text(get(&mut rest)?)?,
                file: if rest.is_empty() {
                    None
                } else {
                    Some(get(&mut rest)?)
                },
            },
            b'F' => Frame::Fds,
            b'O' => Frame::Control(get(&mut rest)?),
            b'E' => Frame::End,
            b'C' => Frame::Confirm,
            b'R' => Frame::Released,
            b'T' => Frame::Taken,
            b'X' => Frame::Refused(text(get(&mut rest)?)?),
            _ => return None,
        };
        rest.is_empty().then_some(frame)
    }
}

/// Bytes behind their length.
fn put(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    body.extend_from_slice(bytes);
}

fn get(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let len = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?);
    take(rest, len as usize)
}

fn take(rest: &mut &[u8], n: usize) -> Option<Vec<u8>> {
    let (taken, left) = rest.split_at_checked(n)?;
    *rest = left;
    Some(taken.to_vec())
}

/// One side of a handover.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
}

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Wire {
        Wire { stream }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Sends a frame, and `fds` with it.
    pub(super) fn send(
        &self,
        frame: &Frame,
        fds: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<(), HandoverError> {
        let bytes = frame.encode();
        let mut fds = fds;
        let mut sent = 0;
        while sent < bytes.len() {
            let left = left(deadline)?;
            self.stream.set_write_timeout(Some(left)).map_err(lost)?;
            sent += fd_passing::send(self.as_fd(), &bytes[sent..], fds).map_err(lost)?;
            fds = &[];
        }
        Ok(())
    }

    /// Sends all of `fds`, in as many frames as it takes.
    pub(super) fn send_fds(
        &self,
        fds: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<(), HandoverError> {
        let mut parts = fds.chunks(FDS_MAX);
        parts.try_for_each(|part| self.send(&Frame::Fds, part, deadline))
    }

    /// The next frame, and what came with it.
    pub(super) fn recv(&self, deadline: Instant) -> Result<(Frame, Vec<OwnedFd>), HandoverError> {
        let mut fds = Vec::new();
        let mut len = [0; 4];
        self.fill(&mut len, &mut fds, deadline)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > FRAME_MAX {
            return Err(HandoverError::Protocol);
        }
        let mut body = vec![0; len];
        self.fill(&mut body, &mut fds, deadline)?;
        match Frame::decode(&body) {
            Some(Frame::Refused(reason)) => Err(HandoverError::Refused(reason)),
            Some(frame) => Ok((frame, fds)),
            None => Err(HandoverError::Protocol),
        }
    }

    /// The next frame, which is to be this one.
    pub(super) fn expect(&self, expected: &Frame, deadline: Instant) -> Result<(), HandoverError> {
        match self.recv(deadline)? {
            (frame, fds) if frame == *expected && fds.is_empty() => Ok(()),
            _ => Err(HandoverError::Protocol),
        }
    }

    fn fill(
        &self,
        mut bytes: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        deadline: Instant,
    ) -> Result<(), HandoverError> {
        while !bytes.is_empty() {
            let left = left(deadline)?;
            self.stream.set_read_timeout(Some(left)).map_err(lost)?;
            match fd_passing::recv(self.as_fd(), bytes, fds).map_err(lost)? {
                0 => return Err(HandoverError::Lost),
                received => bytes = &mut bytes[received..],
            }
        }
        Ok(())
    }
}

/// The time that is left. At least a millisecond: none at all would be for ever.
fn left(deadline: Instant) -> Result<std::time::Duration, HandoverError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(HandoverError::TimedOut);
    }
    Ok(left.max(std::time::Duration::from_millis(1)))
}

/// What an error of the stream means.
fn lost(error: io::Error) -> HandoverError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => HandoverError::TimedOut,
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected => {
            HandoverError::Lost
        }
        _ => HandoverError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    const HELLO: Frame = Frame::Hello {
        version: 7,
        pid: 123_456,
    };

    fn pair() -> (Wire, Wire) {
        let (one, other) = UnixStream::pair().unwrap();
        (Wire::new(one), Wire::new(other))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn frames_round_trip() {
        for frame in [
            HELLO,
            Frame::Listener {
                name: "web".to_owned(),
                file: None,
                sockets: 3,
            },
            Frame::Listener {
                name: String::new(),
                file: Some(b"/run/x.sock".to_vec()),
                sockets: 1,
            },
            Frame::Fds,
            Frame::Control(b"/run/handover".to_vec()),
            Frame::End,
            Frame::Confirm,
            Frame::Released,
            Frame::Taken,
            Frame::Refused("no".to_owned()),
        ] {
            let bytes = frame.encode();
            assert_eq!(bytes[..4], (bytes.len() as u32 - 4).to_le_bytes());
            assert_eq!(Frame::decode(&bytes[4..]).as_ref(), Some(&frame));
            if frame != HELLO {
                let longer = [&bytes[4..], b"x"].concat();
                assert_eq!(Frame::decode(&longer), None, "{frame:?}");
            }
            for len in 0..bytes.len() - 4 {
                let shorter = Frame::decode(&bytes[4..4 + len]);
                // But for a name without the file behind it, which is a listener of TCP.
                assert!(shorter.is_none_or(|f| matches!(f, Frame::Listener { file: None, .. })));
            }
        }
        assert_eq!(Frame::decode(b"?"), None);
        assert_eq!(Frame::decode(b"HGRNROOM!\x01\0"), None);
    }

    #[test]
    fn many_descriptors_take_several_frames() {
        let (one, other) = pair();
        let fds = vec![one.as_fd(); 2 * FDS_MAX + 1];
        one.send_fds(&fds, soon()).unwrap();
        let count = [0, 1, 2].map(|_| other.recv(soon()).unwrap().1.len());
        assert_eq!(count, [FDS_MAX, FDS_MAX, 1]);
    }

    #[test]
    fn whoever_is_no_greenroom_is_found_out() {
        let (one, other) = pair();
        (&one.stream).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(matches!(other.recv(soon()), Err(HandoverError::Protocol)));
        let (one, other) = pair();
        drop(one);
        assert!(matches!(other.recv(soon()), Err(HandoverError::Lost)));
        assert!(matches!(
            other.send(&Frame::Confirm, &[], soon()),
            Err(HandoverError::Lost)
        ));
    }

    #[test]
    fn whoever_says_nothing_is_not_waited_for() {
        let (_one, other) = pair();
        let soon = Instant::now() + Duration::from_millis(5);
        assert!(matches!(other.recv(soon), Err(HandoverError::TimedOut)));
        assert!(matches!(other.recv(soon), Err(HandoverError::TimedOut)));
    }

    #[test]
    fn a_refusal_is_heard_in_place_of_anything() {
        let (one, other) = pair();
        let refused = Frame::Refused("not now".to_owned());
        one.send(&refused, &[], soon()).unwrap();
        let heard = other.expect(&Frame::Released, soon());
        assert!(matches!(heard, Err(HandoverError::Refused(why)) if why == "not now"));
    }
}
