//! Datagrams over Unix sockets: names, files, and receivers that do not read.

mod talker;
mod util;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use greenroom::*;
use talker::{Event, Server, Talker};
use util::{TIMEOUT, TempDir, builder, next, wait_until};

fn bind(path: &Path) -> UnixDatagram {
    patient(UnixDatagram::bind(path).unwrap())
}

fn patient(socket: UnixDatagram) -> UnixDatagram {
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

fn server(path: &Path) -> Server {
    Server::new(&format!("unix:{}", path.display()))
}

#[track_caller]
fn recv(socket: &UnixDatagram) -> (Vec<u8>, Option<PathBuf>) {
    let mut buffer = vec![0; 300_000];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram comes");
    buffer.truncate(len);
    (buffer, from.as_pathname().map(Path::to_owned))
}

#[test]
fn a_named_sender_is_shown_by_its_path_and_answered() {
    let dir = TempDir::new();
    let (path, own) = (dir.path().join("server"), dir.path().join("client"));
    let server = server(&path);
    assert_eq!(
        server.sockets.addrs().len(),
        1,
        "one socket, whatever the pollers"
    );
    let client = bind(&own);
    client.send_to(b"hello", &path).unwrap();
    let heard = server.heard();
    assert_eq!(heard.bytes, b"hello");
    assert_eq!(heard.from, DatagramAddr::Unix(own));
    assert_eq!(heard.local, DatagramAddr::Unix(path.clone()));
    assert_eq!(recv(&client), (b"hello".to_vec(), Some(path)));
}

#[test]
fn a_sender_without_a_name_is_heard_and_cannot_be_answered() {
    let dir = TempDir::new();
    let path = dir.path().join("server");
    let server = server(&path);
    let client = UnixDatagram::unbound().unwrap();
    client.send_to(b"hello", &path).unwrap();
    assert_eq!(server.heard().from, DatagramAddr::Unnamed);
    match server.failed() {
        DatagramFailure::NotSent {
            to: Some(DatagramAddr::Unnamed),
            len: 5,
            error,
        } => {
            assert!(error.to_string().contains("without a name"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_without_a_file_are_bound_and_answered() {
    let name = format!("greenroom-test-{}", std::process::id());
    let system = builder(1).build().unwrap();
    let (sender, events) = channel();
    let addr = DatagramAddr::Abstract(name.clone().into_bytes());
    let make = move || Talker::new(&sender);
    let sockets = system.bind_datagram(&addr, make).unwrap();
    assert_eq!(*sockets.local_addr(), addr);
    assert!(matches!(next(&events), Event::Opened));
    let own = SocketAddr::from_abstract_name(format!("{name}-client")).unwrap();
    let client = patient(UnixDatagram::bind_addr(&own).unwrap());
    let to = SocketAddr::from_abstract_name(name).unwrap();
    client.send_to_addr(b"hello", &to).unwrap();
    match next(&events) {
        Event::Datagram(heard) => {
            let own = own.as_abstract_name().unwrap().to_vec();
            assert_eq!(heard.from, DatagramAddr::Abstract(own));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(recv(&client).0, b"hello");
    // The kernel makes up a name for who asks for any.
    let (sender, _events) = channel();
    let any = DatagramAddr::Abstract(Vec::new());
    let any = system
        .bind_datagram(any, move || Talker::new(&sender))
        .unwrap();
    assert!(matches!(any.local_addr(), DatagramAddr::Abstract(name) if !name.is_empty()));
}

#[test]
fn a_dead_sockets_leftover_is_replaced_and_a_live_one_refused() {
    let dir = TempDir::new();
    let path = dir.path().join("server");
    drop(bind(&path));
    assert!(path.exists(), "a leftover");
    let first = server(&path);
    let (sender, _events) = channel();
    let bound = first
        .system
        .bind_datagram(path.clone(), move || Talker::new(&sender));
    let error = bound.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    // Neither is a file of another kind replaced.
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let (sender, _events) = channel();
    let bound = first
        .system
        .bind_datagram(file.clone(), move || Talker::new(&sender));
    assert_eq!(bound.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    // The first one goes on.
    let client = bind(&dir.path().join("client"));
    client.send_to(b"hello", &path).unwrap();
    assert_eq!(recv(&client).0, b"hello");
}

#[test]
fn the_file_goes_with_the_socket() {
    let dir = TempDir::new();
    let path = dir.path().join("server");
    for close in [
        (|server: &Server| server.sockets.close()) as fn(&Server),
        |server| server.tell(|_| Err("no more".into())),
        |server| server.tell(|_| panic!("at last")),
        |server| server.system.handle().stop(Duration::ZERO),
    ] {
        let server = server(&path);
        assert!(path.exists());
        close(&server);
        wait_until("the file is gone", || !path.exists());
        drop(server);
    }
    drop(server(&path));
    assert!(!path.exists(), "also when the system is dropped");
}

#[test]
fn a_path_where_nobody_is_is_told_and_no_other_send_suffers() {
    let dir = TempDir::new();
    let server = server(&dir.path().join("server"));
    let client = bind(&dir.path().join("client"));
    let (dead, absent) = (dir.path().join("dead"), dir.path().join("absent"));
    drop(bind(&dead));
    let long = PathBuf::from("x".repeat(200));
    let to = dir.path().join("client");
    server.tell({
        let all = [dead.clone(), to.clone(), absent.clone(), long.clone(), to];
        move |ctx| {
            for to in all {
                assert!(ctx.send_to(to, "hello"));
            }
            Ok(())
        }
    });
    for (path, kind) in [
        (dead, io::ErrorKind::ConnectionRefused),
        (absent, io::ErrorKind::NotFound),
        (long, io::ErrorKind::InvalidInput),
    ] {
        match server.failed() {
            DatagramFailure::NotSent { to, error, .. } => {
                assert_eq!((to, error.kind()), (Some(path.into()), kind));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(recv(&client).0, b"hello");
    assert_eq!(recv(&client).0, b"hello");
}

/// For a server of which one receiver that does not read is not to take all of the kernel's buffer:
/// under systemd it holds 512 datagrams, and the buffer by default some 280.
fn large_buffer() -> DatagramOptions {
    DatagramOptions::new().socket(SocketOptions::new().send_buffer(1 << 30))
}

/// How many small datagrams a receiver holds that reads none.
fn room_of_a_receiver() -> usize {
    let dir = TempDir::new();
    let path = dir.path().join("receiver");
    let _receiver = bind(&path);
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    (0..)
        .take_while(|_| sender.send_to(b"x", &path).is_ok())
        .count()
}

#[test]
fn a_receiver_that_does_not_read_holds_up_nobody_else_and_loses_nothing() {
    let dir = TempDir::new();
    let own = format!("unix:{}", dir.path().join("server").display());
    let server = Server::with(&own, large_buffer(), 1);
    let (slow, quick) = (
        bind(&dir.path().join("slow")),
        bind(&dir.path().join("quick")),
    );
    let (to_slow, to_quick) = (dir.path().join("slow"), dir.path().join("quick"));
    let count = 3 * room_of_a_receiver();
    server.tell(move |ctx| {
        for n in 0..count {
            assert!(ctx.send_to(&*to_slow, n.to_string()));
        }
        assert!(ctx.send_to(&*to_quick, "at once"));
        Ok(())
    });
    assert_eq!(recv(&quick).0, b"at once");
    // Nothing but a timer of ours tells when it takes again; nobody spins meanwhile.
    for n in 0..count {
        assert_eq!(recv(&slow).0, n.to_string().into_bytes());
    }
    let stats = server.system.stats();
    assert_eq!((stats.datagrams_dropped, stats.datagrams_failed), (0, 0));
}

#[test]
fn however_many_do_not_read_the_others_are_served() {
    if room_of_a_receiver() > 20 {
        return println!("skipped: few receivers hold all that a sender's buffer has here");
    }
    let dir = TempDir::new();
    let server = server(&dir.path().join("server"));
    let stuck: Vec<PathBuf> = (0..20)
        .map(|n| dir.path().join(format!("stuck-{n}")))
        .collect();
    let receivers: Vec<UnixDatagram> = stuck.iter().map(|path| bind(path)).collect();
    let quick = bind(&dir.path().join("quick"));
    let (to_quick, count) = (dir.path().join("quick"), room_of_a_receiver() + 2);
    let to_stuck = stuck.clone();
    server.tell(move |ctx| {
        for n in 0..count {
            for to in &to_stuck {
                assert!(ctx.send_to(&**to, n.to_string()));
            }
        }
        assert!(ctx.send_to(&*to_quick, "before"));
        Ok(())
    });
    assert_eq!(recv(&quick).0, b"before");
    quick.send_to(b"hello", dir.path().join("server")).unwrap();
    assert_eq!(recv(&quick).0, b"hello");
    // And they as soon as they read, each in its order.
    for receiver in &receivers {
        for n in 0..count {
            assert_eq!(recv(receiver).0, n.to_string().into_bytes());
        }
    }
    let stats = server.system.stats();
    assert_eq!((stats.datagrams_dropped, stats.datagrams_failed), (0, 0));
}

#[test]
fn who_asks_and_never_reads_leaves_the_others_their_room() {
    let dir = TempDir::new();
    let path = dir.path().join("server");
    let options = large_buffer().queue_max(1 << 16);
    let server = Server::with(&format!("unix:{}", path.display()), options, 1);
    let deaf = bind(&dir.path().join("deaf"));
    let quick = bind(&dir.path().join("quick"));
    // Ten times as much as there is room for; `Talker` insists that each answer is taken.
    for n in 0..5000 {
        deaf.send_to(&[0; 64], &path).unwrap();
        if n % 50 == 0 {
            quick.send_to(b"hello", &path).unwrap();
            assert_eq!(recv(&quick).0, b"hello");
        }
    }
    wait_until("all are sent, or wait, or are told", || {
        server.system.stats().datagrams_received == 5100
    });
    let failed = server.events.try_iter().find_map(|event| match event {
        Event::Failed(DatagramFailure::NotSent { to, error, .. }) => Some((to, error)),
        _ => None,
    });
    let (to, error) = failed.expect("what is beyond its part is told");
    assert_eq!(to, Some(dir.path().join("deaf").into()));
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(error.to_string().contains("takes nothing"), "{error}");
    // What waits for it is there when it reads.
    let part = (1 << 14) / (64 + 64);
    for _ in 0..part {
        assert_eq!(recv(&deaf).0.len(), 64);
    }
    assert_eq!(server.system.stats().datagrams_dropped, 0);
}

#[test]
fn a_receiver_that_never_reads_costs_no_processor() {
    let dir = TempDir::new();
    let system = System::builder()
        .pollers(1)
        .name("stuckdgram")
        .build()
        .unwrap();
    let (sender, events) = channel();
    let path = dir.path().join("server");
    let sockets = system
        .bind_datagram(path, move || Talker::new(&sender))
        .unwrap();
    assert!(matches!(next(&events), Event::Opened));
    let _stuck = bind(&dir.path().join("stuck"));
    let (to, count) = (dir.path().join("stuck"), 3 * room_of_a_receiver());
    let job: talker::Job = Box::new(move |ctx| {
        for _ in 0..count {
            assert!(ctx.send_to(&*to, "x"));
        }
        Ok(())
    });
    sockets.addrs()[0].send(job).unwrap();
    wait_until("it is stuck", || system.stats().datagrams_sent > 0);
    util::assert_quiet("stuckdgram");
}

#[test]
fn a_connected_socket_waits_for_its_receiver_and_tells_when_there_is_room() {
    let dir = TempDir::new();
    let receiver = bind(&dir.path().join("receiver"));
    // As many as the receiver's kernel holds, those that wait here, and some that are dropped.
    let held = room_of_a_receiver();
    let waiting = held + 100;
    let options = DatagramOptions::new()
        .connect(dir.path().join("receiver"))
        .queue_max(64 * waiting);
    let own = format!("unix:{}", dir.path().join("own").display());
    let client = Server::with(&own, options, 1);
    let (told, sent) = channel();
    for _ in 0..held + 50 {
        let told = told.clone();
        client.tell(move |ctx| {
            let _ = told.send(ctx.send(""));
            Ok(())
        });
    }
    assert!((0..held + 50).all(|_| next(&sent)));
    client.tell(move |ctx| {
        let _ = told.send((0..waiting).all(|_| ctx.send("")));
        Ok(())
    });
    assert!(!next(&sent), "the queue is full");
    for _ in 0..held + waiting {
        assert_eq!(recv(&receiver).0, b"");
    }
    assert!(matches!(next(&client.events), Event::Drained));
    // When the receiver goes, that is told, datagram by datagram, and the client goes on.
    drop(receiver);
    client.tell(|ctx| {
        ctx.send("gone");
        Ok(())
    });
    match client.failed() {
        DatagramFailure::NotSent {
            to: None,
            len: 4,
            error,
        } => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        DatagramFailure::Socket(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert!(matches!(client.failed(), DatagramFailure::NotSent { .. }));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_waits_for_a_stuck_receiver_ends_with_the_stop() {
    let dir = TempDir::new();
    let server = server(&dir.path().join("server"));
    let _stuck = bind(&dir.path().join("stuck"));
    let (to, count) = (dir.path().join("stuck"), 2 * room_of_a_receiver());
    server.tell(move |ctx| {
        for _ in 0..count {
            assert!(ctx.send_to(&*to, "x"));
        }
        Ok(())
    });
    let Server { system, events, .. } = server;
    let handle = system.handle();
    handle.stop(Duration::from_millis(50));
    system.run().unwrap();
    assert!(matches!(next(&events), Event::Closed(_)));
    let stats = handle.stats();
    assert_eq!(stats.connections, 0);
    assert_eq!(stats.datagrams_sent + stats.datagrams_dropped, count as u64);
    assert!(!dir.path().join("server").exists());
}

#[test]
fn a_close_waits_for_a_stuck_receiver_as_long_as_it_was_told() {
    let linger = Duration::from_secs(5);
    let dir = TempDir::new();
    let server = server(&dir.path().join("server"));
    let _stuck = bind(&dir.path().join("stuck"));
    let (to, count) = (dir.path().join("stuck"), 2 * room_of_a_receiver());
    let begin = Instant::now();
    server.tell(move |ctx| {
        for _ in 0..count {
            assert!(ctx.send_to(&*to, "x"));
        }
        ctx.close_within(linger / 50);
        Ok(())
    });
    assert!(matches!(next(&server.events), Event::Closed(_)));
    let waited = begin.elapsed();
    assert!(linger / 50 <= waited && waited < linger, "{waited:?}");
    let stats = server.system.stats();
    assert_eq!(stats.datagrams_sent + stats.datagrams_dropped, count as u64);
}

#[test]
fn a_datagram_longer_than_any_of_udp_comes_whole_where_it_may() {
    let dir = TempDir::new();
    let own = format!("unix:{}", dir.path().join("server").display());
    let server = Server::with(&own, DatagramOptions::new().datagram_max(150_000), 1);
    let client = bind(&dir.path().join("client"));
    let long = util::pattern(150_000);
    client.send_to(&long, dir.path().join("server")).unwrap();
    let heard = server.heard();
    util::assert_same(&heard.bytes, &long);
    assert!(!heard.is_truncated);
    util::assert_same(&recv(&client).0, &long);
}

#[test]
fn a_datagram_longer_than_its_buffer_is_told_and_the_next_is_sent() {
    let dir = TempDir::new();
    let own = format!("unix:{}", dir.path().join("server").display());
    let small = SocketOptions::new().send_buffer(8192);
    let server = Server::with(&own, DatagramOptions::new().socket(small), 1);
    let client = bind(&dir.path().join("client"));
    let to = dir.path().join("client");
    server.tell(move |ctx| {
        assert!(ctx.send_to(&*to, vec![0; 100_000]), "there is room for it");
        assert!(ctx.send_to(&*to, "the next"));
        Ok(())
    });
    match server.failed() {
        DatagramFailure::NotSent { len, error, .. } => {
            assert_eq!(len, 100_000);
            assert!(error.to_string().contains("too long"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(recv(&client).0, b"the next");
}

/// Sends a byte, and a descriptor beside it.
fn send_descriptor(from: &UnixDatagram, fd: RawFd) {
    let mut bytes = *b"x";
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let mut control = [0_u64; 4];
    // SAFETY: made of integers and pointers alone, for which zero is a valid value; `control` is
    // aligned, and long enough for a header and one number.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        libc::sendmsg(from.as_raw_fd(), &raw const message, 0)
    };
    assert_eq!(sent, 1, "{}", io::Error::last_os_error());
}

#[test]
fn descriptors_that_a_peer_sends_beside_a_datagram_are_closed() {
    let dir = TempDir::new();
    let path = dir.path().join("server");
    let server = server(&path);
    let client = UnixDatagram::unbound().unwrap();
    client.connect(&path).unwrap();
    let (pipe, writer) = io::pipe().unwrap();
    send_descriptor(&client, writer.as_raw_fd());
    drop(writer);
    assert_eq!(server.heard().bytes, b"x");
    wait_until("nobody has the pipe's other end any more", || {
        let mut polled = libc::pollfd {
            fd: pipe.as_raw_fd(),
            events: 0,
            revents: 0,
        };
        // SAFETY: one structure, writable and borrowed for the whole call.
        unsafe { libc::poll(&raw mut polled, 1, 0) == 1 }
    });
}
