//! tokio: a broadcast channel and a task for each member, which is how its users write a chat. A
//! member that is more lines behind than the channel keeps misses those.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver, Sender};

use crate::listen;

/// Lines that the channel keeps.
const CAPACITY: usize = 1024;

pub fn serve(addr: SocketAddr, threads: usize) -> io::Result<()> {
    let listener = listen::listen(addr)?;
    listen::announce(listener.local_addr()?);
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?
        .block_on(accept(listener))
}

async fn accept(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let (lines, _) = broadcast::channel(CAPACITY);
    loop {
        match listener.accept().await {
            // A task that ends with an error has lost its client.
            Ok((stream, _)) => drop(tokio::spawn(serve_member(
                stream,
                lines.clone(),
                lines.subscribe(),
            ))),
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

async fn serve_member(
    mut stream: TcpStream,
    lines: Sender<Bytes>,
    mut pushed: Receiver<Bytes>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        tokio::select! {
            // If the other branch is faster, what was read so far stays in `line`.
            read = reader.read_until(b'\n', &mut line) => {
                if read? == 0 {
                    return Ok(());
                }
                // There is a receiver: this member's own.
                let _ = lines.send(std::mem::take(&mut line).into());
            }
            received = pushed.recv() => match received {
                Ok(line) => writer.write_all(&line).await?,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}
