//! Echo servers.

mod actix;
mod may;
mod message_io;
mod mio;
mod monoio;
mod tokio;

use std::io;
use std::net::SocketAddr;

use clap::ValueEnum;

/// Who serves.
#[derive(Clone, Copy, ValueEnum)]
pub enum Name {
    Mio,
    Tokio,
    TokioPerCore,
    Monoio,
    May,
    Actix,
    MessageIo,
}

impl Name {
    pub fn serve(self, addr: SocketAddr, threads: usize, buffer: usize) -> io::Result<()> {
        match self {
            Name::Mio => self::mio::serve(addr, threads),
            Name::Tokio => self::tokio::serve(addr, threads, buffer),
            Name::TokioPerCore => self::tokio::serve_per_core(addr, threads, buffer),
            Name::Monoio => self::monoio::serve(addr, threads, buffer),
            Name::May => self::may::serve(addr, threads, buffer),
            Name::Actix => self::actix::serve(addr, threads, buffer),
            Name::MessageIo => self::message_io::serve(addr, threads),
        }
    }
}
