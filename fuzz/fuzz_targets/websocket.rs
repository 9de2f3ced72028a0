//! Frames of WebSockets, beside tungstenite: what it takes for messages is taken, what it refuses is refused, and what
//! is sent back is what it reads. The first byte of an input says who gets the others: a server, or a client.

#![no_main]

use std::io::{self, Read, Write};

use greenroom::protocol::{Control, Frame, FrameActor, FrameKind};
use greenroom::testing::Stage;
use greenroom::websocket::{self, Options, Request, WebSocket};
use greenroom::*;
use libfuzzer_sys::fuzz_target;
use tungstenite::Message;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocketConfig};

const MAX: usize = 1000;

#[derive(Default)]
struct Echo {
    pongs: Vec<Vec<u8>>,
}

impl Actor for Echo {
    type Message = ();
}

impl FrameActor for Echo {
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        assert!(frame.len() <= MAX);
        if frame.kind() == FrameKind::Text {
            frame.text().expect("looked at already");
        }
        ctx.write_frame(frame)?;
        Ok(())
    }

    fn control(&mut self, control: Control<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        if let Control::Pong(payload) = control {
            self.pongs.push(payload.to_vec());
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq)]
struct Seen {
    /// What was sent back, as tungstenite reads it; the Close frame at its end, if there is one.
    sent: Vec<Message>,
    pongs: Vec<Vec<u8>>,
    reason: String,
    error: Option<websocket::Error>,
}

fn run(role: Role, pieces: &[&[u8]]) -> Seen {
    let options = Options::new().message_max(MAX).fragment(100);
    let mut stage = match role {
        Role::Server => Stage::new(WebSocket::upgraded(options, Echo::default())),
        Role::Client => client(options),
    };
    for piece in pieces {
        stage.receive(piece);
    }
    stage.half_close();
    let output = stage.output();
    let reason = stage.reason().expect("it ends with its input");
    let error = match reason {
        CloseReason::Error(error) => error.downcast_ref().copied(),
        _ => None,
    };
    let actor = stage.actor();
    let reader = if role == Role::Server {
        Role::Client
    } else {
        Role::Server
    };
    let (sent, refused) = read(reader, &output);
    assert_eq!(refused, None, "what was sent is no WebSocket: {output:?}");
    Seen {
        sent,
        pongs: actor.actor().expect("it is open").pongs.clone(),
        reason: reason.to_string(),
        error,
    }
}

/// A client that has been let in.
fn client(options: Options) -> Stage<WebSocket<Echo>> {
    let request = Request::new("localhost", "/").expect("a request");
    let mut stage = Stage::new(WebSocket::client(request, Echo::default()).with_options(options));
    let request = String::from_utf8(stage.output().to_vec()).expect("text");
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    stage.receive(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.expect("a key").as_bytes())
    ));
    stage
}

/// Bytes to be read; what is written goes nowhere.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.read(buffer)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite reads, up to the end or to what it refuses.
fn read(role: Role, bytes: &[u8]) -> (Vec<Message>, Option<String>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(MAX))
        .max_frame_size(Some(MAX));
    let mut socket = tungstenite::WebSocket::from_raw_socket(Wire(bytes), role, Some(config));
    let mut messages = Vec::new();
    loop {
        match socket.read() {
            Ok(message) => messages.push(message),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (messages, None);
            }
            // What follows a Close frame is nobody's; it has an error for that.
            Err(_) if messages.last().is_some_and(Message::is_close) => return (messages, None),
            Err(error) => return (messages, Some(error.to_string())),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let role = if choice % 2 == 0 {
        Role::Server
    } else {
        Role::Client
    };
    let mut whole = greenroom_fuzz::same_however_cut(bytes, |pieces| run(role, pieces));

    let (read, refused) = read(role, bytes);
    whole.sent.pop_if(|message| message.is_close());
    let mut pongs = Vec::new();
    let mut answers = Vec::new();
    for message in read {
        match message {
            Message::Ping(payload) => answers.push(Message::Pong(payload)),
            Message::Pong(payload) => pongs.push(payload.to_vec()),
            Message::Close(_) => {}
            data => answers.push(data),
        }
    }
    match whole.error {
        // Seen earlier than there, or not looked at there: a length of more bytes than it takes.
        Some(error) if error != websocket::Error::Incomplete => {
            assert!(
                answers.starts_with(&whole.sent),
                "{error:?}: {:?}, there {answers:?}",
                whole.sent
            );
            assert!(
                pongs.starts_with(&whole.pongs),
                "{error:?}: {:?}, there {pongs:?}",
                whole.pongs
            );
        }
        _ => {
            assert_eq!(
                (&whole.sent, &whole.pongs, None),
                (&answers, &pongs, refused),
                "{}",
                whole.reason
            );
        }
    }
});
