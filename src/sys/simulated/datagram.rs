//! Datagrams on the simulated network.

use std::io;
use std::net::IpAddr;

use super::network::{Number, Process};
use crate::sys::{DatagramAddr, DatagramBind, DatagramOption, Outgoing};

/// As a [`DatagramSocket`](crate::sys::DatagramSocket) uses it.
impl Number {
    pub(in crate::sys) fn bind_datagram(
        addr: &DatagramAddr,
        how: &DatagramBind,
        further: bool,
        process: Process,
    ) -> io::Result<(Number, DatagramAddr)> {
        let _ = (addr, how, further, process);
        Err(refused())
    }

    pub(in crate::sys) fn receive_datagram(
        self,
        place: &mut [u8],
    ) -> io::Result<(usize, DatagramAddr, Option<IpAddr>)> {
        let _ = place;
        Err(refused())
    }

    pub(in crate::sys) fn send_datagram(self, datagram: &Outgoing<'_>) -> io::Result<()> {
        let _ = datagram;
        Err(refused())
    }

    pub(in crate::sys) fn set_datagram_option(self, option: &DatagramOption) -> io::Result<()> {
        let _ = option;
        Err(refused())
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "a simulation has no datagrams")
}
