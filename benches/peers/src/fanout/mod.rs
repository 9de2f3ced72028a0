//! Servers that send every line of a member to all members, the sender included.

mod tokio;

use std::io;
use std::net::SocketAddr;

use clap::ValueEnum;

/// Who serves.
#[derive(Clone, Copy, ValueEnum)]
pub enum Name {
    Tokio,
}

impl Name {
    pub fn serve(self, addr: SocketAddr, threads: usize) -> io::Result<()> {
        match self {
            Name::Tokio => self::tokio::serve(addr, threads),
        }
    }
}
