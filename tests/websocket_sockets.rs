//! WebSockets over sockets: one end of ours against the other, over TLS too, against Python's and
//! node's clients, and peers that vanish wherever they are.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use greenroom::protocol::{Control, Frame, FrameActor, SharedFrame};
use greenroom::websocket::{ClientError, Options, Refusal, Request, Server, WebSocket};
use greenroom::*;

mod util;
use util::{TIMEOUT, next, wait_until};
#[path = "util/tls.rs"]
mod tls_util;
#[path = "util/websocket.rs"]
mod wire;
use wire::*;

#[derive(Debug, PartialEq)]
enum Event {
    Opened,
    Frame(Vec<u8>),
    PeerCloses(Option<u16>),
    Closed(String),
}

/// Echoes, or tells the test what it gets.
struct Talk {
    events: Sender<Event>,
    is_echo: bool,
}

#[derive(Clone)]
struct Say(SharedFrame);

impl Talk {
    fn note(&self, event: Event) {
        // A test that has seen enough drops its end.
        let _ = self.events.send(event);
    }
}

impl Actor for Talk {
    type Message = Say;

    fn opened(&mut self, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.note(Event::Opened);
        Ok(())
    }

    fn message(&mut self, Say(frame): Say, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_frame(&frame)?;
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        self.note(Event::Closed(reason.to_string()));
    }
}

impl FrameActor for Talk {
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if &*frame == b"close" {
            ctx.close();
        } else if self.is_echo {
            ctx.write_frame(frame)?;
        } else {
            self.note(Event::Frame(frame.to_vec()));
        }
        Ok(())
    }

    fn control(&mut self, control: Control<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        if let Control::Close { code, .. } = control {
            self.note(Event::PeerCloses(code));
        }
        Ok(())
    }
}

struct Running {
    system: System,
    listener: Listener,
    addr: SocketAddr,
    events: Receiver<Event>,
}

const MESSAGE_MAX: usize = 8 << 20;

fn options() -> Options {
    Options::new().message_max(MESSAGE_MAX).fragment(100_000)
}

fn connection() -> ConnectionOptions {
    ConnectionOptions::new()
        .input_max(MESSAGE_MAX + 100)
        .output_max(2 * MESSAGE_MAX)
}

fn serve(is_echo: bool, how: impl FnOnce(ListenOptions) -> ListenOptions) -> Running {
    let system = System::builder().pollers(2).build().unwrap();
    let (sender, events) = channel();
    let server = Server::new(move |upgrade| {
        let events = sender.clone();
        match upgrade.path() {
            "/nobody" => Err(Refusal::new(404)),
            _ => Ok(Talk { events, is_echo }),
        }
    });
    let server = server.options(options());
    let listen = how(ListenOptions::new().connection(connection()));
    let listener = system.listen_with("127.0.0.1:0", listen, move |_| server.accept());
    let listener = listener.unwrap();
    let Endpoint::Tcp(addr) = *listener.local_addr() else {
        panic!("not tcp")
    };
    Running {
        system,
        listener,
        addr,
        events,
    }
}

impl Running {
    fn client(
        &self,
        target: &str,
        how: impl FnOnce(ConnectOptions) -> ConnectOptions,
    ) -> (Addr<Talk>, Receiver<Event>) {
        let (events, seen) = channel();
        let request = Request::new("localhost", target).unwrap();
        let connect = how(ConnectOptions::new().connection(connection()));
        let addr = self.system.connect_with(self.addr, connect, move || {
            let is_echo = false;
            WebSocket::client(request, Talk { events, is_echo }).with_options(options())
        });
        (addr.inside(), seen)
    }

    /// A plain socket, and the handshake.
    fn socket(&self) -> TcpStream {
        let mut socket = TcpStream::connect(self.addr).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket.write_all(request("/", "").as_bytes()).unwrap();
        let mut answer = vec![0; response().len()];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(answer, response().as_bytes());
        socket
    }
}

fn echo_back_and_forth(running: &Running, how: impl Fn(ConnectOptions) -> ConnectOptions) {
    let (addr, seen) = running.client("/", how);
    // Before it is connected, and before the handshake.
    let mut said = Vec::new();
    for len in [0, 1, 125, 126, 65_536, 3_000_000, 7] {
        let payload: Vec<u8> = (0..len).map(|n: u32| (n % 251) as u8).collect();
        addr.send(Say(SharedFrame::binary(payload.clone())))
            .map_err(|_| "refused")
            .unwrap();
        said.push(payload);
    }
    assert_eq!(next(&seen), Event::Opened);
    for payload in said {
        assert!(next(&seen) == Event::Frame(payload));
    }
    addr.send(Say(SharedFrame::text("close")))
        .map_err(|_| "refused")
        .unwrap();
    assert_eq!(next(&seen), Event::PeerCloses(Some(1000)));
    assert_eq!(next(&seen), Event::Closed("closed by the peer".into()));
    assert_eq!(next(&running.events), Event::Opened);
    assert_eq!(next(&running.events), Event::Closed("finished".into()));
    wait_until("both have gone", || running.system.stats().connections == 0);
}

#[test]
fn both_ends_over_tcp() {
    let running = serve(true, |options| options);
    echo_back_and_forth(&running, |options| options);
}

#[test]
fn both_ends_over_tls() {
    let running = serve(true, |options| options.tls(tls_util::server()));
    echo_back_and_forth(&running, |options| options.tls(tls_util::client()));
}

#[test]
fn a_client_that_is_refused_is_told_the_status() {
    let running = serve(true, |options| options);
    let (_, seen) = running.client("/nobody", |options| options);
    let refused = ClientError::Refused {
        status: 404,
        reason: "Not Found".into(),
    };
    assert_eq!(next(&seen), Event::Closed(refused.to_string()));
    wait_until("both are counted", || {
        running.system.stats().upgrades_refused == 2
    });
    // A server that speaks something else, and none at all.
    let lines = running
        .system
        .listen("127.0.0.1:0", |_| {
            protocol::Framed::new(
                protocol::Lines::new(99),
                Talk {
                    events: channel().0,
                    is_echo: true,
                },
            )
        })
        .unwrap();
    let Endpoint::Tcp(other) = *lines.local_addr() else {
        panic!("not tcp")
    };
    let other = Running {
        addr: other,
        ..running
    };
    let (_, seen) = other.client("/", |options| options);
    let Event::Closed(reason) = next(&seen) else {
        panic!("it is not to be opened")
    };
    assert_eq!(reason, ClientError::Malformed.to_string());
    lines.close();
    lines.wait_closed(TIMEOUT).unwrap();
    let (_, seen) = other.client("/", |options| options);
    assert!(matches!(next(&seen), Event::Closed(reason) if reason.contains("refused")));
}

#[test]
fn a_server_closes_first_and_waits_for_the_peer() {
    let running = serve(true, |options| options);
    // The peer begins.
    let mut socket = running.socket();
    socket.write_all(&sent(CLOSE, code(1000, "bye"))).unwrap();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    assert_eq!(served_frames(rest), [(FIN | CLOSE, code(1000, ""))]);
    drop(socket);
    // The server does: what the peer still sends is no reason for a reset.
    let mut socket = running.socket();
    socket.write_all(&sent(TEXT, "close")).unwrap();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    assert_eq!(served_frames(rest), [(FIN | CLOSE, code(1000, ""))]);
    for _ in 0..100 {
        socket.write_all(&sent(TEXT, "on its way")).unwrap();
    }
    socket.write_all(&sent(CLOSE, code(1000, ""))).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    wait_until("it has gone", || running.system.stats().connections == 0);
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(running.system.stats().closed_by["reset"], 0);
}

#[test]
fn a_stop_tells_each_peer_and_waits_for_it() {
    let running = serve(true, |options| options);
    let mut sockets: Vec<TcpStream> = (0..10).map(|_| running.socket()).collect();
    // One that is in the middle of a message, one in the middle of its handshake.
    sockets[0].write_all(&sent(TEXT, "half")[..8]).unwrap();
    let mut shaking = TcpStream::connect(running.addr).unwrap();
    shaking.set_read_timeout(Some(TIMEOUT)).unwrap();
    shaking.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    wait_until("all are there", || running.system.stats().opened == 11);
    let begun = Instant::now();
    running.system.handle().stop(TIMEOUT);
    for mut socket in sockets {
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).unwrap();
        assert_eq!(served_frames(rest), [(FIN | CLOSE, code(1001, ""))]);
        socket.write_all(&sent(CLOSE, code(1001, ""))).unwrap();
    }
    assert_eq!(shaking.read(&mut [0; 1]).unwrap(), 0);
    drop(shaking);
    running.system.run().unwrap();
    assert!(begun.elapsed() < TIMEOUT, "nobody is waited for in vain");
    let events: Vec<Event> = running.events.try_iter().collect();
    let ended = Event::Closed("finished".into());
    assert_eq!(events.iter().filter(|event| **event == ended).count(), 10);
}

#[test]
fn peers_that_vanish_wherever_they_are() {
    let running = serve(true, |options| options);
    let asked = request("/", "").into_bytes();
    let large = sent(BINARY, vec![7; 300_000]);
    let states: Vec<Vec<u8>> = vec![
        vec![],
        asked[..20].to_vec(),
        asked.clone(),
        [&asked[..], &sent(TEXT, "x")[..3]].concat(),
        [&asked[..], &large[..100_000]].concat(),
        [&asked[..], &sent_as(TEXT, "half")].concat(),
        [&asked[..], &sent(TEXT, "close")].concat(),
        [&asked[..], &sent(CLOSE, code(1000, ""))].concat(),
        // Much is on its way to who does not read.
        [&asked[..], &large.repeat(20)].concat(),
    ];
    let mut opened = 0;
    for state in &states {
        for is_reset in [false, true] {
            let mut socket = TcpStream::connect(running.addr).unwrap();
            // The server may have closed before it is all written.
            let _ = socket.set_write_timeout(Some(Duration::from_secs(1)));
            let _ = socket.write_all(state);
            if state.len() >= asked.len() {
                let mut answer = vec![0; response().len()];
                socket.read_exact(&mut answer).unwrap();
                opened += 1;
            }
            match is_reset {
                true => util::reset(socket),
                false => drop(socket),
            }
        }
    }
    wait_until("all have gone", || {
        let stats = running.system.stats();
        stats.accepted == 2 * states.len() as u64 && stats.connections == 0
    });
    let stats = running.system.stats();
    assert_eq!((stats.opened, stats.panics), (stats.closed, 0));
    let events: Vec<Event> = running.events.try_iter().collect();
    let count = |is: fn(&&Event) -> bool| events.iter().filter(is).count();
    assert_eq!(count(|event| matches!(event, Event::Opened)), opened);
    assert_eq!(count(|event| matches!(event, Event::Closed(_))), opened);
    assert!(running.listener.connections() == 0);
}

#[test]
fn servers_that_vanish_from_a_client() {
    let running = serve(true, |options| options);
    for state in [
        &b""[..],
        b"HTTP/1.1 101",
        b"HTTP/1.1 101 Switching Protocols\r\n",
    ] {
        for is_reset in [false, true] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let (events, seen) = channel();
            let request = Request::new("localhost", "/").unwrap();
            let is_echo = false;
            running.system.connect(addr, move || {
                WebSocket::client(request, Talk { events, is_echo })
            });
            let (mut socket, _) = listener.accept().unwrap();
            let mut asked = [0; 1024];
            assert!(socket.read(&mut asked).unwrap() > 0);
            socket.write_all(state).unwrap();
            match is_reset {
                true => util::reset(socket),
                false => drop(socket),
            }
            // `closed` alone, and once.
            assert!(matches!(next(&seen), Event::Closed(_)));
            assert!(seen.recv_timeout(TIMEOUT).is_err());
        }
    }
}

#[test]
fn a_room_pushes_one_frame_to_all() {
    const MEMBERS: usize = 60;
    let system = System::builder().pollers(2).build().unwrap();
    let room: Addr<Broadcaster<Say>> = system.spawn(Broadcaster::new);
    let to = room.clone();

    struct Member(Addr<Broadcaster<Say>>);
    impl Actor for Member {
        type Message = Say;
        fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
            self.0.send(Broadcast::Join(ctx.addr().recipient()))?;
            ctx.write_frame("joined")?;
            Ok(())
        }
        fn message(&mut self, Say(frame): Say, ctx: &mut Context<'_, Self>) -> Outcome {
            ctx.write_frame(&frame)?;
            Ok(())
        }
    }
    impl FrameActor for Member {
        fn frame(&mut self, frame: Frame<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
            let frame = SharedFrame::text(frame.text()?);
            self.0.send(Broadcast::Push(Say(frame)))?;
            Ok(())
        }
    }

    let server = Server::new(move |_| Ok(Member(to.clone())));
    let listener = system
        .listen("127.0.0.1:0", move |_| server.accept())
        .unwrap();
    let Endpoint::Tcp(addr) = *listener.local_addr() else {
        panic!("not tcp")
    };
    let mut sockets: Vec<TcpStream> = (0..MEMBERS)
        .map(|_| {
            let mut socket = TcpStream::connect(addr).unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            socket.write_all(request("/", "").as_bytes()).unwrap();
            let mut answer = vec![0; response().len() + 8];
            socket.read_exact(&mut answer).unwrap();
            socket
        })
        .collect();
    let said = "to all: ".to_owned() + &"x".repeat(2000);
    sockets[7].write_all(&sent(TEXT, &said)).unwrap();
    for socket in &mut sockets {
        let expected = served(TEXT, &said);
        let mut came = vec![0; expected.len()];
        socket.read_exact(&mut came).unwrap();
        assert_eq!(came, expected);
    }
}

// ---- other people's clients ---------------------------------------------------------------------

/// Whether this command succeeds; if not, the test says so and is over.
fn is_there(what: &str, program: &str, args: &[&str]) -> bool {
    let found = Command::new(program).args(args).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: there is no {what} ({program} {})", args.join(" "));
    }
    found
}

fn run_client(program: &str, args: &[&str], addr: SocketAddr) {
    let output = Command::new(program)
        .args(args)
        .arg(format!("ws://{addr}/chat"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "all is well"
    );
}

const PYTHON_CLIENT: &str = r#"
import asyncio, os, sys
import websockets

async def main(url):
    async with websockets.connect(url, max_size=None) as socket:
        for said in ["hello", "", "\u20ac" * 50000, b"", os.urandom(2_000_000)]:
            await socket.send(said)
            assert await socket.recv() == said
        await socket.send(["in ", "three ", "parts"])
        assert await socket.recv() == "in three parts"
        await (await socket.ping())
    assert socket.close_code == 1000, socket.close_code
    async with websockets.connect(url) as socket:
        await socket.send("close")
        try:
            await socket.recv()
            raise AssertionError("it was to close")
        except websockets.ConnectionClosedOK as closed:
            assert closed.rcvd.code == 1000
    print("all is well")

asyncio.run(main(sys.argv[1]))
"#;

#[test]
fn pythons_websockets() {
    let python = std::env::var("GREENROOM_PYTHON").unwrap_or_else(|_| "python3".into());
    if is_there(
        "Python with websockets",
        &python,
        &["-c", "import websockets"],
    ) {
        let running = serve(true, |options| options);
        run_client(&python, &["-c", PYTHON_CLIENT], running.addr);
        wait_until("all have gone", || running.system.stats().connections == 0);
        assert_eq!(running.system.stats().closed_by["reset"], 0);
    }
}

const NODE_CLIENT: &str = r#"
const WebSocket = require("ws");
const assert = require("assert");
const url = process.argv[1];
const socket = new WebSocket(url);
const said = ["hello", "", "\u20ac".repeat(50000), Buffer.alloc(0), Buffer.alloc(2000000, 7)];
let came = 0;
socket.on("open", () => { said.forEach(one => socket.send(one)); socket.ping("here?"); });
let pongs = 0;
socket.on("pong", data => { assert.equal(data.toString(), "here?"); pongs += 1; });
socket.on("message", (data, isBinary) => {
    const expected = said[came++];
    assert.equal(isBinary, typeof expected !== "string");
    assert(data.equals(Buffer.from(expected)));
    if (came === said.length) socket.close(4000, "enough");
});
socket.on("close", code => {
    assert.deepEqual([code, came, pongs], [4000, said.length, 1]);
    const second = new WebSocket(url);
    second.on("open", () => second.send("close"));
    second.on("close", code => { assert.equal(code, 1000); console.log("all is well"); });
});
"#;

#[test]
fn nodes_ws() {
    let node = std::env::var("GREENROOM_NODE").unwrap_or_else(|_| "node".into());
    if is_there("node with ws", &node, &["-e", "require('ws')"]) {
        let running = serve(true, |options| options);
        run_client(&node, &["-e", NODE_CLIENT], running.addr);
        wait_until("all have gone", || running.system.stats().connections == 0);
        assert_eq!(running.system.stats().closed_by["reset"], 0);
    }
}
