//! HTTP servers: `GET /` is answered with a text of 13 bytes, as in TechEmpower's plaintext test.

mod actix_web;
mod hyper;
mod may_minihttp;
mod ntex;

use std::io;
use std::net::SocketAddr;

use clap::ValueEnum;

/// The body of each answer.
const HELLO: &str = "Hello, World!";

/// Who serves.
#[derive(Clone, Copy, ValueEnum)]
pub enum Name {
    Hyper,
    MayMinihttp,
    Ntex,
    ActixWeb,
}

impl Name {
    pub fn serve(self, addr: SocketAddr, threads: usize) -> io::Result<()> {
        match self {
            Name::Hyper => self::hyper::serve(addr, threads),
            Name::MayMinihttp => self::may_minihttp::serve(addr, threads),
            Name::Ntex => self::ntex::serve(addr, threads),
            Name::ActixWeb => self::actix_web::serve(addr, threads),
        }
    }
}
