//! Listening on sockets that listen already: from another part of the program, from whoever started
//! it, or from the process that it replaces.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::actor::Actor;
use crate::entrance::Spread;
use crate::listener::{ListenOptions, Listener};
use crate::sys::descriptor::{self, Found};
use crate::sys::{Endpoint, ListenSocket, Peer};
use crate::system::System;

/// Sockets that listen already, on one address: what [`System::listen_from`] takes.
///
/// Made from an [`OwnedFd`], from std's `TcpListener` or `UnixListener`, or from several descriptors
/// that share their address (a group bound with SO_REUSEPORT, which is one listener).
#[derive(Debug)]
pub struct ListenSockets {
    pub(crate) sockets: Vec<OwnedFd>,
    /// The file of a Unix socket that is to be removed in the end, and whether that is ours to do.
    pub(crate) file: Option<(PathBuf, Arc<AtomicBool>)>,
}

impl ListenSockets {
    /// The descriptors. They go on listening.
    pub fn into_fds(self) -> Vec<OwnedFd> {
        self.sockets
    }

    /// Where they listen.
    ///
    /// # Errors
    ///
    /// Of kind [`InvalidInput`](io::ErrorKind::InvalidInput) when there is none, when one does not
    /// listen, or when they listen on several addresses.
    pub fn local_addr(&self) -> io::Result<Endpoint> {
        let mut local = None;
        for socket in &self.sockets {
            match descriptor::find(socket.as_fd())? {
                Found::Listening => {}
                Found::NoSocket(what) => {
                    return Err(invalid(format_args!("it is {what}, not a socket")));
                }
                Found::Stream(_) => {
                    return Err(invalid(format_args!(
                        "it is a connection, and does not listen; use adopt"
                    )));
                }
                _ => return Err(invalid(format_args!("the socket does not listen"))),
            }
            let here = descriptor::local_addr(socket.as_fd())?;
            match &local {
                None => local = Some(here),
                Some(local) if is_one_place(local, &here) => {}
                Some(local) => {
                    return Err(invalid(format_args!(
                        "sockets on {local} and on {here} are two listeners"
                    )));
                }
            }
        }
        local.ok_or_else(|| invalid(format_args!("there is no socket")))
    }
}

/// Whether sockets at these addresses are a group. Of Unix sockets without a path (Linux has abstract
/// names) the address does not tell, and no two of them can be one.
pub(crate) fn is_one_place(one: &Endpoint, other: &Endpoint) -> bool {
    let is_nameless = matches!(one, Endpoint::Unix(path) if path.as_os_str().is_empty());
    one == other && !is_nameless
}

fn invalid(text: fmt::Arguments<'_>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.to_string())
}

impl From<Vec<OwnedFd>> for ListenSockets {
    fn from(sockets: Vec<OwnedFd>) -> ListenSockets {
        ListenSockets {
            sockets,
            file: None,
        }
    }
}

impl From<OwnedFd> for ListenSockets {
    fn from(fd: OwnedFd) -> ListenSockets {
        vec![fd].into()
    }
}

impl From<TcpListener> for ListenSockets {
    fn from(listener: TcpListener) -> ListenSockets {
        OwnedFd::from(listener).into()
    }
}

impl From<UnixListener> for ListenSockets {
    fn from(listener: UnixListener) -> ListenSockets {
        OwnedFd::from(listener).into()
    }
}

/// [`System::listen_from`] has failed. The sockets come back: they still listen, and closing them
/// resets whoever waits to be accepted.
#[derive(Debug)]
pub struct ListenFromError {
    error: io::Error,
    sockets: ListenSockets,
}

impl ListenFromError {
    /// What is wrong.
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// The sockets.
    pub fn into_sockets(self) -> ListenSockets {
        self.sockets
    }
}

impl fmt::Display for ListenFromError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listen_from: {}", self.error)
    }
}

impl Error for ListenFromError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// For `?`, where the sockets are not wanted back: they are closed.
impl From<ListenFromError> for io::Error {
    fn from(error: ListenFromError) -> io::Error {
        io::Error::new(error.error.kind(), error.to_string())
    }
}

impl System {
    /// Listens on sockets that listen already, otherwise as [`listen_with`](System::listen_with).
    ///
    /// They are made non-blocking, for all who share them, close-on-exec, and lose a linger time, which
    /// what they accept would have from them. Of `options` all count
    /// but [`backlog`](ListenOptions::backlog), which stays as it is. Several sockets of one address
    /// are a group: each is accepted from by one of the listener's pollers, in turn. With
    /// [`Balance::PerPoller`](crate::Balance::PerPoller) connections stay there; where there are fewer
    /// sockets than pollers, so that some would get none, they go to the poller that has the fewest.
    ///
    /// A Unix socket's file is left alone in the end, as it is somebody else's; but for one that was
    /// [handed over](crate::handover), which is this process's from then on.
    ///
    /// # Errors
    ///
    /// When one of them does not listen, they listen on several addresses, an option does not fit, a
    /// poller that is asked for is not there, the system has stopped, or it is a
    /// [simulated](crate::testing::Simulation) one. The sockets come back in the error.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use greenroom::*;
    ///
    /// struct Hello;
    ///
    /// impl Actor for Hello {
    ///     type Message = ();
    ///
    ///     fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         ctx.write(b"hello");
    ///         ctx.close();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let bound = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let addr = bound.local_addr()?;
    /// let system = System::builder().pollers(1).build()?;
    /// system.listen_from(bound, ListenOptions::new(), |_peer| Hello)?;
    /// let mut text = String::new();
    /// std::net::TcpStream::connect(addr)?.read_to_string(&mut text)?;
    /// assert_eq!(text, "hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn listen_from<A: Actor>(
        &self,
        sockets: impl Into<ListenSockets>,
        options: ListenOptions,
        make: impl Fn(Peer) -> A + Send + Sync + 'static,
    ) -> Result<Listener, ListenFromError> {
        let sockets = sockets.into();
        match self.take_over(&sockets, options) {
            Ok((taken, local, pollers, options)) => {
                Ok(self.accept_from(taken, local, pollers, options, make))
            }
            Err(error) => Err(ListenFromError { error, sockets }),
        }
    }

    /// Nothing has happened to `sockets` where this fails: what listens then are duplicates.
    #[allow(clippy::type_complexity, reason = "what `accept_from` takes")]
    fn take_over(
        &self,
        sockets: &ListenSockets,
        mut options: ListenOptions,
    ) -> io::Result<(Vec<ListenSocket>, Endpoint, Vec<usize>, ListenOptions)> {
        if self.is_simulated() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a real socket does not fit into a simulated system",
            ));
        }
        let local = sockets.local_addr()?;
        let pollers = self.pollers_for(&local, &options)?;
        options.socket = options.socket.or_default(&local);
        if matches!(options.spread, Spread::Here) && sockets.sockets.len() < pollers.len() {
            options.spread = Spread::LeastConnections;
        }
        let take = |socket: &OwnedFd| {
            let file = sockets.file.as_ref();
            let file = file.map(|(path, is_ours)| (&**path, is_ours.clone()));
            ListenSocket::take_over(socket.try_clone()?, file, &options.socket)
        };
        let taken = sockets.sockets.iter().map(take);
        let taken = taken.collect::<io::Result<_>>()?;
        Ok((taken, local, pollers, options))
    }
}
