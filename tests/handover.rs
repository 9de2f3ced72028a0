//! Listeners that are there already: from std, from whoever started the process, and from the process
//! that it replaces.

mod util;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use greenroom::handover::{Handover, HandoverError, Inherited, Successor};
use greenroom::testing::Simulation;
use greenroom::*;
use util::{TIMEOUT, TempDir, builder, descriptors, in_child, next, read, read_to_end, wait_until};

/// Says who it is, and echoes. Stays when the system stops, until its client leaves.
struct Server(&'static str);

impl Actor for Server {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(self.0);
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }

    fn stopping(&mut self, _deadline: std::time::Instant, _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }
}

#[track_caller]
fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Soon: a process that another test is just starting has what is open here until it is the other
/// program.
#[track_caller]
fn nobody_listens(is_refused: impl FnMut() -> bool) {
    wait_until("nobody listens", is_refused);
}

#[track_caller]
fn tcp(listener: &Listener) -> SocketAddr {
    util::tcp_addr(listener)
}

// ---- from std -----------------------------------------------------------------------------------

#[test]
fn a_listener_of_std_is_served_with_whoever_waits_on_it() {
    let bound = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = bound.local_addr().unwrap();
    let early = connect(addr);
    let system = builder(2).build().unwrap();
    let listener = system
        .listen_from(bound, ListenOptions::new(), |_| Server("one"))
        .unwrap();
    assert_eq!(listener.local_addr(), &Endpoint::Tcp(addr));
    assert_eq!(read(&early, 3), b"one");
    let late = connect(addr);
    assert_eq!(read(&late, 3), b"one");
    assert_eq!(system.stats().accepted, 2);
    listener.close();
    listener.wait_closed(TIMEOUT).unwrap();
    nobody_listens(|| TcpStream::connect(addr).is_err());
}

#[test]
fn the_file_of_a_unix_listener_is_left_to_whoever_bound_it() {
    let dir = TempDir::new();
    let path = dir.join("socket");
    let bound = UnixListener::bind(&path).unwrap();
    let system = builder(1).build().unwrap();
    let listener = system
        .listen_from(bound, ListenOptions::new(), |_| Server("one"))
        .unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.read_exact(&mut [0; 3]).unwrap();
    listener.close();
    listener.wait_closed(TIMEOUT).unwrap();
    assert!(path.exists());
    nobody_listens(|| UnixStream::connect(&path).is_err());
}

#[test]
fn what_does_not_listen_is_refused_and_given_back() {
    let system = builder(2).build().unwrap();
    let (pipe, _writer) = io::pipe().unwrap();
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = connect(listening.local_addr().unwrap());
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Two names that are no paths.
    let nameless = ["one", "other"].map(|name| {
        let name = format!("greenroom-{name}-{}", std::process::id());
        let addr = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
        UnixListener::bind_addr(&addr).unwrap().into()
    });
    let cases: [(Vec<OwnedFd>, &str); 6] = [
        (vec![pipe.into()], "it is a pipe, not a socket"),
        (vec![client.into()], "it is a connection"),
        (vec![udp.into()], "the socket does not listen"),
        (vec![], "there is no socket"),
        (vec![listening.into(), other.into()], "are two listeners"),
        (nameless.into(), "are two listeners"),
    ];
    for (fds, text) in cases {
        let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let error = system
            .listen_from(fds, ListenOptions::new(), |_| Server("one"))
            .unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        let back = error.into_sockets().into_fds();
        let back: Vec<_> = back.iter().map(AsRawFd::as_raw_fd).collect();
        assert_eq!(back, numbers);
    }
    let bound = || TcpListener::bind("127.0.0.1:0").unwrap();
    let options = ListenOptions::new().pollers([7]);
    let error = system.listen_from(bound(), options, |_| Server("one"));
    assert!(error.unwrap_err().to_string().contains("no poller 7"));

    let mut simulation = Simulation::new(1);
    let simulated = simulation.system(System::builder());
    let error = simulated
        .listen_from(bound(), ListenOptions::new(), |_| Server("one"))
        .unwrap_err();
    assert!(error.to_string().contains("simulated"), "{error}");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::Unsupported);
}

// ---- from whoever started the process -----------------------------------------------------------

/// Set for the process that is started with sockets.
const STARTED: &str = "GREENROOM_STARTED_WITH_SOCKETS";

#[test]
fn a_process_serves_the_sockets_that_it_is_started_with() {
    let name = "a_process_serves_the_sockets_that_it_is_started_with";
    if std::env::var_os(STARTED).is_some() {
        return started();
    }
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let (web_addr, admin_addr) = (web.local_addr().unwrap(), admin.local_addr().unwrap());
    // Waits while nobody runs.
    let early = connect(web_addr);
    let (mut pipe, writer) = io::pipe().unwrap();
    let child = Command::new("sh")
        // As systemd does it: descriptors from 3 on, and the process id of the program itself.
        .args([
            "-c",
            "exec 3<&0 4<&2 5<&1 </dev/null >/dev/null 2>&1; LISTEN_PID=$$ exec \"$@\"",
            "sh",
        ])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--test-threads=1"])
        .env(STARTED, "1")
        .env("LISTEN_FDS", "3")
        .env("LISTEN_FDNAMES", "web:web:pipe")
        .stdin(Stdio::from(OwnedFd::from(web)))
        .stderr(Stdio::from(OwnedFd::from(admin)))
        .stdout(Stdio::from(OwnedFd::from(writer)))
        .spawn();
    let mut child = child.unwrap();
    assert_eq!(read(&early, 3), b"web");
    assert_eq!(read(connect(admin_addr), 5), b"admin");
    let mut told = String::new();
    drop(early);
    pipe.read_to_string(&mut told).unwrap();
    assert_eq!(told, "closed on exec, taken once");
    assert!(child.wait().unwrap().success());
}

/// The process that was started.
fn started() {
    let mut sockets = activation::sockets().unwrap();
    assert_eq!(sockets.names().collect::<Vec<_>>(), ["web", "web", "pipe"]);
    let system = builder(1).build().unwrap();
    // Two addresses of one name.
    let web = sockets.take_each("web").unwrap();
    let listeners = web.into_iter().zip(["web", "admin"]);
    let listeners = listeners.map(|(sockets, name)| {
        system
            .listen_from(sockets, ListenOptions::new(), move |_| Server(name))
            .unwrap()
    });
    assert_eq!(listeners.count(), 2);
    assert!(sockets.take("web").is_none());
    // What does not listen comes back.
    let pipe = sockets.take("pipe").unwrap();
    let error = system.listen_from(pipe, ListenOptions::new(), |_| Server("pipe"));
    let error = error.unwrap_err();
    assert!(error.to_string().contains("is a pipe"), "{error}");
    let mut pipe = fs::File::from(error.into_sockets().into_fds().remove(0));
    wait_until("both were served", || system.stats().accepted == 2);
    wait_until("both have left", || system.stats().connections == 0);
    assert!(matches!(
        activation::sockets(),
        Err(activation::ActivationError::Taken)
    ));
    // A program that is started here sees none of them.
    let inherited = Command::new("sh")
        .args(["-c", "ls /proc/self/fd"])
        .output()
        .unwrap();
    let inherited = String::from_utf8(inherited.stdout).unwrap();
    assert!(
        !inherited.lines().any(|fd| fd == "4" || fd == "5"),
        "{inherited}"
    );
    pipe.write_all(b"closed on exec, taken once").unwrap();
}

#[test]
fn without_variables_there_is_nothing_and_it_is_no_error() {
    in_child(
        "without_variables_there_is_nothing_and_it_is_no_error",
        256,
        || {
            let mut sockets = activation::sockets().unwrap();
            assert_eq!(sockets.names().count(), 0);
            assert!(sockets.take("web").is_none() && sockets.take_all().is_empty());
        },
    );
}

// ---- from the process that it replaces ----------------------------------------------------------

/// A generation of a server, in this process: what the next one takes over from.
struct Generation {
    system: System,
    waits: JoinHandle<Result<Successor, HandoverError>>,
    canceller: handover::Canceller,
}

/// Offers the listeners, and waits on a thread.
fn offer(system: System, mut handover: Handover, listeners: &[(&str, &Listener)]) -> Generation {
    for (name, listener) in listeners {
        handover.add(*name, listener);
    }
    let canceller = handover.canceller();
    let waits = std::thread::spawn(move || handover.wait());
    Generation {
        system,
        waits,
        canceller,
    }
}

/// One that listens on a port of its own.
fn first(path: &Path, options: ListenOptions, pollers: usize) -> (Generation, SocketAddr) {
    let system = builder(pollers).build().unwrap();
    let listener = system
        .listen_with("127.0.0.1:0", options, |_| Server("one"))
        .unwrap();
    let addr = tcp(&listener);
    let handover = Handover::offer(path).unwrap();
    (offer(system, handover, &[("web", &listener)]), addr)
}

#[track_caller]
fn take(path: &Path) -> Inherited {
    Handover::take(path, TIMEOUT).unwrap().expect("one offers")
}

#[test]
fn nobody_there_is_a_first_start() {
    let dir = TempDir::new();
    let path = dir.join("handover");
    assert!(Handover::take(&path, TIMEOUT).unwrap().is_none());
    // A dead one's leftover is another.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    nobody_listens(|| matches!(Handover::take(&path, TIMEOUT), Ok(None)));
    let handover = Handover::offer(&path).unwrap();
    let error = Handover::offer(&path).unwrap_err();
    assert!(error.to_string().contains("another server"), "{error}");
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(handover);
    assert!(!path.exists());
}

#[test]
fn every_socket_goes_over_with_whoever_waits_and_the_old_one_drains() {
    for options in [
        ListenOptions::new(),
        ListenOptions::new().balance(Balance::PerPoller),
    ] {
        let dir = TempDir::new();
        let path = dir.join("handover");
        let (old, addr) = first(&path, options.clone(), 3);
        let mut guest = connect(addr);
        assert_eq!(read(&guest, 3), b"one");

        let mut inherited = take(&path);
        assert_eq!(inherited.pid(), std::process::id());
        assert_eq!(inherited.names().collect::<Vec<_>>(), ["web"]);
        let sockets = inherited.take("web").unwrap();
        assert_eq!(sockets.local_addr().unwrap(), Endpoint::Tcp(addr));
        // The new one has fewer pollers than there are sockets, or more.
        let new = builder(2).build().unwrap();
        let listener = new
            .listen_from(sockets, options, |_| Server("two"))
            .unwrap();
        // Both accept; nobody is turned away.
        for _ in 0..8 {
            read(connect(addr), 3);
        }
        let handover = inherited.confirm().unwrap();
        assert_eq!(old.waits.join().unwrap().unwrap().pid, std::process::id());
        for _ in 0..8 {
            assert_eq!(read(connect(addr), 3), b"two");
        }
        old.system.handle().stop(Duration::from_secs(3600));
        guest.write_all(b"still served").unwrap();
        assert_eq!(read(&guest, 12), b"still served");
        drop(guest);
        old.system.run().unwrap();
        assert_eq!(read(connect(addr), 3), b"two");
        let new = offer(new, handover, &[("web", &listener)]);
        assert!(path.exists(), "the new one offers there");
        new.canceller.cancel();
        let cancelled = new.waits.join().unwrap();
        assert!(matches!(cancelled, Err(HandoverError::Cancelled)));
        assert!(!path.exists());
    }
}

#[test]
fn connects_that_nobody_has_accepted_are_served_by_the_next() {
    for options in [
        ListenOptions::new(),
        ListenOptions::new().balance(Balance::PerPoller),
    ] {
        let dir = TempDir::new();
        let path = dir.join("handover");
        // At its limit, so that they wait in the backlogs of all its sockets.
        let full = options.clone().max_connections(1);
        let (old, addr) = first(&path, full, 3);
        let guest = connect(addr);
        assert_eq!(read(&guest, 3), b"one");
        let waiting: Vec<_> = (0..30).map(|_| connect(addr)).collect();
        let mut inherited = take(&path);
        let new = builder(3).build().unwrap();
        let sockets = inherited.take("web").unwrap();
        let _listener = new
            .listen_from(sockets, options, |_| Server("two"))
            .unwrap();
        let _handover = inherited.confirm().unwrap();
        old.waits.join().unwrap().unwrap();
        drop(guest);
        drop(old.system);
        for client in waiting {
            assert_eq!(read(&client, 3), b"two");
        }
    }
}

#[test]
fn a_unix_socket_keeps_its_file_and_the_last_one_removes_it() {
    let dir = TempDir::new();
    let (path, socket) = (dir.join("handover"), dir.join("socket"));
    let system = builder(1).build().unwrap();
    let listener = system.listen(socket.clone(), |_| Server("one")).unwrap();
    let mut old = offer(
        system,
        Handover::offer(&path).unwrap(),
        &[("unix", &listener)],
    );
    for name in ["two", "tri", "fou"] {
        // One that fails after it has listened, and takes the file with it in no case.
        let mut inherited = take(&path);
        let failing = builder(1).build().unwrap();
        let sockets = inherited.take("unix").unwrap();
        let _ = failing.listen_from(sockets, ListenOptions::new(), |_| Server("bad"));
        drop(failing);
        drop(inherited);
        assert!(socket.exists());

        let mut inherited = take(&path);
        let system = builder(1).build().unwrap();
        let at = Endpoint::from(socket.clone());
        let sockets = inherited.take_at(&at).unwrap();
        let listener = system
            .listen_from(sockets, ListenOptions::new(), move |_| Server(name))
            .unwrap();
        let handover = inherited.confirm().unwrap();
        old.waits.join().unwrap().unwrap();
        old.system.handle().stop(Duration::ZERO);
        old.system.run().unwrap();
        assert!(socket.exists());
        let mut client = UnixStream::connect(&socket).unwrap();
        let mut greeting = [0; 3];
        client.read_exact(&mut greeting).unwrap();
        assert_eq!(greeting, name.as_bytes());
        old = offer(system, handover, &[("unix", &listener)]);
    }
    old.system.handle().stop(Duration::ZERO);
    old.system.run().unwrap();
    assert!(!socket.exists());
    old.canceller.cancel();
}

#[test]
fn a_successor_that_dies_leaves_all_as_it_was() {
    let dir = TempDir::new();
    let path = dir.join("handover");
    let (old, addr) = first(&path, ListenOptions::new(), 2);
    // At once, after the sockets, and with a listener that accepts.
    drop(UnixStream::connect(&path).unwrap());
    drop(take(&path));
    let mut inherited = take(&path);
    let failing = builder(1).build().unwrap();
    let sockets = inherited.take("web").unwrap();
    let listening = failing.listen_from(sockets, ListenOptions::new(), |_| Server("bad"));
    assert!(listening.is_ok());
    drop(failing);
    drop(inherited);
    for _ in 0..8 {
        assert_eq!(read(connect(addr), 3), b"one");
    }
    assert!(!old.waits.is_finished());
    old.canceller.cancel();
    assert!(matches!(
        old.waits.join().unwrap(),
        Err(HandoverError::Cancelled)
    ));
    assert_eq!(read(connect(addr), 3), b"one", "an offer is no listener");
}

#[test]
fn what_nobody_has_taken_is_not_confirmed() {
    let dir = TempDir::new();
    let path = dir.join("handover");
    let (old, addr) = first(&path, ListenOptions::new(), 1);
    let error = take(&path).confirm().unwrap_err();
    assert!(matches!(&error, HandoverError::Untaken(names) if names == &["web"]));
    assert_eq!(read(connect(addr), 3), b"one");
    // Dropped on purpose: then it is closed.
    let mut inherited = take(&path);
    drop(inherited.take("web"));
    assert!(inherited.take("web").is_none());
    let _handover = inherited.confirm().unwrap();
    old.waits.join().unwrap().unwrap();
    nobody_listens(|| TcpStream::connect(addr).is_err());
}

#[test]
fn a_successor_that_never_confirms_is_refused() {
    let dir = TempDir::new();
    let path = dir.join("handover");
    let system = builder(1).build().unwrap();
    let listener = system.listen("127.0.0.1:0", |_| Server("one")).unwrap();
    let handover = Handover::offer(&path)
        .unwrap()
        .confirm_within(Duration::from_millis(20));
    let old = offer(system, handover, &[("web", &listener)]);
    let mut slow = take(&path);
    let sockets = slow.take("web");
    // The next one waits until the slow one was given up.
    drop(take(&path));
    let error = slow.confirm().unwrap_err();
    assert!(
        matches!(&error, HandoverError::Refused(why) if why.contains("in time")),
        "{error}"
    );
    drop(sockets);
    assert_eq!(read(connect(tcp(&listener)), 3), b"one");
    old.canceller.cancel();
}

/// What the two say to one another, by hand.
fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], body].concat()
}

#[test]
fn another_version_is_an_error_on_both_sides() {
    let dir = TempDir::new();
    let path = dir.join("handover");
    let (old, addr) = first(&path, ListenOptions::new(), 1);
    // A successor of the future.
    let mut stream = UnixStream::connect(&path).unwrap();
    stream
        .write_all(&frame(b"HGRNROOM\0\x07\0\x01\0\0\0and more"))
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(
        answer[..15],
        *b"\x0f\0\0\0HGRNROOM\0\x01\0",
        "it says its own"
    );
    let text = String::from_utf8_lossy(&answer[19..]).into_owned();
    assert!(text.contains("speaks version 7, this one 1"), "{text}");
    assert_eq!(read(connect(addr), 3), b"one");
    old.canceller.cancel();
    old.waits.join().unwrap().unwrap_err();

    // A predecessor of the future.
    let listener = UnixListener::bind(&path).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 19]).unwrap();
        stream
            .write_all(&frame(b"HGRNROOM\0\x07\0\x01\0\0\0"))
            .unwrap();
    });
    let error = Handover::take(&path, TIMEOUT).unwrap_err();
    assert!(matches!(
        error,
        HandoverError::Version { ours: 1, theirs: 7 }
    ));
    answering.join().unwrap();
}

#[test]
fn whoever_is_no_greenroom_is_found_out_on_both_sides() {
    let dir = TempDir::new();
    let path = dir.join("handover");
    let (old, addr) = first(&path, ListenOptions::new(), 1);
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &frame(b"?")[..],
        &frame(b"")[..],
    ] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(nonsense).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    assert_eq!(read(connect(addr), 3), b"one");
    old.canceller.cancel();
    old.waits.join().unwrap().unwrap_err();

    let listener = UnixListener::bind(&path).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // An end with something unread would be a reset, and what is said lost with it.
        stream.read_exact(&mut [0; 19]).unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        drop(stream);
        // And one that says nothing.
        listener.accept().map(|(stream, _)| stream)
    });
    let error = Handover::take(&path, TIMEOUT).unwrap_err();
    assert!(matches!(error, HandoverError::Protocol), "{error}");
    let error = Handover::take(&path, Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, HandoverError::TimedOut), "{error}");
    answering.join().unwrap().unwrap();
}

#[test]
fn a_predecessor_that_dies_is_told_from_one_that_goes_on() {
    let dir = TempDir::new();
    let path = dir.join("handover");
    // While the sockets are under way: there is nothing to go on with.
    let listener = UnixListener::bind(&path).unwrap();
    let dying = std::thread::spawn(move || drop(listener.accept()));
    let error = Handover::take(&path, TIMEOUT).unwrap_err();
    assert!(matches!(error, HandoverError::Lost), "{error}");
    dying.join().unwrap();
    // A first start.
    nobody_listens(|| matches!(Handover::take(&path, TIMEOUT), Ok(None)));

    // When all are here: by a process of its own, which is killed.
    fs::remove_file(&path).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["the_one_that_is_killed", "--exact", "--nocapture"])
        .env(KILLED, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("it offers", || path.exists());
    let mut inherited = loop {
        // Bound, and not listening yet.
        if let Some(inherited) = Handover::take(&path, TIMEOUT).unwrap() {
            break inherited;
        }
    };
    let sockets = inherited.take("web").unwrap();
    let Endpoint::Tcp(addr) = sockets.local_addr().unwrap() else {
        panic!("TCP");
    };
    // Somebody waits who has not been accepted, or has: then they are lost with the one that dies.
    child.kill().unwrap();
    child.wait().unwrap();
    let waits = connect(addr);
    let system = builder(1).build().unwrap();
    let listener = system
        .listen_from(sockets, ListenOptions::new(), |_| Server("two"))
        .unwrap();
    let handover = inherited.confirm().unwrap();
    assert_eq!(read(&waits, 3), b"two");
    let new = offer(system, handover, &[("web", &listener)]);
    drop(take(&path));
    new.canceller.cancel();
}

/// Where the process that is killed offers.
const KILLED: &str = "GREENROOM_KILLED";

#[test]
fn the_one_that_is_killed() {
    let Some(path) = std::env::var_os(KILLED) else {
        return;
    };
    let (old, _addr) = first(Path::new(&path), ListenOptions::new(), 1);
    let _ = old.waits.join();
}

#[test]
fn a_closed_listener_is_left_out_and_more_sockets_than_fit_one_message_go_over() {
    let dir = TempDir::new();
    let path = dir.join("handover");
    let system = builder(70).build().unwrap();
    let options = ListenOptions::new().balance(Balance::PerPoller);
    let many = system
        .listen_with("127.0.0.1:0", options, |_| Server("one"))
        .unwrap();
    let closed = system.listen("127.0.0.1:0", |_| Server("one")).unwrap();
    closed.close();
    closed.wait_closed(TIMEOUT).unwrap();
    let old = offer(
        system,
        Handover::offer(&path).unwrap(),
        &[("many", &many), ("closed", &closed)],
    );
    let mut inherited = take(&path);
    assert_eq!(inherited.names().collect::<Vec<_>>(), ["many"]);
    let sockets = inherited.take("many").unwrap().into_fds();
    assert_eq!(sockets.len(), 70);
    let _handover = inherited.confirm().unwrap();
    old.waits.join().unwrap().unwrap();
    assert!(many.is_closed());
    let client = connect(tcp(&many));
    drop(old.system);
    drop(client);
    drop(sockets);
}

#[test]
fn nothing_is_left_open_and_nothing_is_handed_down() {
    in_child(
        "nothing_is_left_open_and_nothing_is_handed_down",
        512,
        || {
            let dir = TempDir::new();
            let path = dir.join("handover");
            let before = descriptors();
            let options = ListenOptions::new().balance(Balance::PerPoller);
            let (mut old, addr) = first(&path, options.clone(), 2);
            let one_generation = descriptors();
            for round in 0..20 {
                drop(take(&path));
                let mut inherited = take(&path);
                let system = builder(2).build().unwrap();
                let sockets = inherited.take("web").unwrap();
                let listener = system
                    .listen_from(sockets, options.clone(), |_| Server("two"))
                    .unwrap();
                let handover = inherited.confirm().unwrap();
                old.waits.join().unwrap().unwrap();
                old.system.handle().stop(Duration::ZERO);
                old.system.run().unwrap();
                assert_eq!(read(connect(addr), 3), b"two");
                wait_until("the client has left", || system.stats().connections == 0);
                old = offer(system, handover, &[("web", &listener)]);
                // The thread that waits has a duplicate of the offer.
                wait_until("it offers", || descriptors() <= one_generation + 1);
                assert!(descriptors() <= one_generation + 1, "round {round}");
                let all = fs::read_dir("/proc/self/fd").unwrap();
                for fd in all.flatten() {
                    let number = fd.file_name().into_string().unwrap();
                    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}"));
                    let Ok(info) = info else { continue };
                    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
                    let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
                    let is_cloexec = flags & libc::O_CLOEXEC as u32 != 0;
                    let is_standard = number.parse::<u32>().unwrap() < 3;
                    let target = fs::read_link(fd.path()).unwrap_or_default();
                    let is_socket = target.to_string_lossy().starts_with("socket:");
                    assert!(
                        is_cloexec || is_standard || !is_socket,
                        "{number}: {target:?}"
                    );
                }
            }
            old.canceller.cancel();
            old.waits.join().unwrap().unwrap_err();
            old.system.handle().stop(Duration::ZERO);
            old.system.run().unwrap();
            assert_eq!(descriptors(), before);
        },
    );
}

#[test]
fn a_stop_of_the_old_one_during_the_handover_loses_nobody() {
    let dir = TempDir::new();
    let path = dir.join("handover");
    let (old, addr) = first(&path, ListenOptions::new().max_connections(1), 1);
    let _guest = connect(addr);
    let mut inherited = take(&path);
    let waiting = connect(addr);
    // It closes its listener in earnest; the socket is here, too.
    old.system.handle().stop(Duration::ZERO);
    old.system.run().unwrap();
    let system = builder(1).build().unwrap();
    let sockets = inherited.take("web").unwrap();
    let _listener = system
        .listen_from(sockets, ListenOptions::new(), |_| Server("two"))
        .unwrap();
    let _handover = inherited.confirm().unwrap();
    old.waits.join().unwrap().unwrap();
    assert_eq!(read(&waiting, 3), b"two");
    drop(read_to_end(connect_and_close(addr)));
}

fn connect_and_close(addr: SocketAddr) -> TcpStream {
    let client = connect(addr);
    util::half_close(&client);
    client
}

#[test]
fn cancelling_is_harmless_whenever_it_comes() {
    let dir = TempDir::new();
    let path = dir.join("handover");
    let handover = Handover::offer(&path).unwrap();
    let canceller = handover.canceller();
    canceller.cancel();
    canceller.cancel();
    assert!(matches!(handover.wait(), Err(HandoverError::Cancelled)));
    // An offer ends with its handover, whoever could still cancel it.
    let handover = Handover::offer(&path).unwrap();
    let canceller = handover.canceller();
    drop(handover);
    assert!(!path.exists());
    canceller.cancel();
    // While somebody takes over: that goes on, and what is at the path is theirs.
    let (old, addr) = first(&path, ListenOptions::new(), 1);
    let mut inherited = take(&path);
    old.canceller.cancel();
    let system = builder(1).build().unwrap();
    let sockets = inherited.take("web").unwrap();
    let listener = system
        .listen_from(sockets, ListenOptions::new(), |_| Server("two"))
        .unwrap();
    let handover = inherited.confirm().unwrap();
    old.waits.join().unwrap().unwrap();
    old.canceller.cancel();
    let new = offer(system, handover, &[("web", &listener)]);
    drop(take(&path));
    assert_eq!(read(connect(addr), 3).len(), 3);
    new.canceller.cancel();
}

#[test]
fn a_callback_may_not_block_on_a_handover() {
    let system = builder(1).build().unwrap();
    let (send, told): (_, Receiver<bool>) = channel();
    let hub = util::spawn(&system, 0, |probe| probe);
    hub.tell(move |_| {
        let taken = std::panic::catch_unwind(|| Handover::take("/nowhere", Duration::ZERO));
        let _ = send.send(taken.is_err());
        Ok(())
    });
    assert!(next(&told), "it panics rather than block a poller");
}

/// A successor by hand, which has confirmed and not said its last word: the sockets are in nobody's
/// hands but its own.
fn confirmed(path: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
        .write_all(&frame(b"HGRNROOM\0\x01\0\x01\0\0\0"))
        .unwrap();
    let said = |mut stream: &UnixStream| {
        let mut len = [0; 4];
        stream.read_exact(&mut len).unwrap();
        let mut body = vec![0; u32::from_le_bytes(len) as usize];
        stream.read_exact(&mut body).unwrap();
        body
    };
    while said(&stream) != b"E" {}
    stream.write_all(&frame(b"C")).unwrap();
    assert_eq!(said(&stream), b"R", "it accepts no more");
    stream
}

#[test]
fn a_close_that_comes_while_another_process_has_the_sockets_holds_when_they_come_back() {
    let dir = TempDir::new();
    let path = dir.join("handover");
    let system = builder(1).build().unwrap();
    let listener = system.listen("127.0.0.1:0", |_| Server("one")).unwrap();
    let addr = tcp(&listener);
    let handover = Handover::offer(&path).unwrap();
    let old = offer(system, handover, &[("web", &listener)]);
    let dies = confirmed(&path);
    listener.close();
    drop(dies);
    listener.wait_closed(TIMEOUT).expect("it was asked to");
    nobody_listens(|| TcpStream::connect(addr).is_err());
    old.canceller.cancel();
}

#[test]
fn whoever_waits_is_served_when_the_sockets_come_back_to_a_system_that_stops() {
    let dir = TempDir::new();
    let path = dir.join("handover");
    let (old, addr) = first(&path, ListenOptions::new(), 1);
    // Stays, so that the stop takes its time.
    let guest = connect(addr);
    assert_eq!(read(&guest, 3), b"one");
    let dies = confirmed(&path);
    let waits = connect(addr);
    old.system.handle().stop(Duration::from_secs(3600));
    wait_until("it stops", || {
        old.system
            .listen("127.0.0.1:0", |_| Server("late"))
            .is_err()
    });
    drop(dies);
    assert_eq!(read(&waits, 3), b"one");
    nobody_listens(|| TcpStream::connect(addr).is_err());
    old.canceller.cancel();
}

#[test]
fn a_server_that_has_closed_its_listeners_is_replaced_by_one_that_listens_anew() {
    for options in [
        ListenOptions::new(),
        ListenOptions::new().balance(Balance::PerPoller),
    ] {
        let dir = TempDir::new();
        let path = dir.join("handover");
        let (old, addr) = first(&path, options.clone(), 2);
        let mut guest = connect(addr);
        assert_eq!(read(&guest, 3), b"one");
        // As at a signal, while its clients have time to leave.
        old.system.handle().stop(Duration::from_secs(3600));
        nobody_listens(|| TcpStream::connect(addr).is_err());
        let mut inherited = take(&path);
        assert!(inherited.take("web").is_none());
        let new = builder(2).build().unwrap();
        let listener = new.listen_with(addr, options, |_| Server("two")).unwrap();
        let handover = inherited.confirm().unwrap();
        old.waits.join().unwrap().unwrap();
        assert_eq!(read(connect(addr), 3), b"two");
        guest.write_all(b"still served").unwrap();
        assert_eq!(read(&guest, 12), b"still served");
        // The next one finds the new one, with its listener.
        let new = offer(new, handover, &[("web", &listener)]);
        assert_eq!(take(&path).names().collect::<Vec<_>>(), ["web"]);
        new.canceller.cancel();
    }
}
