//! message-io: one thread for all connections. It does not let its users switch Nagle's algorithm
//! off, and waits actively while a socket takes no more.

use std::io;
use std::net::SocketAddr;

use message_io::network::{NetEvent, Transport};
use message_io::node::{self, NodeEvent};

use crate::listen;

pub fn serve(addr: SocketAddr, threads: usize) -> io::Result<()> {
    if threads > 1 {
        return Err(io::Error::other(
            "message-io serves all connections on one thread: leave --threads at 1",
        ));
    }
    let (handler, listener) = node::split();
    let (_, addr) = handler.network().listen(Transport::Tcp, addr)?;
    // Delivered by `for_each`. What comes before that is kept for it, the end of a connection too,
    // and is too late to be answered then.
    handler.signals().send(addr);
    listener.for_each(move |event| match event {
        NodeEvent::Signal(addr) => listen::announce(addr),
        NodeEvent::Network(NetEvent::Message(endpoint, bytes)) => {
            // Anything but `Sent` means that the client has gone.
            let _ = handler.network().send(endpoint, bytes);
        }
        NodeEvent::Network(_) => {}
    });
    Ok(())
}
