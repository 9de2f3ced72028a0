//! Accepting when the world is not kind: no descriptors left, connects that are gone already,
//! floods of them.

mod util;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use greenroom::*;
use util::*;

fn echo(name: &str, endpoint: &str) -> Stage {
    Stage::listen(
        builder(2).name(name),
        endpoint,
        ListenOptions::new(),
        |probe| {
            probe.on_readable(|input, ctx| {
                ctx.write(input.take_all());
                Ok(())
            })
        },
    )
}

/// A client is served.
#[track_caller]
fn assert_serves(stage: &Stage) {
    let mut client = stage.client();
    client.write_all(b"still there?").unwrap();
    assert_eq!(read(client, 12), b"still there?");
}

#[test]
fn with_64_descriptors_640_clients_are_all_served_in_the_end() {
    const CLIENTS: usize = 640;
    // The limit is on the numbers of descriptors: the clients, which live in the same process, take
    // numbers above it first.
    in_child(
        "with_64_descriptors_640_clients_are_all_served_in_the_end",
        1024,
        || {
            let sockets: Vec<_> = (0..CLIENTS).map(|_| far_away(socket())).collect();
            lower_descriptor_limit(64);
            let clock = Clock::new();
            let stage = echo("emfile", "127.0.0.1:0");
            let at_rest = descriptors();
            let mut clients: Vec<_> = sockets
                .into_iter()
                .map(|socket| connect_socket(socket, tcp_addr(&stage.listener)))
                .collect();
            for (number, client) in clients.iter_mut().enumerate() {
                client.write_all(&[number as u8; 100]).unwrap();
            }
            wait_until("the descriptors run out", || {
                stage.system.stats().accept_pauses > 0
            });
            clock.assert_quiet(process_time);
            assert!(stage.system.stats().accepted < 64);
            // Nobody has been turned away: those that wait are served when others leave.
            for (number, client) in clients.drain(..).enumerate() {
                assert_eq!(read(&client, 100), [number as u8; 100]);
            }
            wait_until("all is over", || stage.is_over());
            let stats = stage.system.stats();
            assert_eq!((stats.accepted, stats.panics), (CLIENTS as u64, 0));
            wait_until("all descriptors come back", || {
                descriptors() == at_rest - CLIENTS
            });
            clock.assert_quiet(process_time);
            lower_descriptor_limit(1024);
            assert_serves(&stage);
        },
    );
}

#[test]
fn a_listener_comes_back_by_itself_when_descriptors_do() {
    in_child(
        "a_listener_comes_back_by_itself_when_descriptors_do",
        1024,
        || {
            let stage = echo("comeback", "127.0.0.1:0");
            // Without an end of a connection that could tell the listener.
            let far = far_away(socket());
            lower_descriptor_limit(16);
            let mut hoard = Vec::new();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                hoard.push(file);
            }
            let mut client = connect_socket(far, tcp_addr(&stage.listener));
            client.write_all(b"anybody?").unwrap();
            wait_until("the descriptors run out", || {
                stage.system.stats().accept_pauses > 0
            });
            drop(hoard);
            assert_eq!(read(&client, 8), b"anybody?");
        },
    );
}

#[test]
fn a_flood_of_connects_that_close_at_once_is_survived() {
    in_child(
        "a_flood_of_connects_that_close_at_once_is_survived",
        1024,
        || {
            let count: usize =
                std::env::var("GREENROOM_FLOOD").map_or(20_000, |count| count.parse().unwrap());
            let stage = echo("flood", "0.0.0.0:0");
            let port = tcp_addr(&stage.listener).port();
            assert_serves(&stage);
            settle(&stage.system);
            wait_until("the first has left", || stage.is_over());
            let at_rest = descriptors();
            let clients = (0..2).map(|half| {
                std::thread::spawn(move || {
                    for number in 0..count / 2 {
                        // Many addresses, since each has only so many ports, and a closed one is
                        // not free for a minute.
                        let host = Ipv4Addr::new(127, 0, half + 1, (number % 200) as u8 + 1);
                        // The system may be out of descriptors or slow: then it is one client less.
                        let Ok(mut client) = TcpStream::connect((host, port)) else {
                            continue;
                        };
                        match number % 4 {
                            0 => {}
                            1 => reset(client),
                            2 => drop(client.write_all(b"half a li")),
                            _ => {
                                let _ = client.write_all(b"half a li");
                                reset(client);
                            }
                        }
                    }
                })
            });
            for client in clients.collect::<Vec<_>>() {
                client.join().unwrap();
            }
            wait_until("all is over", || stage.is_over());
            let stats = stage.system.stats();
            assert!(stats.accepted as usize > count / 2, "{stats:?}");
            assert_eq!(
                (stats.opened, stats.panics),
                (stats.accepted + 2, 0),
                "who was accepted, and the probes of `settle`: {stats:?}"
            );
            wait_until("all descriptors come back", || descriptors() == at_rest);
            assert_quiet("flood");
            assert_serves(&stage);
        },
    );
}

#[test]
fn a_connect_that_is_reset_before_it_is_accepted_is_nothing() {
    let stage = echo("early", "127.0.0.1:0");
    // Both pollers, since either may have the listener.
    let hubs = [0, 1].map(|poller| spawn(&stage.system, poller, |probe| probe));
    let held = hubs.each_ref().map(hold);
    for number in 0..20 {
        let mut client = stage.client();
        if number % 2 == 0 {
            client.write_all(b"half a li").unwrap();
        }
        reset(client);
    }
    drop(held);
    assert_serves(&stage);
    wait_until("all is over", || stage.system.stats().connections == 0);
    let stats = stage.system.stats();
    assert_eq!(
        (stats.opened, stats.closed + 2, stats.accept_pauses),
        (stats.accepted + 2, stats.opened, 0)
    );
}

#[test]
fn a_client_that_connects_and_says_nothing_holds_up_nobody() {
    let stage = echo("silent", "127.0.0.1:0");
    let _silent: Vec<_> = (0..100).map(|_| stage.client()).collect();
    assert_serves(&stage);
}

#[test]
fn garbage_is_shown_to_its_actor_and_harms_nobody_else() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_readable(|input, ctx| {
            while let Some(line) = input.line(4096)? {
                let line = std::str::from_utf8(line)?;
                ctx.write_parts(&[line.as_bytes(), b"\n"]);
            }
            Ok(())
        })
    });
    let (mut neighbour, _seen) = stage.pair();
    let (mut garbage, seen) = stage.pair();
    garbage.write_all(b"\xff\xfe\x00\n").unwrap();
    assert!(matches!(seen.closed(), CloseReason::Error(_)));
    let (mut endless, seen) = stage.pair();
    let _ = endless.write_all(&[b'x'; 100_000]);
    let reason = seen.closed();
    assert!(
        matches!(&reason, CloseReason::Error(error) if error.to_string().contains("4096")),
        "{reason}"
    );
    let (mut half, seen) = stage.pair();
    half.write_all(b"in the middle of a li").unwrap();
    seen.next();
    reset(half);
    assert!(matches!(seen.closed(), CloseReason::Reset));
    neighbour.write_all(b"fine\n").unwrap();
    assert_eq!(read(&neighbour, 5), b"fine\n");
    neighbour
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    assert!(neighbour.read(&mut [0; 1]).is_err(), "and nothing else");
}
