//! What an actor may ask for about sockets that leave it, and those that come from elsewhere.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::actor::Actor;
use crate::addr::Addr;
use crate::adopt::{AdoptOptions, Adoptable, DetachError, Detached};
use crate::call::{AdoptFor, Adopting, Wants};
use crate::context::Context;
use crate::flags::Flags;
use crate::sys::{Interest, Source};

impl<A: Actor> Context<'_, A> {
    /// Takes the socket out of this actor, which ends. The connection goes on: `take` is given it,
    /// with the bytes that were read and not consumed and those that were written and have not left
    /// yet, all that this callback writes among them.
    ///
    /// After this callback the socket leaves the selector, the actor's timers are cancelled,
    /// [`closed`](Actor::closed) is called with
    /// [`CloseReason::Detached`](crate::CloseReason::Detached), and the actor is dropped. Then `take`
    /// runs, on this poller's thread, so it should not block: it may hand the [`Detached`] to another
    /// thread, to another actor as a message, or to [`Handle::adopt`](crate::Handle::adopt). A panic
    /// in it is contained and counted; what it had not handed on is closed.
    ///
    /// Where this callback ends the connection in another way (an error, a panic,
    /// [`close`](Context::close) or [`abort`](Context::abort) later on), that holds, and `take` is
    /// dropped without being called.
    ///
    /// An actor inside another (an adapter) detaches the socket of the outer one, with the bytes as
    /// they are on the line. What an adapter has taken from it already goes with the actor: of a
    /// WebSocket message the frames before the last.
    ///
    /// A part of a [file](Context::write_file) that waits cannot go along: then the connection ends
    /// with [`CloseReason::Io`](crate::CloseReason::Io), and `take` is not called.
    ///
    /// # Errors
    ///
    /// Where there is no socket, or this callback has asked for the end of the connection before.
    ///
    /// ```
    /// use greenroom::*;
    ///
    /// /// Reads one line that says who is to serve the rest.
    /// struct Front;
    ///
    /// impl Actor for Front {
    ///     type Message = ();
    ///
    ///     fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         if input.line(80)? == Some(b"blocking") {
    ///             ctx.detach(|detached| {
    ///                 std::thread::spawn(move || serve_blocking(detached));
    ///             })?;
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// fn serve_blocking(detached: Detached) -> std::io::Result<()> {
    ///     use std::io::Write;
    ///     let (_read, unwritten) = (detached.unread.clone(), detached.unwritten.clone());
    ///     detached.set_nonblocking(false)?;
    ///     let mut stream = detached.into_tcp_stream().map_err(std::io::Error::other)?;
    ///     stream.write_all(&unwritten)
    /// }
    /// ```
    pub fn detach(&mut self, take: impl FnOnce(Detached) + 'static) -> Result<(), DetachError> {
        if !self.has_socket() {
            return Err(DetachError::NoSocket);
        }
        if self.call.flags.has(Flags::SPECIAL) {
            return Err(DetachError::NotAStream);
        }
        if self.call.sessions.contains_key(&self.call.key.index()) {
            return Err(DetachError::Secured);
        }
        if self.call.wants.has(Wants::DETACH) {
            return Err(DetachError::Twice);
        }
        if self.is_closing() {
            return Err(DetachError::Closing);
        }
        self.call.wants.set(Wants::DETACH);
        self.call.detach = Some(Box::new(take));
        Ok(())
    }

    /// Gives a socket that exists to a new actor on this poller. Its address works at once; it is
    /// opened after this callback. Otherwise as [`Handle::adopt`](crate::Handle::adopt), which can
    /// choose another poller.
    ///
    /// The poller looks at the socket after this callback. Where it cannot be adopted, the actor is
    /// told by [`closed`](Actor::closed) alone, with
    /// [`CloseReason::NotAdopted`](crate::CloseReason::NotAdopted), and the socket is closed.
    pub fn adopt<B: Actor>(&mut self, socket: impl Into<Adoptable>, actor: B) -> Addr<B> {
        self.adopt_with(socket, AdoptOptions::default(), actor)
    }

    /// The same with options.
    pub fn adopt_with<B: Actor>(
        &mut self,
        socket: impl Into<Adoptable>,
        options: AdoptOptions,
        actor: B,
    ) -> Addr<B> {
        self.give(socket.into(), AdoptFor::Stream(Box::new(options)), actor)
    }

    /// Has a descriptor watched for a new actor on this poller. Its address works at once; it is
    /// opened after this callback. Otherwise as [`Handle::watch`](crate::Handle::watch).
    ///
    /// The poller looks at the descriptor after this callback. Where it cannot be watched, the actor
    /// is told by [`closed`](Actor::closed) alone, with
    /// [`CloseReason::NotAdopted`](crate::CloseReason::NotAdopted), and the descriptor is closed.
    pub fn watch<B: Actor>(
        &mut self,
        descriptor: impl Into<OwnedFd>,
        interest: Interest,
        actor: B,
    ) -> Addr<B> {
        self.give(
            descriptor.into().into(),
            AdoptFor::Watching(interest),
            actor,
        )
    }

    fn give<B: Actor>(&mut self, socket: Adoptable, for_what: AdoptFor, actor: B) -> Addr<B> {
        let post = self.call.registry.post::<B>();
        let key = self.call.registry.door.reserve();
        self.call.wants.set(Wants::ADOPT);
        self.call.adopting.push(Adopting {
            key,
            actor: Box::new(actor),
            socket,
            for_what,
        });
        Addr::new(post, key)
    }

    /// The descriptor that is [watched](crate::Handle::watch) for this actor, in any callback,
    /// [`closed`](Actor::closed) included; `None` for any other actor.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        let descriptor = self.call.descriptor(self.call.key.index() as usize)?;
        match descriptor.source() {
            Source::Fd(fd) => Some(fd),
            Source::Simulated(_) => None,
        }
    }

    /// Asks for other directions of the descriptor that is [watched](crate::Handle::watch) for this
    /// actor; for none, [`Interest::NONE`], not even a hang-up is told. A hang-up that was told is
    /// told again.
    ///
    /// # Panics
    ///
    /// When nothing is watched for this actor.
    pub fn set_interest(&mut self, interest: Interest) {
        assert!(
            self.descriptor().is_some(),
            "set_interest: no descriptor is watched for this actor"
        );
        self.call.wants.set(Wants::INTEREST);
        self.call.interest = interest;
    }
}
