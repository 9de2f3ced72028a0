//! monoio: a runtime for each thread, with the driver that it chooses by itself: io_uring where the
//! kernel lets it, else epoll.

use std::io;
use std::net::SocketAddr;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{FusionDriver, RuntimeBuilder};

use crate::listen;

pub fn serve(addr: SocketAddr, threads: usize, buffer: usize) -> io::Result<()> {
    listen::serve_on_each(addr, threads, |listener| {
        RuntimeBuilder::<FusionDriver>::new()
            .build()?
            .block_on(accept(listener, buffer))
    })
}

async fn accept(listener: std::net::TcpListener, buffer: usize) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            // A task that ends with an error has lost its client.
            Ok((stream, _)) => drop(monoio::spawn(echo(stream, buffer))),
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

async fn echo(mut stream: TcpStream, buffer: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(buffer);
    let mut result;
    loop {
        (result, buffer) = stream.read(buffer).await;
        if result? == 0 {
            return Ok(());
        }
        (result, buffer) = stream.write_all(buffer).await;
        result?;
        buffer.clear();
    }
}
