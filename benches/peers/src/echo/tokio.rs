//! tokio: a task for each connection, on the runtime of many threads, or on one of a single thread
//! for each core.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use crate::listen;

pub fn serve(addr: SocketAddr, threads: usize, buffer: usize) -> io::Result<()> {
    let listener = listen::listen(addr)?;
    listen::announce(listener.local_addr()?);
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?
        .block_on(accept(listener, buffer))
}

pub fn serve_per_core(addr: SocketAddr, threads: usize, buffer: usize) -> io::Result<()> {
    listen::serve_on_each(addr, threads, |listener| {
        Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(accept(listener, buffer))
    })
}

async fn accept(listener: std::net::TcpListener, buffer: usize) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            // A task that ends with an error has lost its client.
            Ok((stream, _)) => drop(tokio::spawn(echo(stream, buffer))),
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

async fn echo(mut stream: TcpStream, buffer: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; buffer];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read]).await?,
        }
    }
}
