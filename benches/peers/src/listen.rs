//! Listening sockets, as far as a peer does not bind its own.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use socket2::{Domain, Socket, Type};

/// What the peers that bind their own listener take, and the C loop of the benchmarks.
const BACKLOG: i32 = 1024;

/// Tells whoever started this process where it listens.
pub fn announce(addr: SocketAddr) {
    println!("listening on {addr}");
}

/// A socket bound to `addr` that may share its port with others of its kind, and does not listen.
pub fn bind(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// A non-blocking listener.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(addr)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Runs `serve` on so many threads, each with a listener of its own at the same address, among
/// which the kernel shares out the connections; tells where once all of them listen.
pub fn serve_on_each(
    addr: SocketAddr,
    threads: usize,
    serve: impl Fn(TcpListener) -> io::Result<()> + Copy + Send,
) -> io::Result<()> {
    let first = listen(addr)?;
    let addr = first.local_addr()?;
    let others = (1..threads).map(|_| listen(addr));
    let others: Vec<TcpListener> = others.collect::<io::Result<_>>()?;
    announce(addr);
    thread::scope(|scope| {
        for listener in others {
            scope.spawn(move || serve(listener).expect("the thread can serve"));
        }
        serve(first)
    })
}
