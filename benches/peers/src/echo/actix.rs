//! actix: a service of actix-server, as in its own TCP echo example. That is how its users serve
//! TCP; the actors of actix take part in `messages`.

use std::io;
use std::net::SocketAddr;

use actix_rt::System;
use actix_rt::net::TcpStream;
use actix_server::Server;
use actix_service::fn_service;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::listen;

pub fn serve(addr: SocketAddr, threads: usize, buffer: usize) -> io::Result<()> {
    let listener = listen::listen(addr)?;
    listen::announce(listener.local_addr()?);
    System::new().block_on(async move {
        Server::build()
            .workers(threads)
            // SIGTERM would wait for the connections first.
            .disable_signals()
            .listen("echo", listener, move || {
                fn_service(move |stream: TcpStream| echo(stream, buffer))
            })?
            .run()
            .await
    })
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
