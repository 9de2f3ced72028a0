//! What one client may hold of the server: input, time, places. Each limit ends in its reason or in
//! an order of waiting.

mod util;

use std::io::Write;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use greenroom::*;
use util::*;

fn lines(options: ConnectionOptions) -> Stage {
    Stage::with(options, |probe| {
        probe.on_readable(|input, ctx| {
            if let Some(line) = input.line(1 << 30)? {
                ctx.write_parts(&[line, b"\n"]);
            }
            Ok(())
        })
    })
}

#[test]
fn input_past_its_limit_ends_the_connection_with_its_reason() {
    let limit = 100_000;
    let stage = lines(ConnectionOptions::new().input_max(limit));
    let (mut client, seen) = stage.pair();
    // An endless line; the client may find its connection closed while it writes.
    let flood = std::thread::spawn(move || while client.write_all(&[b'x'; 10_000]).is_ok() {});
    let reason = seen.closed();
    let CloseReason::InputTooLong { len, limit: told } = reason else {
        panic!("{reason:?}")
    };
    assert_eq!(told, limit);
    assert!(
        len > limit && len <= limit + (64 << 10),
        "at most one read beyond the limit is kept, not {len}"
    );
    drop(stage);
    flood.join().unwrap();
}

#[test]
fn input_of_just_its_limit_is_kept() {
    let stage = lines(ConnectionOptions::new().input_max(100_000));
    let (mut client, _seen) = stage.pair();
    let mut line = vec![b'x'; 100_000];
    client.write_all(&line).unwrap();
    settle(&stage.system);
    client.write_all(b"\n").unwrap();
    line.push(b'\n');
    assert_same(&read(&client, line.len()), &line);
}

#[test]
fn a_need_past_the_limit_of_input_ends_the_connection_at_once() {
    let stage = Stage::with(ConnectionOptions::new().input_max(1000), |probe| {
        probe.on_readable(|input, _| {
            input.need(1001);
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    client.write_all(b"x").unwrap();
    assert!(matches!(
        seen.closed(),
        CloseReason::InputTooLong {
            len: 1001,
            limit: 1000
        }
    ));
}

#[test]
fn pausing_and_resuming_does_not_get_around_input_max() {
    let limit = 200_000;
    let stage = Stage::with(ConnectionOptions::new().input_max(limit), |probe| {
        probe.on_readable(|_, ctx| {
            ctx.pause();
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    let flood = std::thread::spawn(move || while client.write_all(&[b'x'; 10_000]).is_ok() {});
    let mut most = 0;
    for _ in 0..100 {
        match seen.next() {
            Event::Readable(shown, _) => most = most.max(shown.len()),
            Event::Closed(_) => break,
            other => panic!("{other:?}"),
        }
        let resume = |ctx: &mut Context<'_, Probe>| {
            ctx.resume();
            Ok(())
        };
        let _ = seen.addr.send(Box::new(resume));
    }
    assert!(most <= limit + (64 << 10), "{most} bytes were kept");
    drop(stage);
    flood.join().unwrap();
}

#[test]
fn a_frame_that_is_never_completed_ends_the_connection() {
    let after = Duration::from_millis(100);
    let stage = lines(ConnectionOptions::new().incomplete_timeout(after));
    let (mut client, seen) = stage.pair();
    // A byte now and then, as a slowloris does, keeps no place.
    let drip = std::thread::spawn(move || {
        let (_never, tick) = channel::<()>();
        while client.write_all(b"x").is_ok() {
            let _ = tick.recv_timeout(Duration::from_millis(5));
        }
    });
    let reason = seen.closed();
    let CloseReason::SlowSender { kept, after: told } = reason else {
        panic!("{reason:?}")
    };
    assert!(kept > 0);
    assert_eq!(told, after);
    drop(stage);
    drip.join().unwrap();
}

#[test]
fn a_sender_that_completes_its_frames_in_time_is_not_slow() {
    let after = Duration::from_millis(400);
    let stage = lines(ConnectionOptions::new().incomplete_timeout(after));
    let (mut client, _seen) = stage.pair();
    let begun = Instant::now();
    let (_never, tick) = channel::<()>();
    // There is always the beginning of a line kept, and each line comes in time.
    client.write_all(b"ab").unwrap();
    while begun.elapsed() < 3 * after {
        client.write_all(b"cd\nab").unwrap();
        assert_eq!(read(&client, 5), b"abcd\n");
        let _ = tick.recv_timeout(Duration::from_millis(20));
    }
}

#[test]
fn an_idle_connection_is_closed_with_its_reason() {
    let after = Duration::from_millis(50);
    let stage = Stage::with(ConnectionOptions::new().idle_timeout(after), |probe| probe);
    let begun = Instant::now();
    let (client, seen) = stage.pair();
    assert!(matches!(seen.closed(), CloseReason::Idle(told) if told == after));
    assert!(
        begun.elapsed() >= after - Duration::from_millis(2),
        "precise to some milliseconds"
    );
    assert!(read_to_end(client).is_empty());
}

#[test]
fn what_is_received_or_sent_keeps_a_connection_from_being_idle() {
    let after = Duration::from_millis(400);
    let stage = Stage::with(ConnectionOptions::new().idle_timeout(after), |probe| probe);
    let (mut sends, receiver) = stage.pair();
    let (receives, sender) = stage.pair();
    let (_silent, idle) = stage.pair();
    let begun = Instant::now();
    let (_never, tick) = channel::<()>();
    while begun.elapsed() < 3 * after {
        sends.write_all(b"x").unwrap();
        receiver.read(1);
        sender.run(|ctx| ctx.write(b"y"));
        read(&receives, 1);
        let _ = tick.recv_timeout(Duration::from_millis(20));
    }
    assert!(matches!(idle.closed(), CloseReason::Idle(_)));
    assert!(
        sender.events.try_recv().is_err() && receiver.events.try_recv().is_err(),
        "both are still there"
    );
    assert!(
        matches!(receiver.closed(), CloseReason::Idle(_)),
        "once nothing comes it is idle, too"
    );
}

#[test]
fn who_is_not_read_from_is_not_idle() {
    let after = Duration::from_millis(400);
    let stage = Stage::with(ConnectionOptions::new().idle_timeout(after), |probe| {
        probe.on_opened(|ctx| {
            ctx.pause();
            Ok(())
        })
    });
    let mut speaks = stage.client();
    speaks.write_all(b"anybody?").unwrap();
    let paused = stage.accepted();
    let (_silent, other) = stage.pair();
    assert!(matches!(other.closed(), CloseReason::Idle(_)));
    // One that comes later has all of its time, and the first is still there.
    let (_silent, later) = stage.pair();
    assert!(matches!(later.closed(), CloseReason::Idle(_)));
    paused.tell(|ctx| {
        ctx.resume();
        Ok(())
    });
    assert_eq!(paused.read(8), b"anybody?");
    assert!(matches!(paused.closed(), CloseReason::Idle(_)));
}

fn at_most(connections: usize, policy: AtLimit, pollers: usize) -> Stage {
    let options = ListenOptions::new()
        .max_connections(connections)
        .at_limit(policy);
    Stage::listen(builder(pollers), "127.0.0.1:0", options, |probe| {
        probe.on_readable(|input, ctx| {
            ctx.write(input.take_all());
            Ok(())
        })
    })
}

#[test]
fn at_its_limit_a_listener_lets_clients_wait_and_serves_them_when_others_leave() {
    for (pollers, most) in [(1, 1), (1, 2), (2, 2)] {
        let stage = at_most(most, AtLimit::Wait, pollers);
        let mut clients: std::collections::VecDeque<_> = (0..12).map(|_| stage.client()).collect();
        for (number, mut client) in clients.iter().enumerate() {
            client.write_all(&[number as u8; 8]).unwrap();
        }
        for number in 0..12 {
            let client = clients.pop_front().unwrap();
            assert_eq!(
                read(&client, 8),
                [number; 8],
                "in the order of their coming"
            );
            let stats = stage.system.stats();
            assert!(
                stats.accepted <= u64::from(number) + most as u64,
                "{most} at a time: {stats:?}"
            );
            assert!(stage.listener.connections() <= most);
        }
        wait_until("all is over", || stage.is_over());
        assert_eq!(stage.system.stats().refused, 0);
    }
}

#[test]
fn at_its_limit_a_listener_refuses_with_a_farewell_that_arrives() {
    let stage = at_most(2, AtLimit::Refuse(b"full, come again\n"[..].into()), 1);
    let (first, _one) = stage.pair();
    let (mut second, _two) = stage.pair();
    for refused in 1..=3 {
        let mut third = stage.client();
        // It talks before it listens, and gets the farewell all the same. (Or finds the connection
        // closed already.)
        let _ = third.write_all(b"hello");
        assert_eq!(read_to_end(third), b"full, come again\n");
        assert_eq!(stage.system.stats().refused, refused);
    }
    assert_eq!(stage.listener.connections(), 2);
    drop(first);
    wait_until("a place is free", || stage.listener.connections() == 1);
    let (mut third, _three) = stage.pair();
    for client in [&mut second, &mut third] {
        client.write_all(b"echo").unwrap();
        assert_eq!(read(client, 4), b"echo");
    }
    drop((second, third));
    wait_until("all is over", || stage.is_over());
    assert_eq!(
        stage.system.stats().opened,
        3,
        "nobody was made for the refused ones"
    );
}
