//! mio: a poll loop for each thread. mio reports edges, so a socket is read until nothing is left,
//! which a short read tells without a further system call.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

use crate::listen;

const LISTENER: Token = Token(usize::MAX);
const EVENTS: usize = 1024;
const BUFFER: usize = 64 * 1024;

pub fn serve(addr: SocketAddr, threads: usize) -> io::Result<()> {
    listen::serve_on_each(addr, threads, poll_loop)
}

struct Connection {
    stream: TcpStream,
    /// What the socket refused. Nothing is read until it is gone.
    pending: Vec<u8>,
}

fn poll_loop(listener: std::net::TcpListener) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS);
    let mut listener = TcpListener::from_std(listener);
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections = Slab::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, poll.registry(), &mut connections)?;
                continue;
            }
            let key = event.token().0;
            // An event may come for a connection that was closed earlier in this turn.
            let Some(connection) = connections.get_mut(key) else {
                continue;
            };
            if handle(connection, event, &mut buffer).is_err() {
                let mut connection = connections.remove(key);
                poll.registry().deregister(&mut connection.stream)?;
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    registry: &Registry,
    connections: &mut Slab<Connection>,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // The client has gone again, or descriptors are short: both pass.
            Err(error) => {
                eprintln!("accept: {error}");
                return Ok(());
            }
        };
        stream.set_nodelay(true)?;
        let entry = connections.vacant_entry();
        registry.register(
            &mut stream,
            Token(entry.key()),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        entry.insert(Connection {
            stream,
            pending: Vec::new(),
        });
    }
}

/// An error, the end of the stream among them, ends the connection.
fn handle(connection: &mut Connection, event: &Event, buffer: &mut [u8]) -> io::Result<()> {
    if !connection.pending.is_empty() {
        let written = write(&mut connection.stream, &connection.pending)?;
        connection.pending.drain(..written);
        if !connection.pending.is_empty() {
            return Ok(());
        }
        // Read whatever the event says: the edge of what came meanwhile has passed.
    } else if !event.is_readable() {
        return Ok(());
    }
    loop {
        let read = match connection.stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let written = write(&mut connection.stream, &buffer[..read])?;
        if written < read {
            connection.pending.extend_from_slice(&buffer[written..read]);
            return Ok(());
        }
        // After a short read there is nothing left, but the end, if that is what was reported.
        if read < buffer.len() && !event.is_read_closed() {
            return Ok(());
        }
    }
}

/// Writes until the socket takes no more.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
