//! Sockets that come from elsewhere become connections like any other.

mod util;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use greenroom::testing::{Faults, Simulation, for_each_seed};
use greenroom::*;
use util::*;

/// A connection as std has it: ours, and the peer's.
fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(TIMEOUT)).unwrap();
    (listener.accept().unwrap().0, peer)
}

/// Adopts with a probe, and waits until it is opened.
#[track_caller]
fn adopt(system: &System, socket: impl Into<Adoptable>, options: AdoptOptions) -> Seen {
    let (events, receiver) = channel();
    let make = move || Probe::new(events);
    system.adopt_with(socket, options, make).unwrap();
    opened(receiver)
}

#[track_caller]
fn opened(events: Receiver<Event>) -> Seen {
    match next(&events) {
        Event::Opened(addr) => Seen { addr, events },
        other => panic!("`opened` comes first, not {other:?}"),
    }
}

#[test]
fn a_tcp_stream_is_served_like_an_accepted_one() {
    let system = builder(2).build().unwrap();
    let (ours, mut peer) = tcp_pair();
    let (here, there) = (ours.local_addr().unwrap(), peer.local_addr().unwrap());
    let seen = adopt(&system, ours, AdoptOptions::new());
    peer.write_all(b"hello").unwrap();
    assert_eq!(seen.read(5), b"hello");
    seen.run(|ctx| ctx.write(b"answer"));
    assert_eq!(read(&peer, 6), b"answer");
    assert_eq!(seen.run(|ctx| ctx.peer()), Some(Peer::Tcp(there)));
    // The first callback that asks has it asked for.
    seen.run(|ctx| ctx.local_addr());
    assert_eq!(seen.run(|ctx| ctx.local_addr()), Some(Endpoint::Tcp(here)));
    assert_eq!(system.stats().connections, 1);
    drop(peer);
    assert!(matches!(seen.closed(), CloseReason::PeerClosed));
    seen.until(|event| matches!(event, Event::Dropped).then_some(()));
    wait_until("its socket is closed", || system.stats().connections == 0);
    assert_eq!(system.stats().accepted, 0, "no listener had it");
}

#[test]
fn a_unix_stream_and_a_bare_descriptor_are_adopted_on_any_poller() {
    let system = builder(2).build().unwrap();
    for poller in [0, 1, 1, 0] {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let (events, receiver) = channel();
        let options = AdoptOptions::new();
        let make = move || Probe::new(events);
        let fd = OwnedFd::from(ours);
        let handle = system.handle();
        handle.adopt_on(poller, fd, options, make).unwrap();
        let seen = opened(receiver);
        assert_eq!(seen.run(|ctx| ctx.poller()), poller);
        assert_eq!(seen.run(|ctx| ctx.peer()), Some(Peer::Unix));
        peer.write_all(b"x").unwrap();
        assert_eq!(seen.read(1), b"x");
    }
}

#[test]
fn the_poller_with_the_fewest_is_chosen() {
    let system = builder(3).build().unwrap();
    let mut peers = Vec::new();
    let mut count = [0; 3];
    for _ in 0..12 {
        let (ours, peer) = tcp_pair();
        peers.push(peer);
        // Not waited for: those on their way count, too.
        let (events, receiver) = channel();
        system.adopt(ours, move || Probe::new(events)).unwrap();
        count[opened(receiver).run(|ctx| ctx.poller())] += 1;
    }
    assert_eq!(count, [4, 4, 4]);
}

#[test]
fn its_address_works_at_once() {
    let stage = Stage::new();
    let (_client, seen) = stage.pair();
    let held = hold(&seen);
    let (ours, peer) = tcp_pair();
    let (events, receiver) = channel();
    let addr = stage
        .system
        .adopt(ours, move || Probe::new(events))
        .unwrap();
    let job: Job = Box::new(|ctx| {
        ctx.write(b"sent early");
        Ok(())
    });
    addr.send(job).unwrap();
    drop(held);
    assert_eq!(read(&peer, 10), b"sent early");
    assert!(matches!(next(&receiver), Event::Opened(_)));
}

#[test]
fn what_came_with_it_goes_first_both_ways() {
    let system = builder(1).build().unwrap();
    let (ours, mut peer) = tcp_pair();
    peer.write_all(b"third").unwrap();
    let (events, receiver) = channel();
    let options = AdoptOptions::new()
        .unread("first second ")
        .unwritten("FIRST ");
    let make = move || {
        let mut calls = 0;
        Probe::new(events)
            .on_opened(|ctx| {
                ctx.write(b"SECOND ");
                Ok(())
            })
            .on_readable(move |input, ctx| {
                calls += 1;
                if calls == 1 {
                    assert_eq!(input.take(6), Some(&b"first "[..]));
                    ctx.write(b"THIRD");
                    return Ok(());
                }
                Ok(())
            })
    };
    system.adopt_with(ours, options, make).unwrap();
    let seen = opened(receiver);
    let shown = seen.until(|event| match event {
        Event::Readable(shown, _) if shown.ends_with(b"third") => Some(shown),
        _ => None,
    });
    assert_eq!(shown, b"second third", "in one piece");
    assert_eq!(read(&peer, 18), b"FIRST SECOND THIRD");
}

#[test]
fn a_frame_that_came_in_part_is_watched() {
    let system = builder(1).build().unwrap();
    let (ours, _peer) = tcp_pair();
    let limits = ConnectionOptions::new().incomplete_timeout(Duration::from_millis(20));
    let options = AdoptOptions::new().unread("part").connection(limits);
    let (events, receiver) = channel();
    let make = move || Probe::new(events).on_readable(|_, _| Ok(()));
    system.adopt_with(ours, options, make).unwrap();
    let reason = opened(receiver).closed();
    assert!(
        matches!(reason, CloseReason::SlowSender { kept: 4, .. }),
        "{reason:?}"
    );
}

#[test]
fn unwritten_bytes_are_watched_and_flushed_by_a_close() {
    let system = builder(1).build().unwrap();
    let (ours, peer) = tcp_pair();
    let bytes = pattern(8_000_000);
    let options = AdoptOptions::new().unwritten(bytes.clone());
    let (events, receiver) = channel();
    let make = move || {
        Probe::new(events).on_opened(|ctx| {
            ctx.close();
            Ok(())
        })
    };
    system.adopt_with(ours, options, make).unwrap();
    assert_same(&read_to_end(&peer), &bytes);
    assert!(matches!(opened(receiver).closed(), CloseReason::Finished));

    let (ours, _peer) = tcp_pair();
    let limits = ConnectionOptions::new().stuck_timeout(Duration::from_millis(20));
    let options = AdoptOptions::new().unwritten(bytes).connection(limits);
    let reason = adopt(&system, ours, options).closed();
    assert!(
        matches!(reason, CloseReason::StuckReader { .. }),
        "{reason:?}"
    );
}

#[test]
fn a_panic_in_the_factory_closes_the_socket() {
    let system = builder(1).build().unwrap();
    let (ours, peer) = tcp_pair();
    let addr = system
        .adopt(ours, || -> Probe { panic!("no actor") })
        .unwrap();
    assert!(read_to_end(&peer).is_empty());
    wait_until("it is counted as gone", || system.stats().connections == 0);
    assert!(addr.send(Box::new(|_| Ok(()))).is_err());
    assert_eq!(system.stats().panics, 1);

    // What it was to send first was never sent: no end for its peer to take for an orderly one.
    let (ours, mut peer) = tcp_pair();
    let options = AdoptOptions::new().unwritten("half of");
    let make = || -> Probe { panic!("no actor") };
    system.adopt_with(ours, options, make).unwrap();
    let error = peer.read(&mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Tries to adopt it and returns the error.
#[track_caller]
fn refused(system: &System, socket: impl Into<Adoptable>) -> AdoptError {
    let (events, _) = channel();
    system
        .adopt(socket, move || Probe::new(events))
        .unwrap_err()
}

#[test]
fn what_is_no_connection_is_refused_and_given_back() {
    let system = builder(1).build().unwrap();
    let (pipe, mut writer) = std::io::pipe().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    let packets = socket_of(libc::AF_UNIX, libc::SOCK_SEQPACKET);
    let netlink = socket_of(libc::AF_NETLINK, libc::SOCK_RAW);
    let cases: [(OwnedFd, &str); 6] = [
        (pipe.into(), "the descriptor is a pipe, not a socket"),
        (file.into(), "the descriptor is a regular file"),
        (listener.into(), "the socket listens; use listen_from"),
        (socket(), "the socket is not connected"),
        (packets, "the socket is neither TCP nor a unix stream"),
        (netlink, "the socket is neither TCP nor a unix stream"),
    ];
    let mut back = Vec::new();
    for (fd, text) in cases {
        let number = fd.as_raw_fd();
        let error = refused(&system, fd);
        assert!(error.to_string().contains(text), "{error}");
        let fd = error.into_socket().unwrap().into_fd().unwrap();
        assert_eq!(fd.as_raw_fd(), number);
        back.push(fd);
    }
    writer.write_all(b"x").unwrap();
    let mut pipe = File::from(back.remove(0));
    pipe.read_exact(&mut [0]).unwrap();
    let stats = system.stats();
    assert_eq!((stats.connections, stats.opened), (0, 0));
}

/// Sends back what it gets, with who it is from.
struct Datagrams(Sender<String>);

impl Actor for Datagrams {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.0.send(format!("{:?}", ctx.has_socket()))?;
        Ok(())
    }

    fn datagram(&mut self, datagram: Datagram<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.reply(&datagram, datagram.bytes());
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        let _ = self.0.send(reason.name().to_owned());
    }
}

#[track_caller]
fn echoes(client: &UdpSocket, text: &str) {
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    client.send(text.as_bytes()).unwrap();
    let mut answer = [0; 64];
    let len = client.recv(&mut answer).unwrap();
    assert_eq!(&answer[..len], text.as_bytes());
}

#[test]
fn a_udp_socket_is_adopted_bound_and_connected_as_it_is() {
    let system = builder(1).build().unwrap();
    for is_connected in [false, true] {
        let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(ours.local_addr().unwrap()).unwrap();
        // It waits in the socket.
        client.send(b"early").unwrap();
        if is_connected {
            ours.connect(client.local_addr().unwrap()).unwrap();
        }
        let (told, events) = channel();
        let addr = system.adopt(ours, move || Datagrams(told)).unwrap();
        assert_eq!(next(&events), "true");
        let mut early = [0; 64];
        client.set_read_timeout(Some(TIMEOUT)).unwrap();
        assert_eq!(client.recv(&mut early).unwrap(), 5);
        echoes(&client, "late");
        addr.close();
        assert_eq!(next(&events), "finished");
    }
    wait_until("both are closed", || system.stats().connections == 0);
}

#[test]
fn an_actor_adopts_a_datagram_socket_and_a_unix_one_keeps_its_file() {
    let dir = TempDir::new();
    let path = dir.join("socket");
    let system = builder(1).build().unwrap();
    let hub = spawn(&system, 0, |probe| probe);
    let ours = UnixDatagram::bind(&path).unwrap();
    let (told, events) = channel();
    hub.tell(move |ctx| {
        ctx.adopt(ours, Datagrams(told));
        Ok(())
    });
    assert_eq!(next(&events), "true");
    let back = path.with_extension("back");
    let client = UnixDatagram::bind(&back).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    client.connect(&path).unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(client.recv(&mut [0; 64]).unwrap(), 5);
    system.handle().stop(Duration::ZERO);
    system.run().unwrap();
    assert!(path.exists(), "somebody else has bound it");
}

#[test]
fn datagrams_have_no_stream_that_bytes_could_be_put_in_front_of() {
    let system = builder(1).build().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let local = udp.local_addr().unwrap();
    let options = AdoptOptions::new().unread("bytes");
    let (events, _) = channel();
    let error = system
        .adopt_with(udp, options, move || Probe::new(events))
        .unwrap_err();
    assert!(matches!(error.kind(), AdoptErrorKind::Datagram), "{error}");
    let udp = UdpSocket::from(error.into_socket().unwrap().into_fd().unwrap());
    assert_eq!(udp.local_addr().unwrap(), local);
}

#[test]
fn a_stopping_system_takes_no_more() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_stopping(|_| Ok(()))
    });
    let (client, seen) = stage.pair();
    stage.system.handle().stop(Duration::from_secs(3600));
    seen.until(|event| matches!(event, Event::Stopping).then_some(()));
    let (ours, mut peer) = tcp_pair();
    let error = refused(&stage.system, ours);
    assert!(matches!(error.kind(), AdoptErrorKind::Stopped));
    let mut ours = TcpStream::from(error.into_socket().unwrap().into_fd().unwrap());
    ours.write_all(b"x").unwrap();
    peer.read_exact(&mut [0]).unwrap();
    seen.addr.close();
    drop(client);
    stage.system.run().unwrap();
}

#[test]
fn an_actor_adopts_for_a_new_one() {
    let stage = Stage::new();
    let hub = spawn(&stage.system, 0, |probe| probe);
    let (ours, mut peer) = tcp_pair();
    let (events, receiver) = channel();
    hub.tell(move |ctx| {
        let addr = ctx.adopt(ours, Probe::new(events));
        let job: Job = Box::new(|ctx| {
            ctx.write(b"hello");
            Ok(())
        });
        addr.send(job)?;
        Ok(())
    });
    let seen = opened(receiver);
    assert_eq!(read(&peer, 5), b"hello");
    peer.write_all(b"x").unwrap();
    assert_eq!(seen.read(1), b"x");

    // What cannot be adopted ends with its reason, and is closed.
    let (pipe, mut writer) = std::io::pipe().unwrap();
    let (told, reasons) = channel();
    hub.tell(move |ctx| {
        ctx.adopt(OwnedFd::from(pipe), Unlucky(told));
        Ok(())
    });
    let (name, text) = next(&reasons);
    assert_eq!(name, "not adopted");
    assert!(text.contains("is a pipe"), "{text}");
    settle(&stage.system);
    wait_until("nobody reads it any more", || {
        writer.write_all(b"x").is_err()
    });
    assert_eq!(stage.system.stats().panics, 0);
}

/// Never gets the socket that it was to have.
struct Unlucky(Sender<(&'static str, String)>);

impl Actor for Unlucky {
    type Message = ();

    fn opened(&mut self, _ctx: &mut Context<'_, Self>) -> Outcome {
        panic!("it was never adopted")
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        assert!(!ctx.has_socket() && ctx.peer().is_none());
        let _ = self.0.send((reason.name(), reason.to_string()));
    }
}

/// Echoes lines, and moves on, to the next system, at a line that says so.
struct Line {
    moves: Option<Handle>,
}

impl Actor for Line {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while let Some(line) = input.line(1 << 20)? {
            ctx.write_parts(&[line, b"\n"]);
            if line == b"move"
                && let Some(to) = self.moves.take()
            {
                ctx.detach(move |detached| {
                    let back = to.clone();
                    let make = move || Line { moves: Some(back) };
                    to.adopt(detached, make).expect("it is adopted");
                })?;
                break;
            }
        }
        Ok(())
    }
}

#[test]
fn a_connection_moves_between_systems_in_the_middle_of_frames() {
    let first = builder(1).build().unwrap();
    let second = builder(2).build().unwrap();
    let to = second.handle();
    let make = move |_| Line {
        moves: Some(to.clone()),
    };
    let listener = first.listen("127.0.0.1:0", make).unwrap();
    let mut client = connect_small(&listener, 16 << 10);
    let mut lines = Vec::new();
    for n in 0..40_usize {
        lines.extend_from_slice(&vec![b'a' + (n % 26) as u8; 50_000 * (n % 3)]);
        lines.extend_from_slice(if n % 4 == 0 { b"\nmove\n" } else { b"\nstay\n" });
    }
    let sent = lines.clone();
    let mut writer = client.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&sent));
    let mut echoed = vec![0; lines.len()];
    client.read_exact(&mut echoed).unwrap();
    writing.join().unwrap().unwrap();
    assert_same(&echoed, &lines);
    assert_eq!(first.stats().closed_by["detached"], 1);
    // It stays in the second from there on, whose lines move it within.
    assert_eq!(second.stats().closed_by["detached"], 9);
}

/// The other process of the test below: adopts what it has as its standard input.
const CHILD: &str = "GREENROOM_ADOPTS_STDIN";

#[test]
fn a_connection_moves_between_processes_in_the_middle_of_a_frame() {
    let name = "a_connection_moves_between_processes_in_the_middle_of_a_frame";
    if let Some(carried) = std::env::var_os(CHILD) {
        let carried = carried.into_string().unwrap();
        let (unread, unwritten) = carried.split_once('/').unwrap();
        let fd = std::os::fd::AsFd::as_fd(&std::io::stdin())
            .try_clone_to_owned()
            .unwrap();
        let system = builder(1).build().unwrap();
        let options = AdoptOptions::new()
            .unread(unread.to_owned())
            .unwritten(unwritten.to_owned());
        system
            .adopt_with(fd, options, || Line { moves: None })
            .unwrap();
        wait_until("it is opened", || system.stats().opened == 1);
        wait_until("it has ended", || system.stats().connections == 0);
        return;
    }
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_readable(|_, _| Ok(()))
    });
    let (mut client, seen) = stage.pair();
    client.write_all(b"half a li").unwrap();
    seen.until(|event| matches!(event, Event::Readable(..)).then_some(()));
    let (send, detached) = channel();
    seen.tell(move |ctx| {
        ctx.write(b"not sent yet ");
        ctx.detach(move |detached| drop(send.send(detached)))?;
        Ok(())
    });
    let detached = next(&detached);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let carried = format!("{}/{}", text(&detached.unread), text(&detached.unwritten));
    client.write_all(b"ne\nanoth").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--test-threads=1"])
        .env(CHILD, carried)
        .stdin(Stdio::from(detached.into_fd().unwrap()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    client.write_all(b"er\n").unwrap();
    half_close(&client);
    let answer = read_to_end(&client);
    assert_eq!(text(&answer), "not sent yet half a line\nanother\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn no_descriptor_is_left_behind() {
    in_child("no_descriptor_is_left_behind", 256, || {
        let system = builder(1).build().unwrap();
        let before = descriptors();
        for round in 0..300 {
            let (ours, peer) = tcp_pair();
            match round % 3 {
                0 => {
                    let (events, _) = channel();
                    system.adopt(ours, move || Probe::new(events)).unwrap();
                    half_close(&peer);
                }
                1 => {
                    let made = system.adopt(ours, || -> Probe { panic!("no actor") });
                    drop(made);
                }
                _ => {
                    // Dropped with its error.
                    let _ = refused(&system, socket());
                    let (told, _) = channel();
                    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
                    let addr = system.adopt(udp, move || Datagrams(told)).unwrap();
                    addr.close();
                    drop(ours);
                }
            }
            assert!(read_to_end(&peer).is_empty());
        }
        wait_until("all are closed", || system.stats().connections == 0);
        assert_eq!(descriptors(), before);
    });
}

// ---- simulated ----------------------------------------------------------------------------------

#[test]
fn lines_that_move_between_pollers_are_whole_under_every_seed() {
    for_each_seed(100, |simulation: &mut Simulation| {
        simulation.faults(Faults::harmless());
        let system = simulation.system(System::builder().pollers(3));
        let handle = system.handle();
        let make = move |_| Line {
            moves: Some(handle.clone()),
        };
        system.listen("127.0.0.1:9000", make).unwrap();
        let clients: Vec<_> = (0..4)
            .map(|_| simulation.client("127.0.0.1:9000"))
            .collect();
        let mut sent = Vec::new();
        for n in 0..30 {
            sent.extend_from_slice(&vec![b'x'; n * 97 % 400]);
            sent.extend_from_slice(if n % 3 == 0 { b"\nmove\n" } else { b"\n" });
        }
        for client in &clients {
            client.send(&sent);
            client.half_close();
        }
        for client in &clients {
            assert_same(&client.rest(simulation), &sent);
        }
        assert_eq!(system.stats().closed_by["detached"], 4 * 10);
    });
}

/// Echoes what it gets, and moves on with every so many callbacks, to wherever there is room.
struct Wanderer {
    to: Handle,
    calls: usize,
}

impl Wanderer {
    fn go_on(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.calls += 1;
        if self.calls.is_multiple_of(3) && !ctx.is_closing() {
            let to = self.to.clone();
            ctx.detach(move |detached| {
                let back = to.clone();
                // A system that stops takes it no more: then it ends here.
                let _ = to.adopt(detached, move || Wanderer { to: back, calls: 0 });
            })?;
        }
        Ok(())
    }
}

impl Actor for Wanderer {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.go_on(ctx)
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let half = input.len().div_ceil(2);
        if let Some(bytes) = input.take(half) {
            ctx.write(bytes);
        }
        self.go_on(ctx)
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.shutdown_write();
        self.go_on(ctx)
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.go_on(ctx)
    }

    fn stopping(&mut self, _: std::time::Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        self.go_on(ctx)
    }
}

/// That each actor ends once, and no socket is left, is looked at at the end of every run.
#[test]
fn who_moves_about_loses_no_byte_but_with_the_connection_under_every_seed() {
    for_each_seed(200, |simulation: &mut Simulation| {
        let is_rough = simulation.random().one_in(2);
        let system = simulation.system(System::builder().pollers(3));
        let to = system.handle();
        let make = move |_| Wanderer {
            to: to.clone(),
            calls: 0,
        };
        let limits = ConnectionOptions::new().watermarks(1 << 10, 4 << 10);
        let options = ListenOptions::new().connection(limits);
        system.listen_with("127.0.0.1:9000", options, make).unwrap();
        simulation.faults(if is_rough {
            Faults::all()
        } else {
            Faults::harmless()
        });
        let sent = pattern(simulation.random().range(1..30_000) as usize);
        let clients: Vec<_> = (0..4)
            .map(|_| simulation.client("127.0.0.1:9000"))
            .collect();
        for client in &clients {
            client.send(&sent);
            client.half_close();
        }
        let resets = simulation.random().range(0..4) as usize;
        if is_rough {
            let time = Duration::from_millis(simulation.random().range(0..50));
            simulation.run_for(time);
            clients[resets].reset();
            let received = clients.iter().map(|client| client.received());
            received.for_each(|bytes| assert!(sent.starts_with(&bytes)));
        } else {
            for client in &clients {
                assert_same(&client.rest(simulation), &sent);
            }
        }
        simulation.finish(Duration::from_secs(1));
    });
}

#[test]
fn a_taker_that_panics_is_named() {
    struct Gives;

    impl Actor for Gives {
        type Message = ();

        fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
            ctx.detach(|_| panic!("with both hands"))?;
            Ok(())
        }
    }

    let mut simulation = Simulation::new(1);
    simulation.allow_panics();
    let system = simulation.system(System::builder());
    system.listen("127.0.0.1:9000", |_| Gives).unwrap();
    let client = simulation.client("127.0.0.1:9000");
    assert!(client.rest(&mut simulation).is_empty());
    let trace = simulation.trace().to_string();
    let said = "the taker of a detached socket panicked: with both hands";
    assert!(trace.contains(said), "{trace}");
}

#[test]
fn a_real_socket_does_not_fit_into_a_simulated_system() {
    let mut simulation = Simulation::new(1);
    let system = simulation.system(System::builder());
    let (ours, _peer) = tcp_pair();
    let error = refused(&system, ours);
    assert!(
        matches!(error.kind(), AdoptErrorKind::OtherWorld),
        "{error}"
    );
    assert!(error.into_socket().unwrap().into_fd().is_ok());
}

/// Adopts what it is sent, on a stage.
struct Adopter;

impl Actor for Adopter {
    type Message = TcpStream;

    fn message(&mut self, stream: TcpStream, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.adopt(stream, Line { moves: None });
        Ok(())
    }
}

#[test]
fn nor_onto_a_stage() {
    let mut stage = testing::Stage::without_socket(Adopter);
    let (ours, peer) = tcp_pair();
    stage.send(ours);
    assert_eq!(stage.stats().closed_by["not adopted"], 1);
    assert!(read_to_end(&peer).is_empty(), "it is closed");
}

/// Keeps one byte of what it gets, and leaves at a word.
struct Leaver(std::rc::Rc<std::cell::RefCell<Option<Detached>>>);

impl Actor for Leaver {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if input.take(6).is_some() {
            ctx.write(b"goodbye");
            let to = self.0.clone();
            ctx.detach(move |detached| *to.borrow_mut() = Some(detached))?;
        }
        Ok(())
    }
}

#[test]
fn on_a_stage_a_detach_can_be_looked_at() {
    let left = std::rc::Rc::default();
    let mut stage = testing::Stage::new(Leaver(std::rc::Rc::clone(&left)));
    stage.receive("leave!rest");
    assert!(matches!(stage.reason(), Some(CloseReason::Detached)));
    assert!(stage.is_connected(), "its peer notices nothing");
    let detached = left.take().expect("it was handed over");
    assert_eq!(&detached.unread[..], b"rest");
    assert_eq!(&detached.unwritten[..], b"goodbye");
    assert!(detached.as_fd().is_none());
    let error = detached.into_fd().unwrap_err();
    assert!(error.to_string().contains("no descriptor"), "{error}");
    drop(error);
    assert!(!stage.is_connected());
    assert_eq!(stage.output(), "");
}

#[test]
fn who_is_above_the_high_watermark_from_the_beginning_is_told_when_that_is_over() {
    const MUCH: usize = 4 << 20;
    let system = builder(1).build().unwrap();
    let (ours, peer) = tcp_pair();
    let connection = ConnectionOptions::new()
        .watermarks(1 << 10, 64 << 10)
        .output_max(2 * MUCH);
    let options = AdoptOptions::new()
        .connection(connection)
        .unwritten(vec![7; MUCH]);
    let (events, receiver) = channel();
    let make = move || {
        Probe::new(events).on_opened(|ctx| {
            assert!(ctx.is_above_high_watermark());
            Ok(())
        })
    };
    system.adopt_with(ours, options, make).unwrap();
    let seen = opened(receiver);
    assert_eq!(read(&peer, MUCH).len(), MUCH);
    seen.until(|event| matches!(event, Event::Drained).then_some(()));
}

/// A socket whose errors the kernel keeps in a queue, too, which nobody here reads.
#[test]
fn an_adopted_socket_that_queues_its_errors_makes_nobody_spin() {
    for ip in ["127.0.0.1:0", "[::1]:0"] {
        let system = System::builder().pollers(1).name("queues").build().unwrap();
        let nobody = UdpSocket::bind(ip).unwrap().local_addr().unwrap();
        let ours = UdpSocket::bind(ip).unwrap();
        ours.connect(nobody).unwrap();
        let (level, name) = match nobody {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
        };
        let on: libc::c_int = 1;
        // SAFETY: `on` is readable for its size and outlives the call.
        let set = unsafe {
            let size = size_of_val(&on) as libc::socklen_t;
            libc::setsockopt(ours.as_raw_fd(), level, name, (&raw const on).cast(), size)
        };
        assert_eq!(set, 0);
        // What comes back before, and what comes back later.
        ours.send(b"x").unwrap();
        let (told, _events) = channel();
        let addr = system.adopt(ours, move || Datagrams(told)).unwrap();
        wait_until("it is opened", || system.stats().opened == 1);
        util::assert_quiet("queues");
        drop(addr);
    }
}

/// Gives it a linger time, longer than a test waits.
fn set_linger(socket: &impl AsRawFd) {
    let long = libc::linger {
        l_onoff: 1,
        l_linger: 100,
    };
    // SAFETY: `long` is readable for its size and outlives the call.
    let set = unsafe {
        let (value, size) = ((&raw const long).cast(), size_of_val(&long));
        let fd = socket.as_raw_fd();
        let size = size as libc::socklen_t;
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, value, size)
    };
    assert_eq!(set, 0);
}

/// The kernel still has bytes for a peer that does not read when it is closed.
#[test]
fn a_linger_time_that_a_socket_brings_blocks_no_poller() {
    let system = builder(1).build().unwrap();
    let limits = ConnectionOptions::new().linger(Duration::from_millis(1), 0);
    // Adopted, and accepted from a listener that comes from elsewhere, whose options are handed down.
    let (ours, _peer) = tcp_pair();
    set_linger(&ours);
    let options = AdoptOptions::new().connection(limits.clone());
    let adopted = adopt(&system, ours, options);

    let bound = TcpListener::bind("127.0.0.1:0").unwrap();
    set_linger(&bound);
    let at = bound.local_addr().unwrap();
    let (send, receiver) = channel();
    let make = move |_| Probe::new(send.clone());
    let listening = ListenOptions::new().connection(limits);
    system.listen_from(bound, listening, make).unwrap();
    let _client = TcpStream::connect(at).unwrap();

    for seen in [adopted, opened(receiver)] {
        seen.tell(|ctx| {
            ctx.write_bytes(pattern(256 << 10).into());
            ctx.close();
            Ok(())
        });
        assert!(matches!(seen.closed(), CloseReason::Finished));
    }
    wait_until("both are closed", || system.stats().connections == 0);
}

/// Others may share it: a terminal, say.
#[test]
fn what_is_refused_comes_back_as_it_was() {
    let system = builder(1).build().unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    for given in [OwnedFd::from(pipe), listening.into()] {
        let error = system.adopt(given, || -> Probe { panic!("never made") });
        let back = error.unwrap_err().into_socket().expect("it comes back");
        let back = back.into_fd().expect("a real one");
        // SAFETY: takes no pointer.
        let flags = unsafe { libc::fcntl(back.as_raw_fd(), libc::F_GETFL) };
        assert_eq!(flags & libc::O_NONBLOCK, 0);
    }
}

#[test]
fn what_comes_unwritten_with_a_full_socket_is_counted() {
    let system = builder(1).build().unwrap();
    // Of a Unix socket, whose kernel buffer stays full when nobody reads.
    let (mut ours, _peer) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    while ours.write(&[0; 65536]).is_ok_and(|taken| taken > 0) {}
    while ours.write(&[0]).is_ok_and(|taken| taken > 0) {}
    let options = AdoptOptions::new().unwritten(pattern(100_000));
    let seen = adopt(&system, ours, options);
    assert_eq!(seen.addr.queued(), Some(100_000));
    assert_eq!(system.stats().output_waiting, 100_000);
}
