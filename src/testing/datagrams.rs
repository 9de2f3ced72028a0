//! Datagrams handed in and taken out by a test.

use std::error::Error;
use std::fmt;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::actor::Actor;
use crate::datagram::DatagramOptions;
use crate::sys::{DatagramAddr, Hand, Parcel};
use crate::system::System;

use super::simulation::Simulation;
use super::{LOCAL, Stage, Time};

impl<A: Actor> Stage<A> {
    /// Opens `actor` with a datagram socket that is bound to `127.0.0.1:9000`, as
    /// [`System::bind_datagram`](crate::System::bind_datagram) does.
    ///
    /// ```
    /// use greenroom::testing::Stage;
    /// use greenroom::*;
    ///
    /// struct Shout;
    ///
    /// impl Actor for Shout {
    ///     type Message = ();
    ///
    ///     fn datagram(&mut self, datagram: Datagram<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         ctx.reply(&datagram, datagram.bytes().to_ascii_uppercase());
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut stage = Stage::with_datagrams(Shout, DatagramOptions::new());
    /// let peer: DatagramAddr = "192.0.2.1:5000".parse()?;
    /// stage.receive_datagram(&peer, "hello");
    /// assert_eq!(stage.sent_datagrams(), [(peer, "HELLO".into())]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with_datagrams(actor: A, options: DatagramOptions) -> Stage<A> {
        let (mut stage, observed) = Stage::empty(&System::builder(), actor);
        let (hand, socket) = Hand::pair(DatagramAddr::Udp(LOCAL.into()), options.connect.clone());
        stage.hand = Some(hand);
        let door = &stage.poller.registry.door;
        door.sockets.fetch_add(1, Ordering::AcqRel);
        stage.key = door.reserve();
        let _time = Time::set(stage.now);
        let hosts = &mut stage.poller.hosts;
        hosts.host_datagrams(stage.key, socket, options, observed);
        stage.run();
        stage
    }

    /// A datagram comes to the actor's socket. It is lost when the actor has closed.
    ///
    /// # Panics
    ///
    /// When the actor has no datagram socket.
    #[track_caller]
    pub fn receive_datagram(&mut self, from: impl Into<DatagramAddr>, bytes: impl AsRef<[u8]>) {
        let parcel = Parcel {
            from: from.into(),
            to: DatagramAddr::Udp(LOCAL.into()),
            bytes: bytes.as_ref().to_vec(),
        };
        self.hand().give(parcel);
        self.run();
    }

    /// Takes the datagrams that the actor has sent since the last look: where each was to go, and
    /// its bytes.
    ///
    /// # Panics
    ///
    /// When the actor has no datagram socket.
    #[track_caller]
    pub fn sent_datagrams(&mut self) -> Vec<(DatagramAddr, Bytes)> {
        let sent = self.hand().take_sent().into_iter();
        sent.map(|parcel| (parcel.to, parcel.bytes.into()))
            .collect()
    }

    #[track_caller]
    fn hand(&self) -> &Hand {
        self.hand
            .as_ref()
            .expect("this actor has no datagram socket")
    }
}

/// A socket for datagrams on the network of a [`Simulation`], in the hands of the test. Dropping it
/// closes it.
///
/// What it sends may be lost, doubled or late as the simulation's faults have it.
///
/// # Panics
///
/// It may be dropped after its simulation; everything else panics then.
#[derive(Debug)]
pub struct DatagramClient {
    hand: Hand,
    local: DatagramAddr,
}

impl DatagramClient {
    /// Where it is bound.
    #[must_use]
    pub fn local_addr(&self) -> &DatagramAddr {
        &self.local
    }

    /// Sends a datagram.
    ///
    /// # Panics
    ///
    /// When the address is none that it could send to, or the datagram is too long.
    #[track_caller]
    pub fn send_to<E>(&self, to: E, bytes: impl AsRef<[u8]>)
    where
        E: TryInto<DatagramAddr>,
        E::Error: fmt::Display,
    {
        let to = address(to);
        if let Err(error) = self.hand.send(&to, bytes.as_ref()) {
            panic!("send_to {to}: {error}");
        }
    }

    /// Takes the oldest datagram that has come: who sent it, and its bytes.
    pub fn receive(&self) -> Option<(DatagramAddr, Bytes)> {
        let (from, bytes) = self.hand.receive()?;
        Some((from, bytes.into()))
    }
}

#[track_caller]
fn address<E>(addr: E) -> DatagramAddr
where
    E: TryInto<DatagramAddr>,
    E::Error: fmt::Display,
{
    addr.try_into().unwrap_or_else(|error| panic!("{error}"))
}

impl Simulation {
    /// A socket for datagrams that the test plays itself, bound to `addr`; port 0 takes any free
    /// one.
    ///
    /// # Panics
    ///
    /// When `addr` is not an address, or in use.
    #[track_caller]
    pub fn datagram_client<E>(&mut self, addr: E) -> DatagramClient
    where
        E: TryInto<DatagramAddr>,
        E::Error: Into<Box<dyn Error + Send + Sync>> + fmt::Display,
    {
        let addr = address(addr);
        match Hand::bind(&addr) {
            Ok((hand, local)) => DatagramClient { hand, local },
            Err(error) => panic!("bind {addr}: {error}"),
        }
    }
}
