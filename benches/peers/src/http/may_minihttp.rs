//! may_minihttp: a coroutine for each connection, with the settings of its TechEmpower entry.

use std::io;
use std::net::SocketAddr;

use may_minihttp::{HttpService, HttpServiceFactory, Request, Response};

use super::HELLO;
use crate::listen;

pub fn serve(addr: SocketAddr, threads: usize) -> io::Result<()> {
    may::config()
        .set_workers(threads)
        .set_pool_capacity(1000)
        .set_stack_size(0x1000);
    // It does not tell which port it was given, so one is taken beforehand; it shares it, because
    // both allow that, and only the socket that listens gets connections.
    let reserved = listen::bind(addr)?;
    let addr = reserved.local_addr()?.as_socket().expect("an IP address");
    let server = Factory.start(addr)?;
    listen::announce(addr);
    server
        .join()
        .map_err(|_| io::Error::other("may_minihttp's accepting coroutine panicked"))
}

struct Factory;

impl HttpServiceFactory for Factory {
    type Service = Hello;

    fn new_service(&self, _id: usize) -> Hello {
        Hello
    }
}

struct Hello;

impl HttpService for Hello {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        match (request.method(), request.path()) {
            ("GET", "/") => {
                response.header("Content-Type: text/plain").body(HELLO);
            }
            _ => {
                response.status_code(404, "Not Found");
            }
        }
        Ok(())
    }
}
