//! ntex on tokio: a web application with the settings of its TechEmpower entry.

use std::io;
use std::net::SocketAddr;

use ntex::http::header::{CONTENT_TYPE, HeaderValue, SERVER};
use ntex::http::{HttpService, HttpServiceConfig, KeepAlive};
use ntex::io::IoConfig;
use ntex::rt::System;
use ntex::time::Seconds;
use ntex::util::Bytes;
use ntex::{SharedCfg, web};

use super::HELLO;
use crate::listen;

pub fn serve(addr: SocketAddr, threads: usize) -> io::Result<()> {
    let listener = listen::listen(addr)?;
    listen::announce(listener.local_addr()?);
    System::new("http", ntex::rt::DefaultRuntime).block_on(async move {
        ntex::server::build()
            .workers(threads)
            // SIGTERM would wait for the connections first.
            .disable_signals()
            .listen("http", listener, async |_| {
                HttpService::h1(web::App::new().service(hello))
            })?
            .config(
                "http",
                SharedCfg::new("http")
                    .add(
                        HttpServiceConfig::new()
                            .set_keepalive(KeepAlive::Os)
                            .set_client_timeout(Seconds::ZERO),
                    )
                    .add(
                        IoConfig::new()
                            .set_read_buf(65_535, 1024, 128)
                            .set_write_buf(65_535, 1024, 128),
                    ),
            )
            .run()
            .await
    })
}

#[web::get("/")]
async fn hello() -> web::HttpResponse {
    web::HttpResponse::Ok()
        .header(SERVER, HeaderValue::from_static("ntex"))
        .header(CONTENT_TYPE, HeaderValue::from_static("text/plain"))
        .body(Bytes::from_static(HELLO.as_bytes()))
}
