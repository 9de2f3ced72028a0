//! Whom a listener lets in, when, and to which poller.

mod util;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use greenroom::*;
use util::*;

fn serve(pollers: usize, options: ListenOptions) -> Stage {
    Stage::listen(builder(pollers), "127.0.0.1:0", options, echo)
}

fn echo(probe: Probe) -> Probe {
    probe.on_readable(|input, ctx| {
        ctx.write(input.take_all());
        Ok(())
    })
}

#[track_caller]
fn assert_served(mut client: &TcpStream) {
    client.write_all(b"served?").unwrap();
    assert_eq!(read(client, 7), b"served?");
}

fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, number)
}

/// A client from an address of its own, and its probe.
fn pair_from(stage: &Stage, number: u8) -> (TcpStream, Seen) {
    let client = connect_from(host(number), tcp_addr(&stage.listener));
    (client, stage.accepted())
}

fn refused_by(system: &System, cause: &str) -> u64 {
    system.stats().refused_by[cause]
}

// ---- to which poller ----------------------------------------------------------------------------

#[test]
fn all_connections_of_an_address_go_to_one_poller() {
    let stage = serve(3, ListenOptions::new().balance(Balance::SourceHash));
    let mut clients = Vec::new();
    let mut homes = Vec::new();
    for round in 0..3 {
        for number in 0..20 {
            let (client, seen) = pair_from(&stage, number);
            if round == 0 {
                homes.push(seen.addr.poller());
            }
            assert_eq!(seen.addr.poller(), homes[usize::from(number)]);
            clients.push(client);
        }
    }
    for poller in 0..3 {
        assert!(
            homes.contains(&poller),
            "20 addresses, and none to {poller}"
        );
    }
    // In the next run as in this one.
    let again = serve(3, ListenOptions::new().balance(Balance::SourceHash));
    for number in 0..20 {
        let (_client, seen) = pair_from(&again, number);
        assert_eq!(seen.addr.poller(), homes[usize::from(number)]);
    }
}

#[test]
fn peers_without_an_address_go_where_there_are_fewest() {
    let dir = TempDir::new();
    let path = dir.join("socket");
    let system = builder(2).build().unwrap();
    let endpoint = format!("unix:{}", path.display());
    let options = ListenOptions::new().balance(Balance::SourceHash);
    let (_listener, opened) = listen(&system, &endpoint, options, echo);
    let mut counts = [0; 2];
    let _clients: Vec<_> = (0..8)
        .map(|_| {
            let client = UnixStream::connect(&path).unwrap();
            match next(&next(&opened)) {
                Event::Opened(addr) => counts[addr.poller()] += 1,
                other => panic!("{other:?}"),
            }
            client
        })
        .collect();
    assert_eq!(counts, [4, 4]);
}

#[test]
fn a_closure_chooses_by_peer_and_load() {
    let seen_loads = Arc::new(Mutex::new(Vec::new()));
    let note = seen_loads.clone();
    let options = ListenOptions::new().balance_by(move |peer, loads| {
        let all: Vec<_> = loads
            .pollers()
            .iter()
            .map(|n| loads.connections(*n))
            .collect();
        note.lock().unwrap().push((all, loads.least()));
        match peer.ip() {
            Some(ip) if ip == host(7) => 2,
            _ => loads.least(),
        }
    });
    let stage = serve(3, options);
    let mut pairs = Vec::new();
    for _ in 0..4 {
        pairs.push(pair_from(&stage, 7));
        assert_eq!(pairs.last().unwrap().1.addr.poller(), 2);
    }
    for expected in [0, 1, 0, 1] {
        pairs.push(pair_from(&stage, 8));
        assert_eq!(pairs.last().unwrap().1.addr.poller(), expected);
    }
    let loads = seen_loads.lock().unwrap();
    assert_eq!(loads[0], (vec![0, 0, 0], 0));
    assert_eq!(loads[7], (vec![2, 1, 4], 1));
    assert_eq!(stage.system.stats().misdirected, 0);
}

#[test]
fn a_choice_that_is_none_goes_to_the_poller_with_the_fewest_and_is_counted() {
    let calls = AtomicUsize::new(0);
    let options = ListenOptions::new()
        .pollers([0, 2])
        .balance_by(
            move |_, _| match calls.fetch_add(1, Ordering::Relaxed) % 3 {
                0 => 1,
                1 => usize::MAX,
                _ => panic!("no idea"),
            },
        );
    let stage = serve(3, options);
    let pairs: Vec<_> = (0..6).map(|_| stage.pair()).collect();
    let homes: Vec<_> = pairs.iter().map(|(_, seen)| seen.addr.poller()).collect();
    assert_eq!(homes, [0, 2, 0, 2, 0, 2]);
    for (client, _) in &pairs {
        assert_served(client);
    }
    let stats = stage.system.stats();
    assert_eq!((stats.misdirected, stats.panics), (6, 2));
}

#[test]
fn a_listener_serves_the_pollers_that_it_was_given_and_no_others() {
    for balance in [
        Balance::LeastConnections,
        Balance::RoundRobin,
        Balance::SourceHash,
        Balance::PerPoller,
    ] {
        let options = ListenOptions::new().balance(balance).pollers([3, 1, 3]);
        let stage = serve(4, options);
        let mut counts = [0; 4];
        let pairs: Vec<_> = (0..40).map(|number| pair_from(&stage, number)).collect();
        for (_, seen) in &pairs {
            counts[seen.addr.poller()] += 1;
        }
        assert_eq!((counts[0], counts[2]), (0, 0), "{balance:?}");
        assert!(counts[1] > 0 && counts[3] > 0, "{balance:?}: {counts:?}");
        if matches!(balance, Balance::LeastConnections | Balance::RoundRobin) {
            assert_eq!(counts, [0, 20, 0, 20], "{balance:?}");
        }
    }
}

#[test]
fn a_poller_that_the_system_does_not_have_is_an_error_that_says_so() {
    let system = builder(2).build().unwrap();
    let options = ListenOptions::new().pollers([0, 2]);
    let listened = system.listen_with("127.0.0.1:0", options, |_| Probe::new(channel()));
    let error = listened.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    let text = error.to_string();
    assert!(
        text.contains("no poller 2") && text.contains("has 2"),
        "{text}"
    );
}

fn channel() -> std::sync::mpsc::Sender<Event> {
    std::sync::mpsc::channel().0
}

#[test]
fn options_that_would_serve_nobody_are_refused_by_name() {
    let says = |what: &str, set: &dyn Fn() -> ListenOptions| {
        let set = std::panic::AssertUnwindSafe(set);
        let panic = std::panic::catch_unwind(|| drop(set())).unwrap_err();
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap();
        assert!(text.starts_with(what), "{text}");
    };
    let new = ListenOptions::new;
    says("max_per_source:", &|| new().max_per_source(0));
    says("source_prefixes: an IPv4", &|| new().source_prefixes(0, 64));
    says("source_prefixes: an IPv4", &|| {
        new().source_prefixes(33, 64)
    });
    says("source_prefixes: an IPv6", &|| new().source_prefixes(32, 0));
    says("source_prefixes: an IPv6", &|| {
        new().source_prefixes(32, 129)
    });
    says("accept_rate:", &|| new().accept_rate(0, 1));
    says("accept_rate:", &|| new().accept_rate(1, 0));
    says("accepts_per_turn:", &|| new().accepts_per_turn(0));
    says("pollers:", &|| new().pollers([]));
    let panic = std::panic::catch_unwind(|| System::builder().max_connections(0)).unwrap_err();
    let text = panic.downcast_ref::<&str>().unwrap();
    assert!(text.starts_with("max_connections:"), "{text}");
}

// ---- how many -----------------------------------------------------------------------------------

#[test]
fn a_source_has_so_many_connections_and_others_are_served_beside_it() {
    let options = ListenOptions::new()
        .max_per_source(2)
        .source_farewell("too many of you\n");
    for balance in [Balance::RoundRobin, Balance::PerPoller] {
        let stage = serve(2, options.clone().balance(balance));
        let addr = tcp_addr(&stage.listener);
        let mut mine: Vec<_> = (0..2).map(|_| pair_from(&stage, 1)).collect();
        for _ in 0..5 {
            let further = connect_from(host(1), addr);
            assert_eq!(read_to_end(&further), b"too many of you\n");
        }
        let (other, _seen) = pair_from(&stage, 2);
        for client in [&mine[0].0, &mine[1].0, &other] {
            assert_served(client);
        }
        assert_eq!(refused_by(&stage.system, "source limit"), 5);
        let stats = stage.system.stats();
        assert_eq!((stats.refused, stats.accepted, stats.opened), (5, 3, 3));
        // Whoever leaves makes room for one, and no more.
        let (client, seen) = mine.pop().unwrap();
        drop(client);
        seen.to_the_end();
        settle(&stage.system);
        let (again, _seen) = pair_from(&stage, 1);
        assert_served(&again);
        assert_eq!(
            read_to_end(connect_from(host(1), addr)),
            b"too many of you\n"
        );
    }
}

#[test]
fn without_a_farewell_a_source_past_its_limit_is_closed_at_once() {
    let stage = serve(1, ListenOptions::new().max_per_source(1));
    let (_client, _seen) = stage.pair();
    let mut further = stage.client();
    // In order, unless it has said something that nobody reads.
    assert_eq!(further.read(&mut [0; 1]).unwrap(), 0);
    wait_until("its descriptor is free", || {
        stage.system.stats().connections == 1
    });
}

#[test]
fn behind_a_proxy_the_source_is_the_client_that_the_proxy_names() {
    let proxies = ProxyProtocol::trusting(["127.0.0.1"]).unwrap();
    let options = ListenOptions::new()
        .max_per_source(1)
        .source_farewell("too many of you\n")
        .proxy_protocol(proxies);
    let stage = serve(1, options);
    let client_of = |ip: &str| {
        let mut client = stage.client();
        let header = format!("PROXY TCP4 {ip} 10.9.9.9 4000 80\r\n");
        client.write_all(header.as_bytes()).unwrap();
        client
    };
    let first = client_of("10.0.0.1");
    assert_served(&first);
    let second = client_of("10.0.0.2");
    assert_served(&second);
    assert_eq!(read_to_end(client_of("10.0.0.1")), b"too many of you\n");
    assert_eq!(refused_by(&stage.system, "source limit"), 1);
    assert_eq!(
        stage.listener.connections(),
        2,
        "it has given its place back"
    );
    drop((first, second));
    wait_until("all have left", || stage.is_over());
    assert_served(&client_of("10.0.0.1"));
}

#[test]
fn a_source_is_as_wide_as_its_prefix_says() {
    let options = ListenOptions::new()
        .max_per_source(1)
        .source_prefixes(31, 64);
    let stage = serve(1, options);
    let addr = tcp_addr(&stage.listener);
    let _two = pair_from(&stage, 2);
    assert!(read_to_end(connect_from(host(3), addr)).is_empty());
    let (four, _seen) = pair_from(&stage, 4);
    assert_served(&four);
}

#[test]
fn however_many_pollers_accept_no_limit_is_passed() {
    const MAX: usize = 5;
    // Counted by the actors themselves.
    let inside = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    for by_source in [false, true] {
        let (inside, most) = (inside.clone(), most.clone());
        let options = ListenOptions::new().balance(Balance::PerPoller);
        let options = if by_source {
            options.max_per_source(MAX)
        } else {
            options
                .max_connections(MAX)
                .at_limit(AtLimit::Refuse(Default::default()))
        };
        let stage = Stage::listen(builder(3), "127.0.0.1:0", options, {
            let (inside, most) = (inside.clone(), most.clone());
            move |probe| {
                let (inside, most, left) = (inside.clone(), most.clone(), inside.clone());
                probe
                    .on_opened(move |_| {
                        let now = 1 + inside.fetch_add(1, Ordering::SeqCst);
                        most.fetch_max(now, Ordering::SeqCst);
                        Ok(())
                    })
                    .on_closed(move |_, _| {
                        left.fetch_sub(1, Ordering::SeqCst);
                    })
            }
        });
        let addr = tcp_addr(&stage.listener);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..150 {
                        drop(TcpStream::connect(addr));
                    }
                });
            }
        });
        wait_until("all have come, and left", || {
            let stats = stage.system.stats();
            stats.accepted + stats.refused == 600 && stage.is_over()
        });
        assert_eq!(inside.load(Ordering::SeqCst), 0);
        let most = most.load(Ordering::SeqCst);
        assert!((1..=MAX).contains(&most), "{most} were inside");
        // And every place is there again.
        let _clients: Vec<_> = (0..MAX).map(|_| stage.client()).collect();
        wait_until("all places are taken", || {
            stage.listener.connections() == MAX
        });
        assert!(read_to_end(stage.client()).is_empty());
    }
}

#[test]
fn the_limit_of_a_system_is_for_all_its_listeners_each_with_its_own_policy() {
    let system = builder(2).max_connections(3).build().unwrap();
    let (waits, waiting) = listen(&system, "127.0.0.1:0", ListenOptions::new(), echo);
    let full = ListenOptions::new().at_limit(AtLimit::Refuse("full\n".into()));
    let (refuses, _opened) = listen(&system, "127.0.0.1:0", full, echo);
    // One by one: a listener whose clients wait holds a place while it looks for the next one.
    let mut clients = [&waits, &refuses, &waits].map(|listener| {
        let client = connect(listener);
        assert_served(&client);
        client
    });
    assert_eq!(read_to_end(connect(&refuses)), b"full\n");
    assert_eq!(refused_by(&system, "system limit"), 1);
    let waiter = connect(&waits);
    settle(&system);
    assert_eq!(system.stats().accepted, 3, "one waits");
    // Room that a connection of the one listener leaves is the other's as well.
    let [_, leaves, _] = &mut clients;
    half_close(leaves);
    assert!(read_to_end(&mut *leaves).is_empty());
    assert_served(&waiter);
    drop(waiting);
}

#[test]
fn accepts_per_turn_bounds_what_one_turn_takes() {
    let options = ListenOptions::new().accepts_per_turn(3);
    let stage = serve(1, options);
    let (_client, seen) = stage.pair();
    let held = hold(&seen);
    let clients: Vec<_> = (0..10).map(|_| stage.client()).collect();
    // Behind the connects in one turn: as many as were accepted before it.
    let seen_after = Arc::new(Mutex::new(Vec::new()));
    let note = seen_after.clone();
    let handle = stage.system.handle();
    seen.tell(move |_| {
        note.lock().unwrap().push(handle.stats().accepted);
        Ok(())
    });
    drop(held);
    for client in &clients {
        assert_served(client);
    }
    let first = seen_after.lock().unwrap()[0];
    assert!(first <= 1 + 3, "{first} were accepted in a turn or less");
}

// ---- when ---------------------------------------------------------------------------------------

#[test]
fn a_rate_lets_a_burst_in_at_once_and_the_others_in_their_turn() {
    for balance in [Balance::LeastConnections, Balance::PerPoller] {
        let options = ListenOptions::new().accept_rate(50, 5).balance(balance);
        let stage = serve(2, options);
        let begun = Instant::now();
        let clients: Vec<_> = (0..20).map(|_| stage.client()).collect();
        for client in &clients {
            assert_served(client);
        }
        let least = Duration::from_secs(15) / 50;
        assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
        assert!(stage.system.stats().rate_waits > 0);
    }
}

#[test]
fn whoever_waits_for_a_token_costs_no_processor() {
    let name = "tokens";
    let options = ListenOptions::new().accept_rate(1, 1);
    let stage = Stage::listen(builder(1).name(name), "127.0.0.1:0", options, echo);
    let (_client, _seen) = stage.pair();
    let waiter = stage.client();
    assert_quiet(name);
    drop(waiter);
}

#[test]
fn a_paused_listener_serves_nobody_and_a_resumed_one_all_who_waited() {
    for balance in [Balance::LeastConnections, Balance::PerPoller] {
        let stage = serve(2, ListenOptions::new().balance(balance));
        let (before, _seen) = stage.pair();
        assert!(!stage.listener.is_paused());
        stage.listener.pause();
        stage.listener.pause();
        assert!(stage.listener.is_paused() && !stage.listener.is_closed());
        settle(&stage.system);
        let waiting: Vec<_> = (0..30).map(|_| stage.client()).collect();
        for mut client in &waiting {
            client.write_all(b"served?").unwrap();
        }
        settle(&stage.system);
        assert_eq!(stage.system.stats().accepted, 1, "{balance:?}");
        assert_served(&before);
        stage.listener.resume();
        stage.listener.resume();
        assert!(!stage.listener.is_paused());
        for client in &waiting {
            assert_eq!(read(client, 7), b"served?");
        }
    }
}

#[test]
fn a_paused_listener_spins_not_and_may_be_paused_from_a_callback() {
    let name = "paused";
    let listener = Arc::new(Mutex::new(None::<Listener>));
    let shared = listener.clone();
    let stage = Stage::listen(
        builder(1).name(name),
        "127.0.0.1:0",
        ListenOptions::new(),
        move |probe| {
            let listener = shared.clone();
            probe.on_readable(move |input, ctx| {
                if let Some(listener) = &*listener.lock().unwrap() {
                    match input.take_all() {
                        b"pause" => listener.pause(),
                        _ => listener.resume(),
                    }
                }
                ctx.write("done");
                Ok(())
            })
        },
    );
    *listener.lock().unwrap() = Some(stage.listener.clone());
    let mut switch = stage.client();
    switch.write_all(b"pause").unwrap();
    assert_eq!(read(&switch, 4), b"done");
    let mut waits = stage.client();
    waits.write_all(b"resume").unwrap();
    assert_quiet(name);
    assert_eq!(stage.system.stats().accepted, 1);
    switch.write_all(b"resume").unwrap();
    assert_eq!(read(&waits, 4), b"done");
}

#[test]
fn a_pause_at_the_limit_ends_at_the_limit() {
    let stage = serve(1, ListenOptions::new().max_connections(1));
    let (first, seen) = stage.pair();
    let second = stage.client();
    settle(&stage.system);
    stage.listener.pause();
    drop(first);
    seen.to_the_end();
    settle(&stage.system);
    assert_eq!(
        stage.system.stats().accepted,
        1,
        "there is room, and a pause"
    );
    stage.listener.resume();
    assert_served(&second);
    let third = stage.client();
    stage.listener.pause();
    stage.listener.resume();
    settle(&stage.system);
    assert_eq!(
        stage.system.stats().accepted,
        2,
        "there is no pause, and no room"
    );
    drop(second);
    assert_served(&third);
}

#[test]
fn a_listener_that_closes_serves_those_who_waited_for_its_pause_or_its_rate() {
    for balance in [Balance::LeastConnections, Balance::PerPoller] {
        let options = ListenOptions::new().balance(balance).accept_rate(1, 1);
        let stage = serve(2, options);
        stage.listener.pause();
        settle(&stage.system);
        let waiting: Vec<_> = (0..30).map(|_| stage.client()).collect();
        stage.listener.close();
        for client in &waiting {
            assert_served(client);
        }
    }
}

#[test]
fn closing_can_be_waited_for_and_then_the_address_is_free() {
    let dir = TempDir::new();
    let path = dir.join("socket");
    for (balance, pollers) in [(Balance::LeastConnections, 1), (Balance::PerPoller, 3)] {
        let stage = serve(pollers, ListenOptions::new().balance(balance));
        let (client, _seen) = stage.pair();
        let error = stage
            .listener
            .wait_closed(Duration::from_millis(5))
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("127.0.0.1:"), "{error}");
        stage.listener.close();
        stage.listener.wait_closed(TIMEOUT).unwrap();
        assert!(stage.listener.is_closed());
        stage.listener.wait_closed(Duration::ZERO).unwrap();
        // At once, and by somebody who shares the address with nobody.
        TcpListener::bind(tcp_addr(&stage.listener)).unwrap();
        assert_served(&client);
        // What is asked of it now is harmless.
        stage.listener.pause();
        stage.listener.resume();
        stage.listener.close();
        assert!(stage.listener.is_closed());
    }
    let system = builder(1).build().unwrap();
    let endpoint = format!("unix:{}", path.display());
    let (listener, _opened) = listen(&system, &endpoint, ListenOptions::new(), echo);
    listener.close();
    listener.wait_closed(TIMEOUT).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_stop_closes_listeners_also_paused_ones() {
    let stage = serve(2, ListenOptions::new().balance(Balance::PerPoller));
    stage.listener.pause();
    settle(&stage.system);
    let waits = stage.client();
    stage.system.handle().stop(TIMEOUT);
    stage.listener.wait_closed(TIMEOUT).unwrap();
    // Who waited is accepted, told of the stop, and closed in order.
    assert!(read_to_end(&waits).is_empty());
    drop(stage.system);
    assert!(stage.listener.is_closed());
}

#[test]
fn waiting_for_a_close_is_refused_on_a_poller() {
    let stage = serve(1, ListenOptions::new());
    let (_client, seen) = stage.pair();
    let listener = stage.listener.clone();
    seen.tell(move |_| {
        listener.close();
        listener.wait_closed(TIMEOUT)?;
        Ok(())
    });
    let reason = seen.closed();
    assert!(
        matches!(&reason, CloseReason::Panicked(text) if text.contains("block a poller")),
        "{reason}"
    );
}

#[test]
fn a_listener_says_what_it_is() {
    let stage = serve(1, ListenOptions::new());
    let text = format!("{:?}", stage.listener);
    assert!(
        text.contains("is_paused: false") && text.contains("is_closed: false"),
        "{text}"
    );
    let options = ListenOptions::new().balance_by(|_, loads| {
        assert_eq!(format!("{loads:?}"), "{0: 0, 1: 0}");
        loads.least()
    });
    assert!(format!("{options:?}").contains("Choose(..)"));
    let stage = serve(2, options);
    let (client, _seen) = stage.pair();
    assert_served(&client);
    assert_eq!(stage.system.stats().panics, 0);
}
