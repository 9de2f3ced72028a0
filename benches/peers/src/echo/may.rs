//! may: a coroutine for each connection, and one for each listener, as in its own echo example.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use may::coroutine;
use may::go;
use may::net::{TcpListener, TcpStream};

use crate::listen;

pub fn serve(addr: SocketAddr, threads: usize, buffer: usize) -> io::Result<()> {
    may::config().set_workers(threads);
    let first = TcpListener::bind(addr)?;
    let addr = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..threads {
        listeners.push(TcpListener::bind(addr)?);
    }
    listen::announce(addr);
    coroutine::scope(|scope| {
        for listener in listeners {
            go!(scope, move || accept(&listener, buffer));
        }
    });
    Ok(())
}

fn accept(listener: &TcpListener, buffer: usize) {
    for stream in listener.incoming() {
        match stream {
            // A coroutine that ends with an error has lost its client.
            Ok(stream) => drop(go!(move || echo(stream, buffer))),
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

fn echo(mut stream: TcpStream, buffer: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; buffer];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read])?,
        }
    }
}
