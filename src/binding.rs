//! Binding sockets for datagrams from outside of the pollers.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::actor::Actor;
use crate::addr::{Addr, Control, Entry, What};
use crate::call::Hosted;
use crate::datagram::{Bound, DatagramOptions};
use crate::handle::Handle;
use crate::sys::{DatagramAddr, DatagramBind, DatagramSocket, Family, SPREADS};
use crate::system::System;

/// Sockets for datagrams that are bound to one address, each with an actor of its own on a poller
/// of its own. Dropping this closes none of them.
pub struct DatagramSockets<A: Actor> {
    local: DatagramAddr,
    addrs: Vec<Addr<A>>,
}

impl<A: Actor> DatagramSockets<A> {
    /// Where they are bound; the port is the real one where 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> &DatagramAddr {
        &self.local
    }

    /// The actors, one for each poller that has one, in the order of the pollers.
    #[must_use]
    pub fn addrs(&self) -> &[Addr<A>] {
        &self.addrs
    }

    /// Closes them all, when what their actors have sent has left ([`Addr::close`]). Returns at
    /// once.
    pub fn close(&self) {
        self.addrs.iter().for_each(Addr::close);
    }
}

impl<A: Actor> fmt::Debug for DatagramSockets<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramSockets")
            .field("local_addr", &self.local)
            .field("addrs", &self.addrs.len())
            .finish()
    }
}

impl System {
    /// As [`Handle::bind_datagram`].
    ///
    /// # Errors
    ///
    /// As that.
    ///
    /// ```rust,no_run
    /// use greenroom::*;
    ///
    /// struct Echo;
    ///
    /// impl Actor for Echo {
    ///     type Message = ();
    ///
    ///     fn datagram(&mut self, datagram: Datagram<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         ctx.reply(&datagram, datagram.bytes());
    ///         Ok(())
    ///     }
    /// }
    ///
    /// fn main() -> std::io::Result<()> {
    ///     let system = System::builder().build()?;
    ///     system.bind_datagram("127.0.0.1:9000", || Echo)?;
    ///     system.run()
    /// }
    /// ```
    pub fn bind_datagram<E, A>(
        &self,
        addr: E,
        make: impl Fn() -> A + Send + Sync + 'static,
    ) -> io::Result<DatagramSockets<A>>
    where
        E: TryInto<DatagramAddr>,
        E::Error: Into<Box<dyn Error + Send + Sync>>,
        A: Actor,
    {
        self.handle().bind_datagram(addr, make)
    }

    /// As [`Handle::bind_datagram_with`].
    ///
    /// # Errors
    ///
    /// As that.
    pub fn bind_datagram_with<E, A>(
        &self,
        addr: E,
        options: DatagramOptions,
        make: impl Fn() -> A + Send + Sync + 'static,
    ) -> io::Result<DatagramSockets<A>>
    where
        E: TryInto<DatagramAddr>,
        E::Error: Into<Box<dyn Error + Send + Sync>>,
        A: Actor,
    {
        self.handle().bind_datagram_with(addr, options, make)
    }
}

impl Handle {
    /// Binds sockets for datagrams, UDP or Unix: `"127.0.0.1:9000"`, `"[::]:9000"`,
    /// `"unix:/run/log.sock"`, or a `SocketAddr` or path. Port 0 takes any free one.
    ///
    /// For UDP each poller has a socket and an actor of its own, unless
    /// [`DatagramOptions::per_poller`] says otherwise; `make` is called for each, on its poller, so
    /// the actor need not be `Send`. An IPv6 socket bound to `[::]` takes IPv4 as well, if the
    /// system is set so. A name is resolved on the calling thread, which must not be a poller's for
    /// that reason: an actor binds by [`Context::bind_datagram`](crate::Context::bind_datagram).
    ///
    /// An actor that ends, by a panic for instance, takes its socket with it; where there are
    /// others, the kernel gives them its senders. Its [`closed`](Actor::closed) may
    /// [bind](crate::Context::bind_datagram) the [same address](crate::Context::datagram_addr) for the
    /// next one; where others are bound there, all have to be
    /// [shared](DatagramOptions::shared).
    ///
    /// # Errors
    ///
    /// When the address cannot be parsed, resolved or bound: the port is in use, also by another
    /// program's group of sockets that share it; a Unix path where a live socket is bound is
    /// refused, a dead one's leftover is replaced. And after [`Handle::stop`].
    pub fn bind_datagram<E, A>(
        &self,
        addr: E,
        make: impl Fn() -> A + Send + Sync + 'static,
    ) -> io::Result<DatagramSockets<A>>
    where
        E: TryInto<DatagramAddr>,
        E::Error: Into<Box<dyn Error + Send + Sync>>,
        A: Actor,
    {
        self.bind_datagram_with(addr, DatagramOptions::default(), make)
    }

    /// Binds sockets for datagrams with options.
    ///
    /// # Errors
    ///
    /// As [`bind_datagram`](Handle::bind_datagram), and when an option cannot be set: the error
    /// names it.
    pub fn bind_datagram_with<E, A>(
        &self,
        addr: E,
        options: DatagramOptions,
        make: impl Fn() -> A + Send + Sync + 'static,
    ) -> io::Result<DatagramSockets<A>>
    where
        E: TryInto<DatagramAddr>,
        E::Error: Into<Box<dyn Error + Send + Sync>>,
        A: Actor,
    {
        let addr = addr
            .try_into()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        if self.shared.is_stopping() {
            return Err(io::Error::other(format!(
                "cannot bind {addr} for datagrams: the system has stopped"
            )));
        }
        let pollers = &self.shared.pollers;
        let is_one = !options.per_poller
            || !SPREADS
            || options.connect.is_some()
            || addr.family() == Family::Unix;
        let homes: Vec<usize> = if is_one {
            vec![self.shared.least_loaded()]
        } else {
            (0..pollers.len()).collect()
        };
        let how = DatagramBind {
            simulated: self.shared.simulated,
            ..options.how(homes.len())
        };
        let sockets = DatagramSocket::bind(&addr, &how)?;
        let local = sockets[0].local.clone();
        let make = Arc::new(make);
        let host = |(home, socket): (usize, DatagramSocket)| {
            let registry = &pollers[home];
            let post = registry.post::<A>();
            let key = registry.door.reserve();
            // On its way it counts as one that is there: the system does not end without it.
            registry.door.sockets.fetch_add(1, Ordering::AcqRel);
            let make = make.clone();
            let bound = Bound {
                socket,
                options: options.clone(),
                make: Box::new(move || Box::new(make()) as Box<dyn Hosted>),
            };
            let bind = Control::Bind(Box::new(bound));
            post.put(Entry::new(key, What::Control(Box::new(bind))));
            Addr::new(post, key)
        };
        let addrs = homes.into_iter().zip(sockets).map(host).collect();
        if self.shared.is_stopping() {
            // As for a socket that is adopted.
            self.shared.tell_if_empty();
        }
        Ok(DatagramSockets { local, addrs })
    }
}
