//! Datagrams over UDP: who sent them, where answers go, what is refused and what is told.

mod talker;
mod util;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use greenroom::*;
use talker::{Event, Heard, Job, Server, Talker};
use util::{TIMEOUT, builder, next, settle, spawn, wait_until};

fn client(addr: &str) -> UdpSocket {
    let client = UdpSocket::bind(addr).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    client
}

fn own(client: &UdpSocket) -> DatagramAddr {
    client.local_addr().unwrap().into()
}

#[track_caller]
fn recv(client: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    let (len, from) = client.recv_from(&mut buffer).expect("a datagram comes");
    buffer.truncate(len);
    (buffer, from)
}

fn has_ipv6() -> bool {
    let has_ipv6 = UdpSocket::bind("[::1]:0").is_ok();
    if !has_ipv6 {
        println!("skipped: no IPv6 loopback here");
    }
    has_ipv6
}

/// Nobody here has it any more; a process that another test starts may, until it runs its program.
fn wait_until_free(addr: SocketAddr) {
    wait_until("its port is free", || UdpSocket::bind(addr).is_ok());
}

fn v4(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

// ---- there and back ------------------------------------------------------------------------------

#[test]
fn a_datagram_is_shown_with_its_sender_and_answered() {
    let server = Server::new("127.0.0.1:0");
    let client = client("127.0.0.1:0");
    client.send_to(b"hello", server.addr()).unwrap();
    assert_eq!(
        server.heard(),
        Heard {
            bytes: b"hello".to_vec(),
            from: own(&client),
            local: server.addr().into(),
            sent_len: 5,
            is_truncated: false,
            poller: 0,
            interface: None,
        }
    );
    assert_eq!(recv(&client), (b"hello".to_vec(), server.addr()));
    let stats = server.system.stats();
    assert_eq!((stats.datagrams_received, stats.connections), (1, 1));
    wait_until("it is counted", || {
        server.system.stats().datagrams_sent == 1
    });
}

#[test]
fn the_same_over_ipv6() {
    if !has_ipv6() {
        return;
    }
    let server = Server::new("[::1]:0");
    let client = client("[::1]:0");
    client.send_to(b"hello", server.addr()).unwrap();
    assert_eq!(server.heard().from, own(&client));
    assert_eq!(recv(&client), (b"hello".to_vec(), server.addr()));
}

#[test]
fn ipv4_is_shown_as_ipv4_on_a_socket_for_both_and_answered_from_where_it_came_to() {
    if !has_ipv6() {
        return;
    }
    let server = Server::new("[::]:0");
    for own_ip in ["127.0.0.1", "127.0.0.2", "127.0.3.4"] {
        let client = client("127.0.0.1:0");
        let to = SocketAddr::new(own_ip.parse().unwrap(), server.port());
        if client.send_to(b"hello", to).is_err() {
            println!("skipped: IPv6 sockets take no IPv4 here");
            return;
        }
        let heard = server.heard();
        assert_eq!(heard.from, own(&client));
        assert_eq!(heard.local, to.into());
        assert_eq!(recv(&client), (b"hello".to_vec(), to));
    }
    let client = client("[::1]:0");
    client.send_to(b"six", ("::1", server.port())).unwrap();
    let heard = server.heard();
    let to = DatagramAddr::Udp(format!("[::1]:{}", server.port()).parse().unwrap());
    assert_eq!((heard.from, heard.local), (own(&client), to));
    assert_eq!(recv(&client).0, b"six");
    // And to IPv4 that has not sent anything.
    let third = crate::client("127.0.0.1:0");
    let to = third.local_addr().unwrap();
    server.tell(move |ctx| {
        assert!(ctx.send_to(to, "unasked"));
        Ok(())
    });
    assert_eq!(recv(&third), (b"unasked".to_vec(), v4(server.port())));
}

#[test]
fn an_answer_leaves_from_the_address_that_was_asked() {
    let server = Server::new("0.0.0.0:0");
    for own_ip in ["127.0.0.1", "127.0.0.2", "127.9.9.9"] {
        let client = client("127.0.0.1:0");
        let to = SocketAddr::new(own_ip.parse().unwrap(), server.port());
        client.send_to(b"hello", to).unwrap();
        let heard = server.heard();
        assert_eq!((heard.from, heard.local), (own(&client), to.into()));
        assert_eq!(recv(&client), (b"hello".to_vec(), to));
    }
}

/// What users of other libraries miss: an answer to somebody else, and one sent later.
#[test]
fn anybody_can_be_sent_to_by_a_message_from_any_thread() {
    let server = Server::new("127.0.0.1:0");
    let clients: Vec<UdpSocket> = (0..3).map(|_| client("127.0.0.1:0")).collect();
    let addrs: Vec<SocketAddr> = clients.iter().map(|c| c.local_addr().unwrap()).collect();
    let addr = server.sockets.addrs()[0].clone();
    std::thread::spawn(move || {
        let job: Job = Box::new(move |ctx| {
            for (n, to) in addrs.iter().enumerate() {
                assert!(ctx.send_to(*to, format!("number {n}")));
            }
            Ok(())
        });
        addr.send(job).unwrap();
    })
    .join()
    .unwrap();
    for (n, client) in clients.iter().enumerate() {
        let text = format!("number {n}").into_bytes();
        assert_eq!(recv(client), (text, server.addr()));
    }
}

#[test]
fn a_datagram_without_bytes_is_one() {
    let server = Server::new("127.0.0.1:0");
    let client = client("127.0.0.1:0");
    client.send_to(b"", server.addr()).unwrap();
    client.send_to(b"x", server.addr()).unwrap();
    assert_eq!(server.heard().bytes, b"");
    assert_eq!(server.heard().bytes, b"x");
    assert_eq!(recv(&client).0, b"");
    assert_eq!(recv(&client).0, b"x");
}

#[test]
fn the_longest_datagram_there_is_comes_whole_and_a_longer_one_is_told() {
    let server = Server::new("127.0.0.1:0");
    let client = client("127.0.0.1:0");
    let longest = util::pattern(65_507);
    client.send_to(&longest, server.addr()).unwrap();
    let heard = server.heard();
    util::assert_same(&heard.bytes, &longest);
    assert!(!heard.is_truncated);
    util::assert_same(&recv(&client).0, &longest);

    let to = client.local_addr().unwrap();
    server.tell(move |ctx| {
        assert!(ctx.send_to(to, vec![0; 65_508]), "there is room for it");
        assert!(ctx.send_to(to, "the next"));
        Ok(())
    });
    match server.failed() {
        DatagramFailure::NotSent {
            to: Some(not),
            len: 65_508,
            error,
        } => {
            assert_eq!(not, to.into());
            assert!(error.to_string().contains("too long"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(recv(&client).0, b"the next", "the socket goes on");
    assert_eq!(server.system.stats().datagrams_failed, 1);
}

#[test]
fn a_truncated_datagram_is_told_as_one_and_how_long_it_was() {
    let server = Server::with("127.0.0.1:0", DatagramOptions::new().datagram_max(100), 1);
    let client = client("127.0.0.1:0");
    for len in [99, 100, 101, 5000] {
        let bytes = util::pattern(len);
        client.send_to(&bytes, server.addr()).unwrap();
        let heard = server.heard();
        assert_eq!(heard.bytes, bytes[..len.min(100)]);
        assert_eq!((heard.is_truncated, heard.sent_len), (len > 100, len));
        assert_eq!(recv(&client).0.len(), len.min(100));
    }
    assert_eq!(server.system.stats().datagrams_truncated, 2);
}

#[test]
fn sockets_of_one_poller_have_each_their_own_longest() {
    let system = builder(1).build().unwrap();
    let bind = |max| {
        let (sender, events) = channel();
        let options = DatagramOptions::new().datagram_max(max);
        let make = move || Talker::new(&sender);
        let sockets = system.bind_datagram_with("127.0.0.1:0", options, make);
        (sockets.unwrap().local_addr().udp().unwrap(), events)
    };
    let servers = [10, 9 << 20, 2000].map(|max| (max, bind(max)));
    let client = client("127.0.0.1:0");
    for len in [5, 1000, 40_000, 10, 3000] {
        for (max, (addr, _)) in &servers {
            let bytes = util::pattern(len);
            // Several, so that the last place of the poller's batch is reached as well as the first.
            for _ in 0..3 {
                client.send_to(&bytes, addr).unwrap();
                util::assert_same(&recv(&client).0, &bytes[..len.min(*max)]);
            }
        }
    }
}

#[test]
fn more_than_a_turn_sends_leaves_in_several() {
    let server = Server::with("127.0.0.1:0", DatagramOptions::new(), 1);
    let (to, _deaf) = nobody();
    server.tell(move |ctx| {
        for _ in 0..5000 {
            assert!(ctx.send_to(to, "x"));
        }
        Ok(())
    });
    wait_until("all have left", || {
        server.system.stats().datagrams_sent == 5000
    });
    // And behind a close.
    server.tell(move |ctx| {
        for _ in 0..3000 {
            assert!(ctx.send_to(to, "x"));
        }
        ctx.close();
        Ok(())
    });
    assert!(
        matches!(next(&server.events), Event::Closed(reason) if reason.starts_with("finished"))
    );
    assert_eq!(server.system.stats().datagrams_sent, 8000);
}

// ---- several pollers -------------------------------------------------------------------------------

#[test]
fn each_poller_has_a_socket_and_a_sender_stays_with_its_own() {
    let server = Server::with("127.0.0.1:0", DatagramOptions::new(), 4);
    assert_eq!(server.sockets.addrs().len(), 4);
    assert_eq!(server.system.stats().connections, 4);
    let mut pollers = [0; 4];
    for _ in 0..64 {
        let client = client("127.0.0.1:0");
        let mut at = None;
        for _ in 0..4 {
            client.send_to(b"x", server.addr()).unwrap();
            let heard = server.heard();
            assert_eq!(*at.get_or_insert(heard.poller), heard.poller);
            recv(&client);
        }
        pollers[at.unwrap()] += 1;
    }
    // By chance one of four is left out by 64 senders once in some 25 million runs.
    assert!(pollers.iter().all(|count| *count > 0), "{pollers:?}");
}

#[test]
fn one_socket_for_all_is_an_option() {
    let options = DatagramOptions::new().per_poller(false);
    let server = Server::with("127.0.0.1:0", options, 3);
    assert_eq!(server.sockets.addrs().len(), 1);
    assert_eq!(server.system.stats().connections, 1);
}

#[test]
fn a_port_in_use_is_an_error_also_where_a_group_shares_it() {
    let taken = client("127.0.0.1:0");
    let group = Server::with("127.0.0.1:0", DatagramOptions::new(), 2);
    let system = builder(2).build().unwrap();
    let (sender, _events) = channel();
    for addr in [taken.local_addr().unwrap(), group.addr()] {
        let sender = sender.clone();
        let bound = system.bind_datagram(addr, move || Talker::new(&sender));
        let error = bound.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(text.contains(&addr.to_string()), "{text}");
    }
    assert_eq!(system.stats().connections, 0);
    // Unless both say so.
    let shared = DatagramOptions::new().shared(true);
    let one = Server::with("127.0.0.1:0", shared.clone(), 2);
    let two = system.bind_datagram_with(one.addr(), shared, move || Talker::new(&sender));
    assert_eq!(two.unwrap().addrs().len(), 2);
}

#[test]
fn an_address_that_is_none_is_refused_in_words() {
    let system = builder(1).build().unwrap();
    for (addr, part) in [
        ("9000", "127.0.0.1:9000"),
        ("127.0.0.1", "127.0.0.1:9000"),
        ("127.0.0.1:70000", "127.0.0.1:9000"),
        ("203.0.113.77:9", "cannot bind 203.0.113.77:9 for datagrams"),
        (
            "unix:/no/such/directory/x.sock",
            "cannot bind unix:/no/such",
        ),
    ] {
        let (sender, _events) = channel();
        let bound = system.bind_datagram(addr, move || Talker::new(&sender));
        let text = bound.unwrap_err().to_string();
        assert!(text.contains(part), "{addr}: {text}");
    }
    assert_eq!(system.stats().connections, 0);
}

// ---- what a socket is told ---------------------------------------------------------------------------

/// A port of 127.0.0.1 where nobody is, and nobody else comes to: that of a socket which hears
/// another address alone.
fn nobody() -> (SocketAddr, UdpSocket) {
    let deaf = client("127.0.0.1:0");
    deaf.connect("127.0.0.1:1").unwrap();
    (deaf.local_addr().unwrap(), deaf)
}

#[test]
fn a_connected_socket_is_told_that_nobody_is_there_and_goes_on() {
    let (gone, _deaf) = nobody();
    let options = DatagramOptions::new().connect(gone);
    let client = Server::with("127.0.0.1:0", options, 2);
    assert_eq!(client.sockets.addrs().len(), 1, "a client has one socket");
    for _ in 0..3 {
        client.tell(|ctx| {
            assert!(ctx.send("anybody there?"));
            Ok(())
        });
        match client.failed() {
            DatagramFailure::Socket(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(client.system.stats().datagram_errors >= 3);
}

#[test]
fn a_server_that_answers_one_who_has_gone_serves_the_next() {
    let server = Server::new("127.0.0.1:0");
    let (gone, _deaf) = nobody();
    server.tell(move |ctx| {
        for _ in 0..10 {
            assert!(ctx.send_to(gone, "too late"));
        }
        Ok(())
    });
    let client = client("127.0.0.1:0");
    client.send_to(b"hello", server.addr()).unwrap();
    assert_eq!(server.heard().bytes, b"hello", "nothing failed before it");
    assert_eq!(recv(&client).0, b"hello");
}

#[test]
fn a_connected_socket_hears_its_peer_alone_and_each_write_is_a_datagram() {
    let peer = client("127.0.0.1:0");
    let stranger = client("127.0.0.1:0");
    let options = DatagramOptions::new().connect(peer.local_addr().unwrap());
    let client = Server::with("127.0.0.1:0", options, 1);
    client.tell(|ctx| {
        ctx.write("one");
        ctx.write_parts(&[b"t", b"wo"]);
        ctx.send("three");
        Ok(())
    });
    for text in ["one", "two", "three"] {
        assert_eq!(recv(&peer), (text.into(), client.addr()));
    }
    stranger.send_to(b"psst", client.addr()).unwrap();
    peer.send_to(b"hello", client.addr()).unwrap();
    assert_eq!(client.heard().bytes, b"hello");
    assert_eq!(recv(&peer).0, b"hello", "answered");
}

/// The kernel takes more than one form of an address, and tells its own.
#[test]
fn a_connected_socket_hears_its_peer_however_that_was_written() {
    for (bound, peer, to) in [
        ("0.0.0.0:0", "127.0.0.1:0", "0.0.0.0"),
        ("[::]:0", "[::1]:0", "::"),
        ("[::]:0", "127.0.0.1:0", "::ffff:127.0.0.1"),
        ("[::]:0", "127.0.0.1:0", "127.0.0.1"),
    ] {
        if bound.contains("::") && !has_ipv6() {
            continue;
        }
        let peer = client(peer);
        let port = peer.local_addr().unwrap().port();
        let to = SocketAddr::new(to.parse().unwrap(), port);
        let client = Server::with(bound, DatagramOptions::new().connect(to), 1);
        client.tell(|ctx| {
            assert!(ctx.send("hello"));
            Ok(())
        });
        let (bytes, from) = recv(&peer);
        assert_eq!(bytes, b"hello");
        peer.send_to(b"back", from).unwrap();
        let heard = client.heard();
        assert_eq!((&heard.bytes[..], heard.from), (&b"back"[..], own(&peer)));
    }
    let system = builder(1).build().unwrap();
    let (sender, _events) = channel();
    let options = DatagramOptions::new().connect(v4(0));
    let bound = system.bind_datagram_with("127.0.0.1:0", options, move || Talker::new(&sender));
    let text = bound.expect_err("nobody has port 0").to_string();
    assert!(text.contains("connect to 127.0.0.1:0"), "{text}");
}

#[test]
fn what_a_datagram_socket_has_not_is_a_callers_error() {
    for (job, text) in [
        (
            Box::new(|ctx: &mut Context<'_, Talker>| {
                ctx.write("x");
                Ok(())
            }) as Job,
            "not connected; use send_to or reply",
        ),
        (
            Box::new(|ctx| {
                ctx.send("x");
                Ok(())
            }),
            "not connected; use send_to",
        ),
        (
            Box::new(|ctx| {
                ctx.shutdown_write();
                Ok(())
            }),
            "no halves",
        ),
    ] {
        let server = Server::new("127.0.0.1:0");
        server.sockets.addrs()[0].send(job).unwrap();
        match next(&server.events) {
            Event::Closed(reason) => {
                assert!(
                    reason.starts_with("panicked") && reason.contains(text),
                    "{reason}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    // And the other way round: there is none in an actor that was spawned.
    let stage = util::Stage::new();
    let _client = stage.client();
    let probe = stage.accepted();
    probe.tell(|ctx| {
        ctx.send_to(v4(9), "x");
        Ok(())
    });
    let reason = probe.closed().to_string();
    assert!(reason.contains("no datagram socket"), "{reason}");
}

#[test]
fn addresses_of_another_kind_are_told_and_the_rest_is_sent() {
    let server = Server::new("127.0.0.1:0");
    let client = client("127.0.0.1:0");
    let to = client.local_addr().unwrap();
    server.tell(move |ctx| {
        ctx.send_to(to, "before");
        ctx.send_to("[::1]:9".parse::<SocketAddr>().unwrap(), "six");
        ctx.send_to(std::path::Path::new("/tmp/x.sock"), "unix");
        ctx.send_to(SocketAddr::from(([255, 255, 255, 255], 9)), "broadcast");
        ctx.send_to(to, "behind");
        Ok(())
    });
    for kind in [
        io::ErrorKind::InvalidInput,
        io::ErrorKind::InvalidInput,
        io::ErrorKind::PermissionDenied,
    ] {
        match server.failed() {
            DatagramFailure::NotSent { error, .. } => assert_eq!(error.kind(), kind, "{error}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(recv(&client).0, b"before");
    assert_eq!(recv(&client).0, b"behind");
}

// ---- bounds ----------------------------------------------------------------------------------------

#[test]
fn past_the_queue_datagrams_are_dropped_and_told_and_drained_follows() {
    let options = DatagramOptions::new().queue_max(10 * (100 + 64));
    let server = Server::with("127.0.0.1:0", options, 1);
    let client = client("127.0.0.1:0");
    let to = client.local_addr().unwrap();
    let (told, accepted) = channel();
    server.tell(move |ctx| {
        let sent = (0..15_u8).map(|n| ctx.send_to(to, [n; 100]));
        let _ = told.send(sent.collect::<Vec<bool>>());
        Ok(())
    });
    let accepted = next(&accepted);
    assert_eq!(accepted, [vec![true; 10], vec![false; 5]].concat());
    for n in 0..10 {
        assert_eq!(recv(&client).0, [n; 100]);
    }
    assert!(matches!(next(&server.events), Event::Drained));
    assert_eq!(server.system.stats().datagrams_dropped, 5);
    // One that can never fit is no reason to say that there is room.
    server.tell(move |ctx| {
        assert!(!ctx.send_to(to, [0; 5000]));
        Ok(())
    });
    client.send_to(b"next", server.addr()).unwrap();
    assert_eq!(server.heard().bytes, b"next");
}

#[test]
fn what_came_with_the_one_that_paused_is_kept_and_shown_in_order() {
    let server = Server::of("127.0.0.1:0", DatagramOptions::new(), 1, |events| {
        Talker::with(events, |datagram, ctx| {
            if datagram.bytes() == [3] || datagram.bytes() == [7] {
                ctx.pause();
            }
            Ok(())
        })
    });
    let client = client("127.0.0.1:0");
    let probe = util::spawn(&server.system, 0, |probe| probe);
    // While nobody receives, so that they come together.
    let held = util::hold(&probe);
    for n in 0..10_u8 {
        client.send_to(&[n], server.addr()).unwrap();
    }
    drop(held);
    for (from, to) in [(0, 3), (4, 7), (8, 9)] {
        for n in from..=to {
            assert_eq!(server.heard().bytes, [n]);
        }
        // The one that was shown last has paused: nothing comes until it is resumed.
        probe.run(|_| ());
        probe.run(|_| ());
        assert!(server.events.try_recv().is_err());
        server.tell(|ctx| {
            ctx.resume();
            Ok(())
        });
    }
}

#[test]
fn a_panic_ends_its_actor_and_what_it_sent_but_not_what_others_were_answered() {
    let server = Server::of("127.0.0.1:0", DatagramOptions::new(), 1, |events| {
        Talker::with(events, |datagram, ctx| {
            ctx.reply(datagram, datagram.bytes());
            assert_ne!(datagram.bytes(), b"bad");
            Ok(())
        })
    });
    let clients = [client("127.0.0.1:0"), client("127.0.0.1:0")];
    let probe = util::spawn(&server.system, 0, |probe| probe);
    let held = util::hold(&probe);
    clients[0].send_to(b"good", server.addr()).unwrap();
    clients[1].send_to(b"bad", server.addr()).unwrap();
    drop(held);
    assert_eq!(recv(&clients[0]).0, b"good");
    assert_eq!(server.heard().bytes, b"good");
    assert_eq!(server.heard().bytes, b"bad");
    assert!(
        matches!(next(&server.events), Event::Closed(reason) if reason.starts_with("panicked"))
    );
    clients[1].set_nonblocking(true).unwrap();
    assert!(clients[1].recv(&mut [0; 10]).is_err());
    wait_until("the socket is closed", || {
        server.system.stats().connections == 0
    });
    wait_until_free(server.addr());
}

/// Answers with the number of its life; binds the next one when it ends by a panic.
struct Phoenix {
    life: u32,
    options: DatagramOptions,
}

impl Actor for Phoenix {
    type Message = ();

    fn datagram(&mut self, datagram: Datagram<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        assert_ne!(datagram.bytes(), b"bad");
        ctx.reply(&datagram, self.life.to_string());
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        if let (CloseReason::Panicked(_), Some(addr)) = (reason, ctx.datagram_addr()) {
            let (addr, options) = (addr.clone(), self.options.clone());
            let life = self.life + 1;
            let next = Phoenix {
                life,
                options: options.clone(),
            };
            ctx.bind_datagram(addr, options, next);
        }
    }
}

#[test]
fn who_ends_by_a_panic_may_bind_the_next_one_to_its_port() {
    // Where nobody else starts a process: that has all descriptors, until it runs its program.
    util::in_child(
        "who_ends_by_a_panic_may_bind_the_next_one_to_its_port",
        1024,
        binds_the_next_one,
    );
}

fn binds_the_next_one() {
    for (pollers, options) in [
        (1, DatagramOptions::new()),
        (3, DatagramOptions::new().shared(true)),
    ] {
        let system = builder(pollers).build().unwrap();
        let make = {
            let options = options.clone();
            move || Phoenix {
                life: 1,
                options: options.clone(),
            }
        };
        let sockets = system
            .bind_datagram_with("127.0.0.1:0", options, make)
            .unwrap();
        let to = sockets.local_addr().udp().unwrap();
        let client = client("127.0.0.1:0");
        for round in 1..=3 {
            client.send_to(b"bad", to).unwrap();
            let opened = pollers as u64 + round;
            wait_until("the next one is there", || system.stats().opened == opened);
            client.send_to(b"good", to).unwrap();
            let life: u32 = String::from_utf8(recv(&client).0).unwrap().parse().unwrap();
            assert!(pollers > 1 || u64::from(life) == round + 1);
        }
        assert_eq!(system.stats().panics, 3);
    }
}

// ---- its life ----------------------------------------------------------------------------------------

#[test]
fn an_actor_binds_for_another_which_is_told_if_that_fails() {
    let stage = util::Stage::new();
    let _client = stage.client();
    let probe = stage.accepted();
    let (sender, events) = channel();
    let taken = client("127.0.0.1:0");
    let in_use = taken.local_addr().unwrap();
    let client = client("127.0.0.1:0");
    let to = client.local_addr().unwrap();
    probe.run({
        let sender = sender.clone();
        move |ctx| {
            let talker = Talker::new(&sender);
            let addr = ctx.bind_datagram(v4(0), DatagramOptions::new(), talker);
            // Waits for the actor to be opened.
            let job: Job = Box::new(move |ctx| {
                assert!(ctx.send_to(to, "hello"));
                Ok(())
            });
            addr.send(job).unwrap();
        }
    });
    assert!(matches!(next(&events), Event::Opened));
    let (bytes, from) = recv(&client);
    assert_eq!(bytes, b"hello");
    client.send_to(b"back", from).unwrap();
    assert!(matches!(next(&events), Event::Datagram(heard) if heard.bytes == b"back"));

    let before = stage.system.stats();
    probe.run(move |ctx| {
        let talker = Talker::new(&sender);
        ctx.bind_datagram(in_use, DatagramOptions::new(), talker);
    });
    match next(&events) {
        Event::Closed(reason) => {
            assert!(reason.starts_with("io: "), "{reason}");
            assert!(
                reason.contains(&format!("cannot bind {in_use}")),
                "{reason}"
            );
        }
        other => panic!("{other:?}"),
    }
    wait_until("its end is counted", || {
        let stats = stage.system.stats();
        assert_eq!(stats.connections, before.connections);
        stats.opened - stats.closed == before.opened - before.closed
    });
}

/// Hands on what it is sent.
struct Ear(Sender<u32>);

impl Actor for Ear {
    type Message = u32;

    fn message(&mut self, n: u32, _: &mut Context<'_, Self>) -> Outcome {
        Ok(self.0.send(n)?)
    }
}

#[test]
fn what_is_sent_to_one_that_is_to_be_bound_finds_it_in_the_same_turn_too() {
    let system = builder(1).build().unwrap();
    // The first inbox of the poller, so that all others come behind it in a turn.
    let probe = spawn(&system, 0, |probe| probe);
    let (said, heard) = channel();
    let (gone, notices) = channel();
    for n in 0..3 {
        let (ear, gone) = (Ear(said.clone()), gone.clone());
        probe.run(move |ctx| {
            let addr = ctx.bind_datagram(v4(0), DatagramOptions::new(), ear);
            addr.send(n).unwrap();
            ctx.monitor(&addr, move |word| -> util::Job {
                Box::new(move |_| Ok(gone.send(word)?))
            });
        });
        assert_eq!(next(&heard), n);
    }
    settle(&system);
    assert!(notices.try_recv().is_err(), "they live");
    assert_eq!(system.stats().dead_letters, 0);
}

#[test]
fn a_socket_is_closed_by_its_address_and_its_port_is_free() {
    let server = Server::with("127.0.0.1:0", DatagramOptions::new(), 2);
    let client = client("127.0.0.1:0");
    let to = client.local_addr().unwrap();
    server.tell(move |ctx| {
        ctx.send_to(to, "last");
        Ok(())
    });
    server.sockets.close();
    for _ in 0..2 {
        assert!(
            matches!(next(&server.events), Event::Closed(reason) if reason.starts_with("finished"))
        );
    }
    assert_eq!(recv(&client).0, b"last");
    wait_until("both are closed", || server.system.stats().connections == 0);
    let (sender, _events) = channel();
    let mut again = None;
    // A process that another test starts may have it, until it runs its program.
    wait_until("its port is free", || {
        let sender = sender.clone();
        let bound = server
            .system
            .bind_datagram(server.addr(), move || Talker::new(&sender));
        again = bound.ok();
        again.is_some()
    });
    assert_eq!(again.unwrap().local_addr(), server.sockets.local_addr());
}

#[test]
fn a_stop_closes_sockets_for_datagrams_and_binds_no_more() {
    let server = Server::with("127.0.0.1:0", DatagramOptions::new(), 2);
    let handle = server.system.handle();
    let (done, ended) = channel();
    let begun = Instant::now();
    let system = server.system;
    std::thread::spawn(move || done.send(system.run()));
    handle.stop(Duration::from_secs(20));
    next(&ended).unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "nobody waited for the deadline"
    );
    let closed = server.events.try_iter().count();
    assert_eq!(closed, 2);
    let (sender, _events) = channel();
    let bound = handle.bind_datagram("127.0.0.1:0", move || Talker::new(&sender));
    assert!(bound.unwrap_err().to_string().contains("has stopped"));
    let stats = handle.stats();
    assert_eq!((stats.opened, stats.closed, stats.connections), (2, 2, 0));
}

#[test]
fn a_factory_that_panics_leaves_nothing_behind() {
    let system = builder(1).build().unwrap();
    let sockets = system
        .bind_datagram("127.0.0.1:0", || -> Talker { panic!("no actor today") })
        .unwrap();
    wait_until("the socket is closed", || system.stats().connections == 0);
    assert_eq!(system.stats().panics, 1);
    assert!(sockets.addrs()[0].send(Box::new(|_| Ok(()))).is_err());
    wait_until_free(sockets.local_addr().udp().unwrap());
}

#[test]
fn sockets_for_datagrams_cost_an_idle_system_nothing() {
    let system = System::builder()
        .pollers(2)
        .name("udpidle")
        .build()
        .unwrap();
    let (sender, events) = channel();
    let sockets = system
        .bind_datagram("127.0.0.1:0", move || Talker::new(&sender))
        .unwrap();
    let client = client("127.0.0.1:0");
    let to = sockets.local_addr().udp().unwrap();
    client.send_to(b"x", to).unwrap();
    recv(&client);
    while events.try_recv().is_ok() {}
    util::assert_quiet("udpidle");
}

#[test]
fn out_of_descriptors_a_bind_is_an_error_and_not_more() {
    let name = "out_of_descriptors_a_bind_is_an_error_and_not_more";
    util::in_child(name, 64, || {
        let server = Server::new("127.0.0.1:0");
        let client = client("127.0.0.1:0");
        let (sender, events) = channel();
        let hoard: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        let from = sender.clone();
        let bound = server
            .system
            .bind_datagram("127.0.0.1:0", move || Talker::new(&from));
        let text = bound.unwrap_err().to_string();
        assert!(
            text.contains("cannot bind") && text.contains("open files"),
            "{text}"
        );
        server.tell(move |ctx| {
            let talker = Talker::new(&sender);
            ctx.bind_datagram(v4(0), DatagramOptions::new(), talker);
            Ok(())
        });
        assert!(matches!(next(&events), Event::Closed(reason) if reason.contains("open files")));
        // Who is bound goes on.
        client.send_to(b"hello", server.addr()).unwrap();
        assert_eq!(recv(&client).0, b"hello");
        drop(hoard);
    });
}

// ---- a kernel without calls for several ------------------------------------------------------------

/// From here on recvmmsg(2) and sendmmsg(2) fail with ENOSYS for this thread and those that it
/// starts. For a child alone.
fn forbid_calls_for_several() {
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let (load, jump, ret) = (
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        (libc::BPF_RET | libc::BPF_K) as u16,
    );
    let no_such = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let mut program = [
        // The number of the call.
        instruction(load, 0, 0, 0),
        instruction(jump, 2, 0, libc::SYS_recvmmsg as u32),
        instruction(jump, 1, 0, libc::SYS_sendmmsg as u32),
        instruction(ret, 0, 0, libc::SECCOMP_RET_ALLOW),
        instruction(ret, 0, 0, no_such),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program is valid for its length, and both outlive the calls.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter)
    };
    assert_eq!(result, 0, "seccomp: {}", io::Error::last_os_error());
    let none = std::ptr::null_mut::<libc::mmsghdr>();
    // SAFETY: no header is looked at.
    let result = unsafe { libc::recvmmsg(-1, none, 0, 0, std::ptr::null_mut()) };
    let error = io::Error::last_os_error().raw_os_error();
    assert_eq!((result, error), (-1, Some(libc::ENOSYS)));
}

#[test]
fn without_calls_for_several_all_is_the_same() {
    util::in_child("without_calls_for_several_all_is_the_same", 1024, || {
        forbid_calls_for_several();
        a_datagram_is_shown_with_its_sender_and_answered();
        an_answer_leaves_from_the_address_that_was_asked();
        ipv4_is_shown_as_ipv4_on_a_socket_for_both_and_answered_from_where_it_came_to();
        anybody_can_be_sent_to_by_a_message_from_any_thread();
        a_datagram_without_bytes_is_one();
        the_longest_datagram_there_is_comes_whole_and_a_longer_one_is_told();
        a_truncated_datagram_is_told_as_one_and_how_long_it_was();
        a_connected_socket_is_told_that_nobody_is_there_and_goes_on();
        addresses_of_another_kind_are_told_and_the_rest_is_sent();
        past_the_queue_datagrams_are_dropped_and_told_and_drained_follows();
        what_came_with_the_one_that_paused_is_kept_and_shown_in_order();
    });
}
