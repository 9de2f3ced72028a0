//! The handshake of WebSockets, beside tungstenite's. What begins as an answer does is one, and goes to a client:
//! `ACCEPT` in it stands for what the client's key asks for, as that is another each time. The rest are requests.

#![no_main]

use std::io::{self, Read, Write};

use greenroom::protocol::{Frame, FrameActor};
use greenroom::testing::Stage;
use greenroom::websocket::{Options, Request, Server, WebSocket};
use greenroom::*;
use libfuzzer_sys::fuzz_target;
use tungstenite::handshake::derive_accept_key;

#[derive(Default)]
struct Quiet {
    is_open: bool,
}

impl Actor for Quiet {
    type Message = ();

    fn opened(&mut self, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.is_open = true;
        Ok(())
    }
}

impl FrameActor for Quiet {
    fn frame(&mut self, _frame: Frame<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }
}

fn options() -> Options {
    Options::new().message_max(1000).handshake_max(500)
}

/// What a server answers, and whether anybody was let in.
fn serve(pieces: &[&[u8]]) -> (bool, String, String) {
    let server = Server::new(|_| Ok(Quiet::default())).options(options());
    let mut stage = Stage::new(server.accept());
    for piece in pieces {
        stage.receive(piece);
    }
    stage.half_close();
    let output = String::from_utf8_lossy(&stage.output()).into_owned();
    let is_open = stage.actor().actor().is_some_and(|actor| actor.is_open);
    let reason = stage.reason().expect("it ends with its input").to_string();
    (is_open, output, reason)
}

fn ask(answer: &[u8], cut: usize) -> (bool, String) {
    let request = Request::new("localhost", "/").expect("a request");
    let request = request.protocol("chat").expect("a name");
    let mut stage =
        Stage::new(WebSocket::client(request, Quiet::default()).with_options(options()));
    let request = String::from_utf8(stage.output().to_vec()).expect("text");
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let accept = derive_accept_key(key.expect("a key").as_bytes());
    let mut bytes = answer.to_vec();
    while let Some(at) = bytes.windows(6).position(|six| six == b"ACCEPT") {
        bytes.splice(at..at + 6, accept.bytes());
    }
    let all = greenroom_fuzz::cuts(&bytes);
    for piece in &all[cut.min(all.len() - 1)] {
        stage.receive(piece);
    }
    stage.half_close();
    let is_open = stage.actor().actor().is_some_and(|actor| actor.is_open);
    let reason = stage.reason().expect("it ends with its input").to_string();
    // Which tells what a server said that refused.
    (is_open, reason.replace(&accept, "ACCEPT"))
}

struct Wire<'a>(&'a [u8], Vec<u8>);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(b"HTTP/") {
        let whole = ask(bytes, 0);
        for cut in 1..4 {
            assert_eq!(ask(bytes, cut), whole);
        }
        return;
    }
    let whole = greenroom_fuzz::same_however_cut(bytes, serve);
    let (is_open, output, _) = whole;
    assert_eq!(is_open, output.starts_with("HTTP/1.1 101 "), "{output}");
    assert!(
        is_open || output.matches("HTTP/1.1 ").count() <= 1,
        "{output}"
    );
    if is_open {
        // Where it lets the client in, too, it has the same answer to the key. (It takes no bytes behind the request, and
        // of each header the first alone.)
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map_or(bytes.len(), |at| at + 4);
        let accept = output
            .lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Accept: "));
        let accept = accept.expect("an answer to the key").to_ascii_lowercase();
        let mut wire = Wire(&bytes[..end], Vec::new());
        if tungstenite::accept(&mut wire).is_ok() {
            let theirs = String::from_utf8_lossy(&wire.1).to_ascii_lowercase();
            let accept = format!("sec-websocket-accept: {accept}\r\n");
            assert!(theirs.contains(&accept), "{accept} is not in {theirs}");
        }
    }
});
