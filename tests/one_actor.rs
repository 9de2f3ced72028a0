//! One actor, as it is, behind lines, lines over TLS, a WebSocket, and a WebSocket over TLS: what its
//! peers see is the same, and they share a room.

#[path = "util/tls.rs"]
mod tls;
mod util;
#[path = "util/websocket.rs"]
mod wire;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use greenroom::protocol::{Frame, FrameActor, Framed, Lines, SharedFrame};
use greenroom::websocket::Server;
use greenroom::*;

/// Longer than any read or kernel buffer for one direction, so that output has to wait.
const BIG: usize = 3 << 20;

/// Somebody in a room. Nothing here knows how frames come and go.
struct Member {
    room: Addr<Broadcaster<SharedFrame>>,
    ends: Sender<String>,
}

impl Actor for Member {
    type Message = SharedFrame;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame("hello")?;
        self.room.join(ctx.addr());
        Ok(())
    }

    /// What somebody has said in the room.
    fn message(&mut self, said: SharedFrame, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame(&said)?;
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame("awake")?;
        ctx.resume();
        Ok(())
    }

    fn written(&mut self, token: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame(format!("taken {token}"))?;
        Ok(())
    }

    fn closing(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        let _ = ctx.write_frame(format!("bye: {reason}"));
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        let _ = self.ends.send(reason.to_string());
    }
}

impl FrameActor for Member {
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        match frame.text()?.split_once(' ') {
            Some(("say", text)) => {
                let said = SharedFrame::text(text);
                self.room.send(Broadcast::Push(said))?;
            }
            Some(("echo", text)) => drop(ctx.write_frame(text)?),
            Some(("sleep", millis)) => {
                ctx.set_timer(Duration::from_millis(millis.parse()?));
                ctx.pause();
            }
            Some(("big", len)) => {
                ctx.write_frame("x".repeat(len.parse()?))?;
                ctx.notify_written(7);
            }
            Some(("fail", text)) => return Err(text.into()),
            _ => ctx.close(),
        }
        Ok(())
    }
}

// ---- the four ways ------------------------------------------------------------------------------

struct Hall {
    // Ends when the test does.
    _system: System,
    ways: [(&'static str, SocketAddr); 4],
    ends: Receiver<String>,
}

fn hall() -> Hall {
    let system = System::builder().pollers(2).build().unwrap();
    let room = system.spawn(|| Broadcaster::new().welcome(|_| SharedFrame::text("welcome")));
    let (told, ends) = channel();
    let make = move || Member {
        room: room.clone(),
        ends: told.clone(),
    };
    // For large frames to wait for, and none to be cut.
    let plain = || ListenOptions::new().connection(ConnectionOptions::new().output_max(2 * BIG));
    let secure = || plain().tls(tls::server());
    let lines = {
        let make = make.clone();
        move |_| Framed::new(Lines::new(200), make())
    };
    let websocket = {
        let server = Server::new(move |_| Ok(make()));
        move |_| server.accept()
    };
    let at = "127.0.0.1:0";
    let listeners = [
        ("lines", system.listen_with(at, plain(), lines.clone())),
        ("lines over TLS", system.listen_with(at, secure(), lines)),
        (
            "WebSocket",
            system.listen_with(at, plain(), websocket.clone()),
        ),
        (
            "WebSocket over TLS",
            system.listen_with(at, secure(), websocket),
        ),
    ];
    let ways = listeners.map(|(way, listener)| match listener.unwrap().local_addr() {
        Endpoint::Tcp(addr) => (way, *addr),
        other => panic!("{other:?}"),
    });
    Hall {
        _system: system,
        ways,
        ends,
    }
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// Somebody at the other end.
struct Peer {
    way: &'static str,
    stream: Box<dyn Stream>,
    is_websocket: bool,
    /// What has come and was not looked at.
    came: Vec<u8>,
}

impl Peer {
    /// Connects, and is welcome.
    fn new(way: &'static str, addr: SocketAddr) -> Peer {
        let socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(util::TIMEOUT)).unwrap();
        socket.set_nodelay(true).unwrap();
        let stream: Box<dyn Stream> = if way.ends_with("TLS") {
            let session = tls::session();
            Box::new(greenroom::tls::rustls::StreamOwned::new(session, socket))
        } else {
            Box::new(socket)
        };
        let mut peer = Peer {
            way,
            stream,
            is_websocket: way.starts_with("WebSocket"),
            came: Vec::new(),
        };
        if peer.is_websocket {
            let request = wire::request("/", "");
            peer.stream.write_all(request.as_bytes()).unwrap();
            let mut answer = vec![0; wire::response().len()];
            peer.stream.read_exact(&mut answer).unwrap();
            assert_eq!(String::from_utf8(answer).unwrap(), wire::response());
        }
        peer.hears("hello");
        peer.hears("welcome");
        peer
    }

    fn encode(&self, text: &str) -> Vec<u8> {
        if self.is_websocket {
            wire::sent(wire::TEXT, text)
        } else {
            format!("{text}\n").into_bytes()
        }
    }

    fn says(&mut self, text: &str) {
        let bytes = self.encode(text);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next frame, if that is whole.
    fn take(&mut self) -> Option<String> {
        let payload = if self.is_websocket {
            let came = wire::take(&mut self.came)?;
            assert_eq!(came.mask, None);
            if came.first == wire::FIN | wire::CLOSE {
                let code = u16::from_be_bytes([came.payload[0], came.payload[1]]);
                return Some(format!("close {code}"));
            }
            assert_eq!(came.first, wire::FIN | wire::TEXT);
            came.payload
        } else {
            let len = self.came.iter().position(|byte| *byte == b'\n')?;
            let line = self.came.drain(..=len);
            line.take(len).collect()
        };
        Some(String::from_utf8(payload).unwrap())
    }

    /// The next frame; `None` at an end that is one, which TLS says itself.
    fn next(&mut self) -> Option<String> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            let mut bytes = vec![0; 64 << 10];
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    assert!(self.came.is_empty(), "{}: half a frame", self.way);
                    return None;
                }
                Ok(len) => self.came.extend(&bytes[..len]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{}: {error}", self.way),
            }
        }
    }

    #[track_caller]
    fn hears(&mut self, text: &str) {
        let next = self.next();
        assert!(next.as_deref() == Some(text), "{}: {next:.99?}", self.way);
    }

    /// The end, behind a farewell.
    #[track_caller]
    fn ends(mut self, reason: &str, code: u16) {
        self.hears(&format!("bye: {reason}"));
        if self.is_websocket {
            self.hears(&format!("close {code}"));
            // As its answer to that is due.
            let answer = wire::sent(wire::CLOSE, wire::code(code, ""));
            self.stream.write_all(&answer).unwrap();
        }
        assert_eq!(self.next(), None, "{}", self.way);
    }
}

#[test]
fn one_actor_behind_lines_tls_and_websockets() {
    let hall = hall();
    for (way, addr) in hall.ways {
        let mut peer = Peer::new(way, addr);
        // Frames in one piece, and one in many.
        let all = [peer.encode("echo one"), peer.encode("echo two")].concat();
        peer.stream.write_all(&all).unwrap();
        peer.hears("one");
        peer.hears("two");
        for byte in peer.encode("echo in pieces") {
            peer.stream.write_all(&[byte]).unwrap();
        }
        peer.hears("in pieces");
        // A pause holds the frames behind it back; a timer ends it.
        let all = [peer.encode("sleep 10"), peer.encode("echo later")].concat();
        peer.stream.write_all(&all).unwrap();
        peer.hears("awake");
        peer.hears("later");
        // More than the kernel takes at once, and word that it has.
        peer.says(&format!("big {BIG}"));
        peer.hears(&"x".repeat(BIG));
        peer.hears("taken 7");
        peer.says("quit");
        peer.ends("finished", 1000);
        assert_eq!(util::next(&hall.ends), "finished", "{way}");

        let mut peer = Peer::new(way, addr);
        peer.says("fail as told");
        peer.ends("as told", 1011);
        assert_eq!(util::next(&hall.ends), "as told", "{way}");
    }
}

#[test]
fn they_share_a_room() {
    let hall = hall();
    let mut peers = hall.ways.map(|(way, addr)| Peer::new(way, addr));
    for speaker in 0..peers.len() {
        for text in ["hello all".to_owned(), "x".repeat(150)] {
            peers[speaker].says(&format!("say {text}"));
            for peer in &mut peers {
                peer.hears(&text);
            }
        }
    }
    // All of it in one order for all.
    for round in 0..20 {
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.says(&format!("say {number} {round}"));
        }
    }
    let heard = peers.each_mut().map(|peer| {
        let next = |_| peer.next().expect("somebody has said it");
        (0..80).map(next).collect::<Vec<_>>()
    });
    for other in &heard {
        assert_eq!(other, &heard[0]);
    }
    for (number, peer) in peers.into_iter().enumerate() {
        let mine = heard[0]
            .iter()
            .filter(|said| said.starts_with(&number.to_string()));
        let rounds: Vec<_> = mine
            .map(|said| said[2..].parse::<usize>().unwrap())
            .collect();
        assert_eq!(rounds, (0..20).collect::<Vec<_>>());
        let mut peer = peer;
        peer.says("quit");
        peer.ends("finished", 1000);
    }
}
