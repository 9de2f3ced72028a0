//! actix-web: as in its TechEmpower entry.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_http::{HttpService, KeepAlive};
use actix_rt::System;
use actix_server::Server;
use actix_service::map_config;
use actix_web::dev::AppConfig;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue, SERVER};
use actix_web::web::{self, Bytes};
use actix_web::{App, HttpResponse};

use super::HELLO;
use crate::listen;

pub fn serve(addr: SocketAddr, threads: usize) -> io::Result<()> {
    let listener = listen::listen(addr)?;
    listen::announce(listener.local_addr()?);
    System::new().block_on(async move {
        Server::build()
            .workers(threads)
            // SIGTERM would wait for the connections first.
            .disable_signals()
            .listen("http", listener, || {
                HttpService::build()
                    .keep_alive(KeepAlive::Os)
                    .client_request_timeout(Duration::ZERO)
                    .tcp_nodelay(true)
                    .h1(map_config(
                        App::new().service(web::resource("/").route(web::get().to(hello))),
                        |_| AppConfig::default(),
                    ))
                    .tcp()
            })?
            .run()
            .await
    })
}

async fn hello() -> HttpResponse<Bytes> {
    let mut response =
        HttpResponse::with_body(StatusCode::OK, Bytes::from_static(HELLO.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("actix"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
