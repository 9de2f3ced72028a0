//! Giving a descriptor to an actor from any thread.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use crate::actor::Actor;
use crate::addr::{Addr, Control};
use crate::adopt::{
    AdoptError, AdoptErrorKind, AdoptOptions, Adoptable, Adoption, Given, Watching,
};
use crate::call::Hosted;
use crate::datagram::Bound;
use crate::handle::Handle;
use crate::sys::Interest;

impl Handle {
    /// Gives a socket that exists to an actor, as if a listener had accepted it: on the poller that
    /// has the fewest, where `make` runs. The address works at once: what is sent to it waits until
    /// the actor is opened. A panic in `make` is counted, closes the socket, and the address then has
    /// gone.
    ///
    /// `socket` is an [`OwnedFd`], a `TcpStream` or `UnixStream`, or a
    /// [`Detached`](crate::Detached) with the bytes that were under way; or a `UdpSocket` or
    /// `UnixDatagram`, whose actor is one for [datagrams](crate::Actor::datagram). It is made
    /// non-blocking, for all who share it, and close-on-exec; its other options stay as they are. (But
    /// for SO_LINGER, by which a close would block the poller, and IP_RECVERR of a UDP socket, whose
    /// queue nobody reads here: both are switched off.)
    ///
    /// May be called inside a callback: the few system calls that it makes do not wait.
    ///
    /// # Errors
    ///
    /// When it is neither a connected stream nor a datagram socket (see [`AdoptErrorKind`]), or the
    /// system has stopped. The socket comes back in the error.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    /// use greenroom::*;
    ///
    /// struct Echo;
    ///
    /// impl Actor for Echo {
    ///     type Message = ();
    ///
    ///     fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         ctx.write(input.take_all());
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let system = System::builder().pollers(1).build()?;
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// system.adopt(ours, || Echo)?;
    /// theirs.write_all(b"hello")?;
    /// let mut answer = [0; 5];
    /// theirs.read_exact(&mut answer)?;
    /// assert_eq!(&answer, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn adopt<A: Actor>(
        &self,
        socket: impl Into<Adoptable>,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, AdoptError> {
        self.adopt_with(socket, AdoptOptions::default(), make)
    }

    /// The same with options.
    ///
    /// # Errors
    ///
    /// As [`adopt`](Handle::adopt).
    pub fn adopt_with<A: Actor>(
        &self,
        socket: impl Into<Adoptable>,
        options: AdoptOptions,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, AdoptError> {
        self.adopt_on(self.shared.least_loaded(), socket, options, make)
    }

    /// The same on the poller of this number.
    ///
    /// # Errors
    ///
    /// As [`adopt`](Handle::adopt).
    ///
    /// # Panics
    ///
    /// When there is no such poller, see [`Handle::pollers`].
    pub fn adopt_on<A: Actor>(
        &self,
        poller: usize,
        socket: impl Into<Adoptable>,
        options: AdoptOptions,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, AdoptError> {
        let pollers = &self.shared.pollers;
        assert!(
            poller < pollers.len(),
            "adopt: there is no poller {poller}, the system has {}",
            pollers.len()
        );
        let socket = socket.into();
        if self.shared.is_stopping() {
            return Err(AdoptError::new(
                "adopt",
                AdoptErrorKind::Stopped,
                Some(socket),
            ));
        }
        let given = socket.prepare(&options, self.shared.simulated.is_some())?;
        let make = Box::new(move || Box::new(make()) as Box<dyn Hosted>);
        let control = match given {
            Given::Stream(socket) => {
                let origin = self.shared.origin_of(&options.connection);
                origin.live.fetch_add(1, Ordering::AcqRel);
                Control::Adopt(Box::new(Adoption {
                    make,
                    origin,
                    socket,
                }))
            }
            Given::Datagrams(socket, options) => Control::Bind(Box::new(Bound {
                socket,
                options,
                make,
            })),
        };
        let door = &pollers[poller].door;
        door.sockets.fetch_add(1, Ordering::AcqRel);
        let (post, key) = pollers[poller].place::<A>(control);
        if self.shared.is_stopping() {
            // Its poller may have ended meanwhile, and nobody else says that the last socket has
            // gone.
            self.shared.tell_if_empty();
        }
        Ok(Addr::new(post, key))
    }

    /// Has any other descriptor watched for an actor: a pipe, an inotify, a signalfd, a timerfd, a
    /// socket that the actor reads by itself. [`Actor::ready`] is called for as long as it is ready
    /// in a direction that is asked for; [`Context::descriptor`](crate::Context::descriptor) lends
    /// it. It is deregistered and closed when the actor ends, and not before `closed` is told.
    ///
    /// The actor is one without a socket: `write` panics, a stop does not wait for it, and it counts
    /// in no limit. It lives on a poller chosen as by [`adopt`](Handle::adopt); its address works at
    /// once.
    ///
    /// The descriptor is made close-on-exec; that it blocks or not stays as it is, since others may
    /// share it. One read of what is ready does not wait, nor does one write of up to PIPE_BUF bytes
    /// to a pipe; for more, make it non-blocking. A named pipe whose writers come and go is to be
    /// opened for writing as well: else it hangs up with each that is the last, for ever, and is
    /// [let be](Actor::ready).
    ///
    /// # Errors
    ///
    /// When it is always ready, as a regular file is, or the system has stopped. The descriptor comes
    /// back in the error.
    ///
    /// ```
    /// use std::io::{PipeReader, Read, Write};
    /// use greenroom::*;
    ///
    /// struct Lines {
    ///     pipe: PipeReader,
    ///     to: std::sync::mpsc::Sender<String>,
    /// }
    ///
    /// impl Actor for Lines {
    ///     type Message = ();
    ///
    ///     fn ready(&mut self, _ready: Readiness, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         let mut bytes = [0; 4096];
    ///         let read = self.pipe.read(&mut bytes)?;
    ///         if read == 0 {
    ///             ctx.close();
    ///         }
    ///         self.to.send(String::from_utf8_lossy(&bytes[..read]).into_owned())?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let system = System::builder().pollers(1).build()?;
    /// let (pipe, mut writer) = std::io::pipe()?;
    /// let (to, heard) = std::sync::mpsc::channel();
    /// // A duplicate for std's `Read`, which takes no borrowed descriptor.
    /// let watched = pipe.try_clone()?;
    /// system.watch(watched, Interest::READ, move || Lines { pipe, to })?;
    /// writer.write_all(b"hello")?;
    /// assert_eq!(heard.recv()?, "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch<A: Actor>(
        &self,
        descriptor: impl Into<OwnedFd>,
        interest: Interest,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, AdoptError> {
        self.watch_on(self.shared.least_loaded(), descriptor, interest, make)
    }

    /// The same on the poller of this number.
    ///
    /// # Errors
    ///
    /// As [`watch`](Handle::watch).
    ///
    /// # Panics
    ///
    /// When there is no such poller, see [`Handle::pollers`].
    pub fn watch_on<A: Actor>(
        &self,
        poller: usize,
        descriptor: impl Into<OwnedFd>,
        interest: Interest,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, AdoptError> {
        let pollers = &self.shared.pollers;
        assert!(
            poller < pollers.len(),
            "watch: there is no poller {poller}, the system has {}",
            pollers.len()
        );
        let descriptor = Adoptable::from(descriptor.into());
        if self.shared.is_stopping() {
            let kind = AdoptErrorKind::Stopped;
            return Err(AdoptError::new("watch", kind, Some(descriptor)));
        }
        let watching = Watching {
            make: Box::new(move || Box::new(make()) as Box<dyn Hosted>),
            descriptor: descriptor.prepare_to_watch(self.shared.simulated.is_some())?,
            interest,
        };
        let (post, key) = pollers[poller].place::<A>(Control::Watch(Box::new(watching)));
        Ok(Addr::new(post, key))
    }
}
