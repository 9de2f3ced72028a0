//! A socket for datagrams in somebody's hands, or whose peers are: those of a
//! [`Stage`](crate::testing::Stage) or of a [`DatagramClient`](crate::testing::DatagramClient).

use std::io;

use super::datagram::Parcel;
use super::network::{Network, Number, Process, simulate};
use crate::sys::{DatagramAddr, DatagramBind, DatagramSocket, Outgoing, Socket};

/// One of the two. Dropping that of a client closes its socket.
#[derive(Debug)]
pub(crate) struct Hand {
    number: Number,
    /// Of which network it is: the thread may have another one by now.
    network: u64,
    is_client: bool,
}

impl Hand {
    /// A socket to be hosted, and the hands into which all goes that it sends.
    pub(crate) fn pair(
        local: DatagramAddr,
        connected: Option<DatagramAddr>,
    ) -> (Hand, DatagramSocket) {
        let (number, network) =
            Network::with(|network| (network.bind_by_hand(local.clone()), network.id()));
        let socket = DatagramSocket {
            path: None,
            socket: Socket::simulated(number),
            family: local.family(),
            local,
            connected,
        };
        let hand = Hand {
            number,
            network,
            is_client: false,
        };
        (hand, socket)
    }

    /// A client's socket, and where it is bound.
    pub(crate) fn bind(addr: &DatagramAddr) -> io::Result<(Hand, DatagramAddr)> {
        let how = DatagramBind::default();
        let (number, local) = Number::bind_datagram(addr, &how, false, Process::NONE)?;
        let network = Network::with(|network| network.id());
        let hand = Hand {
            number,
            network,
            is_client: true,
        };
        Ok((hand, local))
    }

    /// Hands a datagram to the socket.
    pub(crate) fn give(&self, parcel: Parcel) {
        self.on(|network| network.give_datagram(self.number, parcel));
    }

    /// What the socket has sent.
    pub(crate) fn take_sent(&self) -> Vec<Parcel> {
        self.on(|network| network.take_sent(self.number))
    }

    /// Sends from the client's socket.
    pub(crate) fn send(&self, to: &DatagramAddr, bytes: &[u8]) -> io::Result<()> {
        assert!(!self.is_over(), "a client: its simulation is over");
        self.number.send_datagram(&Outgoing {
            to: Some(to),
            from: None,
            bytes,
        })
    }

    /// What has come to the client's socket.
    pub(crate) fn receive(&self) -> Option<(DatagramAddr, Vec<u8>)> {
        assert!(!self.is_over(), "a client: its simulation is over");
        let mut bytes = vec![0; 64 << 10];
        let (len, from, _) = self.number.receive_datagram(&mut bytes).ok()?;
        bytes.truncate(len);
        Some((from, bytes))
    }

    fn is_over(&self) -> bool {
        Network::with(|network| network.id() != self.network)
    }

    fn on<R>(&self, f: impl FnOnce(&mut Network) -> R) -> R {
        assert!(!self.is_over(), "a client: its simulation is over");
        Network::with(f)
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        if self.is_client {
            let _ = simulate(|network| {
                if network.id() == self.network {
                    network.close(self.number);
                }
            });
        }
    }
}
