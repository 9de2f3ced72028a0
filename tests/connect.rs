//! Connecting out over real sockets: what a connected actor sees, and every way in which a connect
//! comes to nothing.

#[path = "util/network.rs"]
mod network;
mod util;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use greenroom::*;
use util::*;

/// What happens to a [`Caller`].
#[derive(Debug, PartialEq)]
enum Told {
    Opened {
        peer: Option<Peer>,
    },
    Bytes(Vec<u8>),
    Message(u32),
    NotConnected {
        kind: ConnectErrorKind,
        last: Option<Endpoint>,
        tried: usize,
        text: String,
    },
    Closed(&'static str),
}

/// An actor that is connected out, and tells all that happens to it. A message 0 closes it.
struct Caller {
    told: Sender<Told>,
}

impl Actor for Caller {
    type Message = u32;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        assert!(ctx.has_socket());
        let peer = ctx.peer();
        let _ = self.told.send(Told::Opened { peer });
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        let bytes = input.take_all().to_vec();
        let _ = self.told.send(Told::Bytes(bytes));
        Ok(())
    }

    fn message(&mut self, message: u32, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = self.told.send(Told::Message(message));
        if message == 0 {
            ctx.close();
        } else {
            ctx.write(message.to_be_bytes());
        }
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        assert!(!ctx.has_socket());
        let _ = self.told.send(match reason {
            CloseReason::NotConnected(error) => {
                assert_eq!(ctx.peer(), None);
                Told::NotConnected {
                    kind: error.kind(),
                    last: error.last_addr().cloned(),
                    tried: error.addrs_tried(),
                    text: error.to_string(),
                }
            }
            reason => Told::Closed(reason.name()),
        });
    }
}

/// A connect from a system, and what its actor tells.
fn call(
    system: &System,
    to: impl Into<Remote>,
    options: ConnectOptions,
) -> (Addr<Caller>, Receiver<Told>) {
    let (told, receiver) = channel();
    let addr = system.connect_with(to, options, move || Caller { told });
    (addr, receiver)
}

/// Waits for the one thing that the actor of a failed connect is told; nothing follows it.
#[track_caller]
fn failure(told: &Receiver<Told>) -> (ConnectErrorKind, Option<Endpoint>, usize, String) {
    let Told::NotConnected {
        kind,
        last,
        tried,
        text,
    } = next(told)
    else {
        panic!("`closed` alone is told of a connect that fails");
    };
    assert!(told.recv().is_err(), "the actor is dropped behind it");
    (kind, last, tried, text)
}

/// A port of 127.0.0.1 that is taken and not listened on: connects to it are refused. Held by a
/// socket that listens never.
struct Deaf {
    _holder: TcpStream,
    _peer: TcpListener,
    addr: SocketAddr,
}

impl Deaf {
    fn new() -> Deaf {
        let peer = TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = TcpStream::connect(peer.local_addr().unwrap()).unwrap();
        let addr = holder.local_addr().unwrap();
        Deaf {
            _holder: holder,
            _peer: peer,
            addr,
        }
    }
}

/// A listener of a system of its own whose backlog is full: nobody answers a connect to it.
struct Full {
    stage: Stage,
    /// One is served, one fills the backlog.
    clients: Vec<TcpStream>,
}

impl Full {
    fn new() -> Full {
        let options = ListenOptions::new().backlog(0).max_connections(1);
        let stage = Stage::listen(builder(1), "127.0.0.1:0", options, |probe| probe);
        let (served, _) = stage.pair();
        let waiting = stage.client();
        let clients = vec![served, waiting];
        Full { stage, clients }
    }

    fn addr(&self) -> SocketAddr {
        tcp_addr(&self.stage.listener)
    }
}

fn within(timeout: Duration) -> ConnectOptions {
    ConnectOptions::new().timeout(timeout)
}

// ---- that come to something ---------------------------------------------------------------------

#[test]
fn messages_sent_before_opened_wait_for_it_and_come_in_their_order() {
    for over_unix in [false, true] {
        let dir = TempDir::new();
        let endpoint = if over_unix {
            format!("unix:{}", dir.join("socket").display())
        } else {
            "127.0.0.1:0".to_owned()
        };
        let options = ListenOptions::new();
        let server = Stage::listen(builder(1), &endpoint, options, |probe| probe);
        let system = builder(1).build().unwrap();
        let to = server.listener.local_addr();
        let (caller, told) = call(&system, to, ConnectOptions::new());
        // Also behind its opening, in the same order.
        for message in 1..=1_000 {
            caller.send(message).unwrap();
        }
        caller.send(0).unwrap();
        let peer = match to {
            Endpoint::Tcp(addr) => Peer::Tcp(*addr),
            _ => Peer::Unix,
        };
        assert_eq!(next(&told), Told::Opened { peer: Some(peer) });
        for message in (1..=1_000).chain([0]) {
            assert_eq!(next(&told), Told::Message(message));
        }
        assert_eq!(next(&told), Told::Closed("finished"));
        let served = server.accepted();
        let sent: Vec<u8> = (1..=1_000_u32).flat_map(u32::to_be_bytes).collect();
        assert_same(&served.read(sent.len()), &sent);
        wait_until("the sockets are closed", || system.stats().connections == 0);
        let stats = system.stats();
        assert_eq!((stats.connected, stats.connect_failed), (1, 0));
        assert_eq!((stats.opened, stats.closed), (1, 1));
        assert!(caller.send(1).unwrap_err().is_gone());
    }
}

#[test]
fn a_context_connects_from_its_own_poller_and_the_callback_goes_on() {
    let server = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_readable(|input, ctx| {
            ctx.write(input.take_all());
            Ok(())
        })
    });
    let system = builder(2).build().unwrap();
    let to = Remote::from(server.listener.local_addr());
    for poller in 0..2 {
        let spawned = spawn(&system, poller, |probe| probe);
        let to = to.clone();
        let (caller, told) = spawned.run(move |ctx| {
            // What an actor holds need not be sent anywhere: it is here already.
            let (told, receiver) = channel();
            let caller = ctx.connect(to, Caller { told });
            caller.send(7).unwrap();
            assert!(receiver.try_recv().is_err(), "nothing happens in here");
            (caller, receiver)
        });
        assert_eq!(caller.poller(), poller);
        assert!(matches!(next(&told), Told::Opened { peer: Some(_) }));
        assert_eq!(next(&told), Told::Message(7));
        assert_eq!(next(&told), Told::Bytes(vec![0, 0, 0, 7]));
        caller.send(0).unwrap();
        assert_eq!(next(&told), Told::Message(0));
        assert_eq!(next(&told), Told::Closed("finished"));
    }
}

#[test]
fn a_connected_actor_lives_under_the_options_of_its_connection() {
    let server = Stage::new();
    let system = builder(1).build().unwrap();
    let to = server.listener.local_addr();
    let idle = ConnectionOptions::new().idle_timeout(Duration::from_millis(50));
    let (_caller, told) = call(&system, to, ConnectOptions::new().connection(idle));
    assert!(matches!(next(&told), Told::Opened { .. }));
    assert_eq!(next(&told), Told::Closed("idle"));

    let small = ConnectionOptions::new().output_max(2);
    let (caller, told) = call(&system, to, ConnectOptions::new().connection(small));
    assert!(matches!(next(&told), Told::Opened { .. }));
    caller.send(1).unwrap();
    assert_eq!(next(&told), Told::Message(1));
    assert_eq!(next(&told), Told::Closed("slow reader"));
}

#[test]
fn a_thousand_connects_at_once_are_all_made() {
    in_child("a_thousand_connects_at_once_are_all_made", 1024, || {
        // They wait in its backlog: in this process each has one descriptor only.
        let options = ListenOptions::new().max_connections(1);
        let server = Stage::listen(builder(1), "127.0.0.1:0", options, |probe| probe);
        let system = builder(1).build().unwrap();
        let (told, receiver) = channel();
        let at_rest = descriptors();
        let callers: Vec<_> = (0..1_000)
            .map(|_| {
                let told = told.clone();
                system.connect(server.listener.local_addr(), move || Caller { told })
            })
            .collect();
        for _ in 0..1_000 {
            assert!(matches!(next(&receiver), Told::Opened { .. }));
        }
        let stats = system.stats();
        assert_eq!((stats.connected, stats.connections), (1_000, 1_000));
        for caller in &callers {
            caller.close();
        }
        for _ in 0..1_000 {
            assert_eq!(next(&receiver), Told::Closed("finished"));
        }
        // Each lingers until the server has closed, which serves one after the other.
        wait_until("all descriptors come back", || descriptors() == at_rest);
    });
}

#[test]
fn the_local_address_is_the_one_that_was_chosen() {
    let server = Stage::new();
    let system = builder(1).build().unwrap();
    let to = server.listener.local_addr();
    let local = SocketAddr::from(([127, 0, 0, 2], 0));
    let (caller, told) = call(&system, to, ConnectOptions::new().local_addr(local));
    assert!(matches!(next(&told), Told::Opened { .. }));
    let peer = server.accepted().run(|ctx| ctx.peer()).unwrap();
    assert_eq!(peer.ip(), Some(Ipv4Addr::new(127, 0, 0, 2).into()));
    caller.close();
}

/// The port stays in use by the first of them.
#[test]
fn one_port_of_ours_serves_connections_to_several_places() {
    let servers = [Stage::new(), Stage::new()];
    let system = builder(1).build().unwrap();
    let local = {
        let free = TcpListener::bind("127.0.0.3:0").unwrap();
        free.local_addr().unwrap()
    };
    let from = ConnectOptions::new().local_addr(local);
    let mut callers = Vec::new();
    for server in &servers {
        let to = server.listener.local_addr();
        let (caller, told) = call(&system, to, from.clone());
        assert!(matches!(next(&told), Told::Opened { .. }));
        let peer = server.accepted().run(|ctx| ctx.peer());
        assert_eq!(peer, Some(Peer::Tcp(local)));
        callers.push((caller, told));
    }
    // There is one to that place.
    let (_caller, told) = call(&system, servers[0].listener.local_addr(), from);
    assert_eq!(failure(&told).0, ConnectErrorKind::LocalAddress);
}

fn on_device(device: &str) -> ConnectOptions {
    ConnectOptions::new().socket(SocketOptions::new().device(device))
}

#[test]
fn the_device_is_the_one_that_was_chosen() {
    let server = Stage::new();
    let system = builder(1).build().unwrap();
    let to = server.listener.local_addr();
    let (_caller, told) = call(&system, to, on_device("lo"));
    match next(&told) {
        Told::Opened { .. } => {}
        Told::NotConnected { text, .. } if text.contains("CAP_NET_RAW") => {
            eprintln!("skipped: this process may not choose a device");
        }
        other => panic!("{other:?}"),
    }
    let unfit = SocketOptions::new().defer_accept(Duration::from_secs(1));
    let (_caller, told) = call(&system, to, ConnectOptions::new().socket(unfit));
    assert_eq!(failure(&told).0, ConnectErrorKind::SocketOption);
    for device in ["nosuchdevice0", "a-name-that-no-device-can-have"] {
        let (_caller, told) = call(&system, to, on_device(device));
        let (kind, _, _, text) = failure(&told);
        assert_eq!(kind, ConnectErrorKind::SocketOption);
        assert!(text.contains("SO_BINDTODEVICE"), "{text}");
    }
}

// ---- that come to nothing -----------------------------------------------------------------------

#[test]
fn a_connect_to_where_nobody_listens_is_refused_and_closed_is_all_that_is_told() {
    let deaf = Deaf::new();
    let system = builder(1).build().unwrap();
    let (caller, told) = call(&system, deaf.addr, ConnectOptions::new());
    let (kind, last, tried, text) = failure(&told);
    assert_eq!(kind, ConnectErrorKind::Refused);
    assert_eq!((last, tried), (Some(deaf.addr.into()), 1));
    let expected = format!("connect to {}: nobody listens there: ", deaf.addr);
    assert!(text.starts_with(&expected), "{text}");
    wait_until("the actor has gone", || caller.is_gone());
    let stats = system.stats();
    assert_eq!((stats.connected, stats.connect_failed), (0, 1));
    assert_eq!(stats.closed_by["not connected"], 1);
    assert_eq!((stats.opened, stats.closed), (1, 1));
    wait_until("its descriptor has gone", || {
        system.stats().connections == 0
    });
}

#[test]
fn a_connect_that_nobody_answers_ends_at_its_deadline() {
    let full = Full::new();
    let system = builder(1).build().unwrap();
    let (start, timeout) = (Instant::now(), Duration::from_millis(300));
    let (_caller, told) = call(&system, full.addr(), within(timeout));
    let (kind, last, tried, _) = failure(&told);
    assert_eq!(kind, ConnectErrorKind::TimedOut);
    assert_eq!((last, tried), (Some(full.addr().into()), 1));
    assert!(start.elapsed() >= timeout);
    wait_until("its descriptor has gone", || {
        system.stats().connections == 0
    });
}

#[test]
fn an_address_that_is_closed_meanwhile_ends_the_connect_at_once() {
    let full = Full::new();
    let system = builder(1).build().unwrap();
    let (caller, told) = call(&system, full.addr(), within(Duration::from_secs(3600)));
    for message in 1..=3 {
        caller.send(message).unwrap();
    }
    caller.close();
    let (kind, ..) = failure(&told);
    assert_eq!(kind, ConnectErrorKind::Closed);
    wait_until("what waited for it is counted", || {
        system.stats().dead_letters == 3
    });
    assert!(caller.send(4).unwrap_err().is_gone());
    // One that is closed while the connect is long under way.
    let (caller, told) = call(&system, full.addr(), within(Duration::from_secs(3600)));
    wait_until("it is under way", || system.stats().connections == 1);
    caller.close();
    assert_eq!(failure(&told).0, ConnectErrorKind::Closed);
    wait_until("its descriptor has gone", || {
        system.stats().connections == 0
    });
}

#[test]
fn the_stop_of_the_system_ends_a_connect_at_once() {
    let full = Full::new();
    let system = builder(2).build().unwrap();
    let (_caller, told) = call(&system, full.addr(), within(Duration::from_secs(3600)));
    wait_until("it is under way", || system.stats().connections == 1);
    let handle = system.handle();
    handle.stop(Duration::from_secs(3600));
    // The end of the run is there without the deadline.
    system.run().unwrap();
    assert_eq!(failure(&told).0, ConnectErrorKind::Stopped);
    assert_eq!(handle.stats().connections, 0);
}

#[test]
fn nothing_is_connected_while_the_system_stops() {
    let server = Stage::new();
    let system = builder(1).build().unwrap();
    let to = Remote::from(server.listener.local_addr());
    let (told, receiver) = channel();
    // Keeps the system from ending.
    let listener = system.listen("127.0.0.1:0", |_peer| Keeps).unwrap();
    let client = connect(&listener);
    wait_until("it is there", || system.stats().opened == 1);
    let mut told = Some(told);
    let probe = spawn(&system, 0, move |probe| {
        probe.on_stopping(move |ctx| {
            let told = told.take().expect("`stopping` is called once");
            ctx.connect(to.clone(), Caller { told });
            Ok(())
        })
    });
    system.handle().stop(Duration::from_secs(3600));
    assert_eq!(failure(&receiver).0, ConnectErrorKind::Stopped);
    drop(client);
    system.run().unwrap();
    drop(probe);
}

/// A connection that does not end because the system stops.
struct Keeps;

impl Actor for Keeps {
    type Message = ();

    fn stopping(&mut self, _deadline: Instant, _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }
}

#[test]
fn a_peer_that_resets_at_once_ends_it_in_one_of_two_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let system = builder(1).build().unwrap();
    for _ in 0..200 {
        let (_caller, told) = call(&system, addr, ConnectOptions::new());
        let (client, _) = listener.accept().unwrap();
        reset(client);
        // The reset may come before the poller looks, or behind.
        match next(&told) {
            Told::Opened { .. } => assert_eq!(next(&told), Told::Closed("reset")),
            Told::NotConnected { kind, .. } => assert_eq!(kind, ConnectErrorKind::Reset),
            other => panic!("{other:?}"),
        }
        assert!(told.recv().is_err());
    }
    let stats = system.stats();
    assert_eq!(stats.connected + stats.connect_failed, 200);
}

/// The reset is there before the poller has looked: the actor is told of no connection.
#[test]
fn a_peer_that_resets_during_the_connect_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let system = builder(1).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    for _ in 0..20 {
        let (told, receiver) = channel();
        let (entered, is_held) = channel();
        let (release, released) = channel::<()>();
        probe.tell(move |ctx| {
            ctx.connect(addr, Caller { told });
            // In the turn in which the connect begins the poller stands still behind it, and looks at
            // its sockets in the next one.
            ctx.addr().send(Box::new(move |_| {
                let _ = entered.send(());
                let _ = released.recv_timeout(TIMEOUT);
                Ok(())
            }))?;
            Ok(())
        });
        next(&is_held);
        let (client, _) = listener.accept().unwrap();
        reset(client);
        drop(release);
        let (kind, last, tried, text) = failure(&receiver);
        assert_eq!(kind, ConnectErrorKind::Reset, "{text}");
        assert_eq!((last, tried), (Some(addr.into()), 1));
    }
    wait_until("the descriptors have gone", || {
        system.stats().connections == 0
    });
}

#[test]
fn a_connect_that_meets_itself_is_refused_and_leaves_its_port_free() {
    let system = builder(1).build().unwrap();
    let mut met = 0;
    for _ in 0..20 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = port.local_addr().unwrap();
        drop(port);
        let itself = ConnectOptions::new().local_addr(addr);
        let (_caller, told) = call(&system, addr, itself);
        let (kind, _, _, text) = failure(&told);
        // Somebody else may have been given the port meanwhile, but not each time.
        if kind == ConnectErrorKind::Refused && text.contains("connected with itself") {
            met += usize::from(can_be_bound(addr));
        }
    }
    assert!(met > 0);
}

/// Whether the port is free without SO_REUSEADDR: that, which std sets, would hide a connection that
/// has ended and is remembered.
fn can_be_bound(to: SocketAddr) -> bool {
    bind_socket(&socket(), to).is_ok()
}

#[test]
fn without_a_descriptor_a_connect_ends_at_once() {
    in_child("without_a_descriptor_a_connect_ends_at_once", 64, || {
        let server = Stage::new();
        let system = builder(1).build().unwrap();
        let mut held = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            held.push(file);
        }
        let to = server.listener.local_addr();
        let (_caller, told) = call(&system, to, within(Duration::from_secs(3600)));
        let (kind, last, tried, _) = failure(&told);
        assert_eq!(kind, ConnectErrorKind::NoDescriptors);
        assert_eq!((last, tried), (Some(to.clone()), 1));
        held.clear();
        let (_caller, told) = call(&system, to, ConnectOptions::new());
        assert!(matches!(next(&told), Told::Opened { .. }));
    });
}

#[test]
fn a_local_address_that_cannot_be_had_is_told_as_such() {
    let server = Stage::new();
    let system = builder(1).build().unwrap();
    let to = server.listener.local_addr();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    for local in [
        // For documentation: no machine has it.
        SocketAddr::from(([192, 0, 2, 1], 0)),
        taken.local_addr().unwrap(),
        "[::1]:0".parse().unwrap(),
    ] {
        let (_caller, told) = call(&system, to, ConnectOptions::new().local_addr(local));
        let (kind, _, _, text) = failure(&told);
        assert_eq!(kind, ConnectErrorKind::LocalAddress, "{text}");
    }
}

#[test]
fn paths_of_unix_sockets_that_lead_nowhere() {
    let system = builder(1).build().unwrap();
    let dir = TempDir::new();
    let dead = dir.join("dead");
    drop(UnixListener::bind(&dead).unwrap());
    let file = dir.join("file");
    std::fs::write(&file, "no socket").unwrap();
    let long = PathBuf::from("/".repeat(200));
    for (path, expected) in [
        (dir.join("nobody"), ConnectErrorKind::NoSuchPath),
        (file.join("below"), ConnectErrorKind::NoSuchPath),
        (dead.clone(), ConnectErrorKind::Refused),
        (file.clone(), ConnectErrorKind::Refused),
        (long, ConnectErrorKind::InvalidPath),
        (PathBuf::new(), ConnectErrorKind::InvalidPath),
    ] {
        let (_caller, told) = call(&system, path.clone(), ConnectOptions::new());
        let (kind, last, _, text) = failure(&told);
        assert_eq!(kind, expected, "{text}");
        assert_eq!(last, Some(Endpoint::Unix(path)));
    }
}

#[test]
fn a_unix_socket_whose_backlog_is_full_is_tried_again_until_it_has_room() {
    let dir = TempDir::new();
    let path = dir.join("socket");
    let options = ListenOptions::new().backlog(0).max_connections(1);
    let endpoint = format!("unix:{}", path.display());
    let server = Stage::listen(builder(1), &endpoint, options, |probe| probe);
    let system = builder(1).build().unwrap();
    let to = server.listener.local_addr();
    let (served, told) = call(&system, to, ConnectOptions::new());
    assert!(matches!(next(&told), Told::Opened { .. }));
    server.accepted();
    let (_waiting, told) = call(&system, to, ConnectOptions::new());
    assert!(matches!(next(&told), Told::Opened { .. }));

    let (start, timeout) = (Instant::now(), Duration::from_millis(300));
    let (_caller, told) = call(&system, to, within(timeout));
    let (kind, ..) = failure(&told);
    assert_eq!(kind, ConnectErrorKind::TimedOut);
    assert!(start.elapsed() >= timeout);

    let (_caller, told) = call(&system, to, within(TIMEOUT));
    served.close();
    assert!(matches!(next(&told), Told::Opened { .. }));
}

#[test]
fn connects_that_wait_take_no_time_of_the_processor() {
    in_child(
        "connects_that_wait_take_no_time_of_the_processor",
        1024,
        || {
            let dir = TempDir::new();
            let path = dir.join("socket");
            let options = ListenOptions::new().backlog(0).max_connections(1);
            let endpoint = format!("unix:{}", path.display());
            let server = Stage::listen(builder(1), &endpoint, options, |probe| probe);
            let (full, system) = (Full::new(), builder(1).build().unwrap());
            let there = [
                Remote::from(server.listener.local_addr()),
                full.addr().into(),
            ];
            for to in there.into_iter().cycle().take(10) {
                call(&system, to, within(Duration::from_secs(3600)));
            }
            wait_until("they are under way", || system.stats().connections >= 5);
            let clock = Clock::new();
            clock.assert_quiet(process_time);
        },
    );
}

#[test]
fn a_factory_that_panics_leaves_an_address_that_has_gone() {
    let server = Stage::new();
    let system = builder(1).build().unwrap();
    let to = server.listener.local_addr();
    let caller = system.connect(to, || -> Caller { panic!("no actor today") });
    wait_until("the panic is counted", || system.stats().panics == 1);
    wait_until("nobody is there", || caller.is_gone());
    assert_eq!(system.stats().connected, 0);
}

#[test]
fn connects_that_come_to_nothing_leave_no_descriptor() {
    in_child(
        "connects_that_come_to_nothing_leave_no_descriptor",
        1024,
        || {
            let (deaf, full, server) = (Deaf::new(), Full::new(), Stage::new());
            let system = builder(2).build().unwrap();
            let at_rest = descriptors();
            let (told, receiver) = channel();
            let connect = |to: Remote, options: ConnectOptions| {
                let told = told.clone();
                system.connect_with(to, options, move || Caller { told })
            };
            for round in 0..100 {
                connect(deaf.addr.into(), ConnectOptions::new());
                connect(full.addr().into(), within(Duration::from_millis(10)));
                connect(full.addr().into(), within(TIMEOUT)).close();
                let served = connect(server.listener.local_addr().into(), ConnectOptions::new());
                let mut left = 4;
                while left > 0 {
                    match next(&receiver) {
                        Told::Opened { .. } => served.close(),
                        Told::NotConnected { .. } | Told::Closed(_) => left -= 1,
                        other => panic!("{other:?}"),
                    }
                }
                assert!(system.stats().opened <= 4 * (round + 1));
            }
            wait_until("all descriptors come back", || descriptors() == at_rest);
            let stats = system.stats();
            assert_eq!((stats.connected, stats.connect_failed), (100, 300));
        },
    );
}

/// A full server that has room again serves those whose connects are still on their way.
#[test]
fn a_connect_that_waits_for_an_answer_gets_it() {
    let mut full = Full::new();
    let system = builder(1).build().unwrap();
    let (_caller, told) = call(&system, full.addr(), within(TIMEOUT));
    wait_until("it is under way", || system.stats().connections == 1);
    for mut client in full.clients.drain(..) {
        client.write_all(b"bye").unwrap();
        half_close(&client);
        let _ = client.read(&mut [0; 1]);
    }
    // The kernel sends its connect again a second later.
    assert!(matches!(next(&told), Told::Opened { .. }));
}

// ---- names --------------------------------------------------------------------------------------

#[test]
fn a_name_is_looked_up_and_its_addresses_are_tried_in_turn() {
    use std::net::ToSocketAddrs;
    // On IPv4 alone: where `localhost` is an IPv6 address, too, nobody listens at that one.
    let server = Stage::new();
    let system = builder(2).build().unwrap();
    let port = tcp_addr(&server.listener).port();
    let remote: Remote = format!("localhost:{port}").parse().unwrap();
    assert!(matches!(remote, Remote::Name { .. }));
    let (caller, told) = call(&system, remote, ConnectOptions::new());
    let peer = Some(Peer::Tcp(tcp_addr(&server.listener)));
    assert_eq!(next(&told), Told::Opened { peer });
    caller.close();

    let deaf = Deaf::new();
    let remote: Remote = format!("localhost:{}", deaf.addr.port()).parse().unwrap();
    let addrs = ("localhost", deaf.addr.port()).to_socket_addrs().unwrap();
    let (_caller, told) = call(&system, remote, ConnectOptions::new());
    let (kind, last, tried, text) = failure(&told);
    assert_eq!(kind, ConnectErrorKind::Refused);
    assert_eq!(last, addrs.clone().last().map(Endpoint::from), "{text}");
    assert_eq!(tried, addrs.count());
}

#[test]
fn addresses_of_another_family_than_the_local_one_are_left_out() {
    let server = Stage::new();
    let system = builder(1).build().unwrap();
    let port = tcp_addr(&server.listener).port();
    let remote: Remote = format!("localhost:{port}").parse().unwrap();
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let (_caller, told) = call(&system, remote, ConnectOptions::new().local_addr(local));
    assert!(matches!(next(&told), Told::Opened { .. }));
}

#[test]
fn a_name_that_nobody_knows_is_told_as_such() {
    let system = builder(1).build().unwrap();
    // Reserved: no name server ever knows it. Without one it is not known whether it does.
    let remote: Remote = "no-such-host.invalid:80".parse().unwrap();
    let (_caller, told) = call(&system, remote, within(TIMEOUT));
    let (kind, last, tried, text) = failure(&told);
    let kinds = [ConnectErrorKind::NoSuchName, ConnectErrorKind::LookupFailed];
    assert!(kinds.contains(&kind), "{text}");
    assert_eq!((last, tried), (None, 0));
    assert!(
        text.starts_with("connect to no-such-host.invalid:80: "),
        "{text}"
    );
}

#[test]
fn a_text_that_is_no_remote_is_refused_where_it_is_made_one() {
    use RemoteErrorKind::*;
    let long = format!("{}:80", "a".repeat(254));
    let deep = format!("unix:/{}", "a".repeat(200));
    for (text, kind) in [
        ("", Port),
        ("host", Port),
        ("host:", Port),
        ("host:0", Port),
        ("host:+80", Port),
        ("host:65536", Port),
        ("127.0.0.1:0", Port),
        ("[::1]", Port),
        (":80", Host),
        ("::1:80", Host),
        ("two words:80", Host),
        ("http://host:80", Host),
        ("[fe80::1:80", Host),
        (&long, Host),
        ("unix:", Path),
        (&deep, Path),
    ] {
        let error = text.parse::<Remote>().unwrap_err();
        assert_eq!(error.kind(), kind, "{text}: {error}");
        let error = std::io::Error::from(error);
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
    for text in [
        "db.example:5432",
        "127.0.0.1:9000",
        "[::1]:9000",
        "[fe80::1%2]:9000",
        "unix:/run/x.sock",
        "a_b-c:1",
    ] {
        assert_eq!(text.parse::<Remote>().unwrap().to_string(), text);
    }
}

#[test]
fn an_actor_that_is_to_be_connected_by_a_system_that_has_ended_has_gone() {
    let system = builder(1).build().unwrap();
    let handle = system.handle();
    handle.stop(Duration::ZERO);
    system.run().unwrap();
    let (told, _) = channel();
    let nowhere: SocketAddr = (Ipv4Addr::LOCALHOST, 9).into();
    let addr = handle.connect(nowhere, move || Caller { told });
    assert!(addr.is_gone());
    assert!(addr.send(1).is_err());
}

// ---- in a network of the test's own -------------------------------------------------------------

/// One end of a cable has the address 10.77.0.1/24. At its other end everybody is silent; 10.77.0.3 is
/// not even known there, others are. The name server is to be at 127.0.0.1.
const NETWORK: &str = "ip link set lo up \
    && ip link add va type veth peer name vb && ip addr add 10.77.0.1/24 dev va \
    && ip link set va up && ip link set vb up \
    && ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 dev va \
    && ip neigh add 10.77.0.4 lladdr 02:00:00:00:00:04 dev va \
    && echo 1 > /proc/sys/net/ipv4/neigh/va/mcast_solicit \
    && echo 10 > /proc/sys/net/ipv4/neigh/va/retrans_time_ms \
    && ip route add unreachable 198.51.100.0/25 && ip route add blackhole 198.51.100.128/25 \
    && ip route add prohibit 203.0.113.0/24 \
    && mount -t tmpfs none /mnt \
    && printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' > /mnt/resolv.conf \
    && mount --bind /mnt/resolv.conf /etc/resolv.conf";

#[test]
fn where_no_way_leads_is_told_by_its_kind() {
    network::in_own_network("where_no_way_leads_is_told_by_its_kind", NETWORK, || {
        use ConnectErrorKind::*;
        let system = builder(1).build().unwrap();
        for (to, kind) in [
            ("192.0.2.1:9", NetworkUnreachable),
            ("[2001:db8::1]:9", NetworkUnreachable),
            ("198.51.100.1:9", HostUnreachable),
            // Told by nobody but the kernel's own search for it, some time later.
            ("10.77.0.3:9", HostUnreachable),
            // Not in words of a way: the system says that the address is invalid.
            ("198.51.100.129:9", HostUnreachable),
            ("[fe80::1]:9", HostUnreachable),
            ("203.0.113.1:9", PermissionDenied),
        ] {
            let to: Remote = to.parse().unwrap();
            let (_caller, told) = call(&system, &to, within(TIMEOUT));
            let (failed, _, tried, text) = failure(&told);
            assert_eq!((failed, tried), (kind, 1), "{text}");
            assert!(
                text.starts_with(&format!("connect to {to}: {kind}: ")),
                "{text}"
            );
        }
    });
}

#[test]
fn where_packets_vanish_a_connect_ends_at_its_deadline() {
    let name = "where_packets_vanish_a_connect_ends_at_its_deadline";
    network::in_own_network(name, NETWORK, || {
        name_server();
        let system = builder(1).build().unwrap();
        for (to, addrs) in [("10.77.0.2:9", 1), ("vanish.test:9", 2)] {
            let (start, timeout) = (Instant::now(), Duration::from_millis(300));
            let to: Remote = to.parse().unwrap();
            let (_caller, told) = call(&system, to, within(timeout));
            let (kind, last, tried, text) = failure(&told);
            assert_eq!(kind, ConnectErrorKind::TimedOut, "{text}");
            assert!(start.elapsed() >= timeout);
            // Under a load that leaves the lookup no time, none is tried.
            assert!(tried <= addrs && last.is_some() == (tried > 0), "{text}");
        }
    });
}

#[test]
fn what_a_name_server_says_is_what_is_tried_or_told() {
    let name = "what_a_name_server_says_is_what_is_tried_or_told";
    network::in_own_network(name, NETWORK, || {
        use ConnectErrorKind::*;
        name_server();
        let system = builder(2).build().unwrap();
        // Nobody listens at the first address of the name.
        let server = TcpListener::bind("127.0.0.3:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let to: Remote = format!("several.test:{port}").parse().unwrap();
        let (_caller, told) = call(&system, to, within(TIMEOUT));
        let peer = Some(Peer::Tcp(server.local_addr().unwrap()));
        assert_eq!(next(&told), Told::Opened { peer });

        for (name, kind, addrs) in [
            // Of 20 addresses 16 are tried.
            ("many", Refused, 16),
            ("unknown", NoSuchName, 0),
            ("empty", NoSuchName, 0),
            ("broken", LookupFailed, 0),
            // In the end the system's resolver gives up.
            ("mute", LookupFailed, 0),
        ] {
            let to: Remote = format!("{name}.test:9").parse().unwrap();
            let (_caller, told) = call(&system, to, within(TIMEOUT));
            let (failed, last, tried, text) = failure(&told);
            assert_eq!((failed, tried), (kind, addrs), "{text}");
            assert_eq!(last.is_some(), addrs > 0, "{text}");
        }
        // Addresses of another family than ours are left out, and hide nothing of why the others failed.
        for (local, last) in [("[::1]:0", "[::1]:9"), ("127.0.0.1:0", "127.0.0.2:9")] {
            let options = within(TIMEOUT).local_addr(local.parse().unwrap());
            let to: Remote = "both.test:9".parse().unwrap();
            let (_caller, told) = call(&system, to, options);
            let (kind, tried_last, tried, text) = failure(&told);
            let last: SocketAddr = last.parse().unwrap();
            let expected = (Refused, Some(last.into()), 1);
            assert_eq!((kind, tried_last, tried), expected, "{text}");
        }
        let options = within(TIMEOUT).local_addr("[::1]:0".parse().unwrap());
        let to: Remote = "several.test:9".parse().unwrap();
        let (_caller, told) = call(&system, to, options);
        let (kind, last, tried, text) = failure(&told);
        assert_eq!((kind, last, tried), (LocalAddress, None, 0), "{text}");
        // No deadline waits for it.
        let to: Remote = "mute.test:9".parse().unwrap();
        let (_caller, told) = call(&system, to, within(Duration::from_millis(50)));
        let (kind, last, tried, text) = failure(&told);
        assert_eq!((kind, last, tried), (TimedOut, None, 0), "{text}");
    });
}

/// Answers for the names of the tests above, from a thread of its own.
fn name_server() {
    let server = UdpSocket::bind("127.0.0.1:53").unwrap();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        loop {
            let (len, from) = server.recv_from(&mut query).unwrap();
            // A header of 12 bytes, the labels of the name behind their lengths, type and class.
            let labels = query[12..len].iter().position(|byte| *byte == 0).unwrap();
            let end = 12 + labels + 5;
            let is_v4 = query[end - 4..end - 2] == [0, 1];
            let label = &query[13..13 + usize::from(query[12])];
            let (code, mut addrs): (u8, Vec<IpAddr>) = match label {
                b"several" => (0, (2..=3).map(|last| [127, 0, 0, last].into()).collect()),
                b"many" => (0, (1..=20).map(|last| [127, 0, 1, last].into()).collect()),
                b"both" => (0, vec![Ipv6Addr::LOCALHOST.into(), [127, 0, 0, 2].into()]),
                b"vanish" => (0, vec![[10, 77, 0, 2].into(), [10, 77, 0, 4].into()]),
                b"empty" => (0, Vec::new()),
                b"broken" => (2, Vec::new()),
                b"mute" => continue,
                _ => (3, Vec::new()),
            };
            addrs.retain(|addr| addr.is_ipv4() == is_v4);
            let mut answer = query[..2].to_vec();
            answer.extend([0x81, 0x80 | code, 0, 1, 0, addrs.len() as u8, 0, 0, 0, 0]);
            answer.extend(&query[12..end]);
            for addr in addrs {
                // The name as above, the type and class as asked for, for now, the address.
                answer.extend([0xc0, 12]);
                answer.extend(&query[end - 4..end]);
                answer.extend([0; 4]);
                match addr {
                    IpAddr::V4(addr) => answer.extend([0, 4].iter().chain(&addr.octets())),
                    IpAddr::V6(addr) => answer.extend([0, 16].iter().chain(&addr.octets())),
                }
            }
            server.send_to(&answer, from).unwrap();
        }
    });
}
