//! Accepting when the world is not kind: no descriptors left, connects that are gone already,
//! floods of them.

mod util;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::fd::AsRawFd;
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

/// Takes all descriptors that are left.
fn hoard() -> Vec<std::fs::File> {
    let all = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok());
    all.collect()
}

fn full(name: &str) -> Stage {
    let options = ListenOptions::new().at_limit(AtLimit::Refuse("full\n".into()));
    Stage::listen(builder(2).name(name), "127.0.0.1:0", options, |probe| {
        probe.on_readable(|input, ctx| {
            ctx.write(input.take_all());
            Ok(())
        })
    })
}

#[test]
fn out_of_descriptors_a_listener_that_refuses_turns_its_clients_away() {
    let name = "out_of_descriptors_a_listener_that_refuses_turns_its_clients_away";
    in_child(name, 1024, || {
        let lines = log_lines();
        let stage = full("spare");
        let clock = Clock::new();
        let far: Vec<_> = (0..20).map(|_| far_away(socket())).collect();
        assert_serves(&stage);
        wait_until("the first has left", || stage.is_over());
        let before = descriptors();
        lower_descriptor_limit(64);
        let hoard = hoard();
        for (number, socket) in far.into_iter().enumerate() {
            let mut client = connect_socket(socket, tcp_addr(&stage.listener));
            // Also one that has said something first: its farewell is not lost in a reset.
            if number % 2 == 0 {
                let _ = client.write_all(b"hello");
            }
            assert_eq!(read(&client, 5), b"full\n");
        }
        let stats = stage.system.stats();
        assert_eq!(stats.refused_by["descriptors"], 20);
        assert_eq!((stats.refused, stats.accepted), (20, 1));
        assert_eq!(stats.accept_pauses, 0, "the spare was there each time");
        clock.assert_quiet(process_time);
        drop(hoard);
        lower_descriptor_limit(1024);
        wait_until("all that the clients had is closed", || {
            descriptors() == before - 20
        });
        for _ in 0..3 {
            assert_serves(&stage);
        }
        let said = lines.lock().unwrap();
        let said: Vec<_> = said.iter().filter(|line| line.contains("accept")).collect();
        assert_eq!(said.len(), 2, "once, and once that it is over: {said:?}");
        assert!(said[0].contains("turned away") && said[1].contains("accepts again"));
    });
}

#[test]
fn a_spare_that_does_not_come_back_is_done_without() {
    let name = "a_spare_that_does_not_come_back_is_done_without";
    in_child(name, 1024, || {
        let stage = full("robbed");
        let clock = Clock::new();
        let far: Vec<_> = (0..20).map(|_| far_away(socket())).collect();
        assert_serves(&stage);
        wait_until("the first has left", || stage.is_over());
        // The spare's own number is above the limit, and those below are taken: what is given up is
        // lost, as when another thread takes it first.
        lower_descriptor_limit(4);
        let clients: Vec<_> = far
            .into_iter()
            .map(|socket| {
                let mut client = connect_socket(socket, tcp_addr(&stage.listener));
                client.write_all(b"hello").unwrap();
                client
            })
            .collect();
        wait_until("it has tried in vain", || {
            stage.system.stats().accept_pauses > 2
        });
        clock.assert_quiet(process_time);
        assert_eq!(stage.system.stats().refused, 0);
        // Nobody has been turned away without a word: all have waited.
        lower_descriptor_limit(1024);
        for client in &clients {
            assert_eq!(read(client, 5), b"hello");
        }
        drop(clients);
        wait_until("all have left", || stage.is_over());
        // And the spare is there again.
        let far = far_away(socket());
        lower_descriptor_limit(64);
        let hoard = hoard();
        let client = connect_socket(far, tcp_addr(&stage.listener));
        assert_eq!(read_to_end(client), b"full\n");
        drop(hoard);
    });
}

#[test]
fn a_listener_at_its_limit_of_descriptors_says_so_once() {
    says_so_once(
        "a_listener_at_its_limit_of_descriptors_says_so_once",
        Balance::LeastConnections,
    );
}

#[test]
fn pollers_that_accept_for_themselves_say_so_once_together() {
    says_so_once(
        "pollers_that_accept_for_themselves_say_so_once_together",
        Balance::PerPoller,
    );
}

fn says_so_once(name: &str, balance: Balance) {
    in_child(name, 1024, || {
        let lines = log_lines();
        let options = ListenOptions::new().balance(balance);
        let stage = Stage::listen(builder(2).name("once"), "127.0.0.1:0", options, |probe| {
            probe.on_readable(|input, ctx| {
                ctx.write(input.take_all());
                Ok(())
            })
        });
        let far: Vec<_> = (0..30).map(|_| far_away(socket())).collect();
        lower_descriptor_limit(64);
        let mut hoard = hoard();
        let clients: Vec<_> = far
            .into_iter()
            .map(|socket| {
                let mut client = connect_socket(socket, tcp_addr(&stage.listener));
                client.write_all(b"anybody?").unwrap();
                client
            })
            .collect();
        wait_until("it has tried in vain", || {
            stage.system.stats().accept_pauses > 4
        });
        // One descriptor for all of them, one after the other; between them it tries in vain.
        let before = stage.system.stats().accept_pauses;
        drop(hoard.pop());
        let mut left: Vec<_> = clients.iter().collect();
        while !left.is_empty() {
            // Whichever is accepted next.
            let served = poll_readable(&left);
            assert_eq!(read(left[served], 8), b"anybody?");
            left.swap_remove(served).shutdown(Shutdown::Both).unwrap();
        }
        assert!(stage.system.stats().accept_pauses > before + 10);
        let said = lines.lock().unwrap();
        let count = |what: &str| said.iter().filter(|line| line.contains(what)).count();
        assert_eq!(count("accept:"), 1, "{said:?}");
        assert!(count("accepts again") <= 1, "{said:?}");
        let first = said.iter().find(|line| line.contains("accept:")).unwrap();
        assert!(first.contains("127.0.0.1:") && first.contains("backlog"));
    });
}

#[test]
fn who_waits_for_a_listener_that_closes_without_descriptors_is_reset_and_that_is_said() {
    let name = "who_waits_for_a_listener_that_closes_without_descriptors_is_reset_and_that_is_said";
    in_child(name, 1024, || {
        let lines = log_lines();
        let stage = echo("closes", "127.0.0.1:0");
        let far = far_away(socket());
        lower_descriptor_limit(32);
        let hoard = hoard();
        let mut client = connect_socket(far, tcp_addr(&stage.listener));
        wait_until("it has tried in vain", || {
            stage.system.stats().accept_pauses > 0
        });
        stage.listener.close();
        stage.listener.wait_closed(TIMEOUT).unwrap();
        let error = client.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        drop(hoard);
        let said = lines.lock().unwrap();
        assert!(
            said.iter().any(|line| line.contains("is reset")),
            "{said:?}"
        );
    });
}

/// Waits until one of these can be read from, and says which.
fn poll_readable(clients: &[&TcpStream]) -> usize {
    let ask = |client: &&TcpStream| libc::pollfd {
        fd: client.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut asked: Vec<_> = clients.iter().map(ask).collect();
    let timeout = TIMEOUT.as_millis() as libc::c_int;
    // SAFETY: the structures are writable, as many as said, and outlive the call.
    let ready = unsafe { libc::poll(asked.as_mut_ptr(), asked.len() as libc::nfds_t, timeout) };
    assert!(ready > 0, "nobody is served");
    asked.iter().position(|asked| asked.revents != 0).unwrap()
}

#[test]
fn a_system_out_of_open_files_is_come_back_from() {
    let name = "a_system_out_of_open_files_is_come_back_from";
    const ROLE: &str = "GREENROOM_TEST_UNDER_STRACE";
    if std::env::var_os(ROLE).is_some() {
        // The first five accepts fail as strace has them do.
        let lines = log_lines();
        let stage = echo("enfile", "127.0.0.1:0");
        assert_serves(&stage);
        assert_eq!(stage.system.stats().accept_pauses, 5);
        let said = lines.lock().unwrap();
        assert!(
            said.iter()
                .any(|line| line.contains("Too many open files in system")),
            "{said:?}"
        );
        return;
    }
    let this = std::env::current_exe().unwrap();
    let traced = std::process::Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=accept4"])
        .args(["-e", "inject=accept4:error=ENFILE:when=1..5"])
        .arg(this)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, "1")
        .output();
    let output = match traced {
        Ok(output) => output,
        Err(error) => return println!("skipped: strace does not start: {error}"),
    };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if text.contains("ptrace") || text.contains("PTRACE") {
        return println!("skipped: strace may not trace here: {text}");
    }
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{text}");
    assert!(told.contains("1 passed"), "{told}");
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
