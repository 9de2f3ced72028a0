//! What leaves under TLS: all that holds for output on a plain connection, with a reader that is
//! slow, stuck, or gone.

#[path = "util/tls.rs"]
mod tls_util;
mod util;

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use greenroom::*;
use tls_util::{TlsClient, server};
use util::*;

/// What the kernel takes for a client that does not read, on both sides, stays below this many
/// bytes.
const MORE_THAN_THE_KERNEL_TAKES: usize = 12 << 20;

const PIECE: usize = 100_000;

fn stage(
    options: ConnectionOptions,
    prepare: impl Fn(Probe) -> Probe + Send + Sync + 'static,
) -> Stage {
    let options = ListenOptions::new().tls(server()).connection(options);
    Stage::listen(builder(1), "127.0.0.1:0", options, prepare)
}

fn patient() -> ConnectionOptions {
    ConnectionOptions::new().output_max(2 * MORE_THAN_THE_KERNEL_TAKES)
}

/// A client whose kernel takes little for it, and the probe at the other end.
#[track_caller]
fn slow_pair(stage: &Stage) -> (TlsClient, Seen) {
    let client = TlsClient::new(connect_small(&stage.listener, 16 << 10));
    (client, stage.accepted())
}

#[track_caller]
fn pair(stage: &Stage) -> (TlsClient, Seen) {
    (TlsClient::new(stage.client()), stage.accepted())
}

/// The tokens told so far; everything else is passed over.
fn told(seen: &Seen) -> Vec<u64> {
    let token = |event| match event {
        Event::Written(token) => Some(token),
        _ => None,
    };
    seen.events.try_iter().filter_map(token).collect()
}

#[test]
fn the_notices_of_a_slow_reader_come_as_it_takes_what_stands_before_them() {
    let pieces = MORE_THAN_THE_KERNEL_TAKES / PIECE;
    let (left, queued) = channel();
    let stage = stage(patient(), move |probe| {
        let left = left.clone();
        probe.on_written(move |token, ctx| {
            left.send((token, ctx.queued())).unwrap();
            Ok(())
        })
    });
    let (mut client, seen) = slow_pair(&stage);
    for piece in 0..pieces as u64 {
        seen.run(move |ctx| {
            ctx.write(pattern(PIECE));
            assert!(ctx.notify_written(piece));
        });
    }
    settle(&stage.system);
    assert!(
        told(&seen).len() < pieces,
        "the kernel does not take so much"
    );
    let all = client.read(pieces * PIECE);
    assert_same(&all, &pattern(PIECE).repeat(pieces));
    let told: Vec<(u64, usize)> = (0..pieces).map(|_| next(&queued)).collect();
    for (at, (token, queued)) in told.iter().enumerate() {
        assert_eq!(*token, at as u64);
        assert!(
            *queued <= (pieces - 1 - at) * PIECE,
            "notice {token} came with {queued} bytes waiting"
        );
    }
    settle(&stage.system);
    assert!(queued.try_recv().is_err(), "each is told once");
    wait_until("nothing waits", || seen.addr.queued() == Some(0));
}

#[test]
fn a_close_flushes_to_a_slow_reader_and_says_the_end_behind_the_last_byte() {
    let stage = stage(patient(), |probe| probe);
    let (mut client, seen) = slow_pair(&stage);
    seen.tell(|ctx| {
        ctx.write(pattern(MORE_THAN_THE_KERNEL_TAKES));
        ctx.notify_written(1);
        ctx.close();
        Ok(())
    });
    assert_same(
        &client.read_to_end().unwrap(),
        &pattern(MORE_THAN_THE_KERNEL_TAKES),
    );
    let events = seen.to_the_end();
    let [.., Event::Written(1), Event::Closed(CloseReason::Finished)] = &events[..] else {
        panic!("{events:?}")
    };
    drop(client);
    wait_until("all is over", || stage.is_over());
}

#[test]
fn a_slow_reader_is_closed_at_its_budget_and_its_stream_is_cut() {
    let limit = 1 << 20;
    let stage = stage(ConnectionOptions::new().output_max(limit), |probe| probe);
    let (mut client, seen) = slow_pair(&stage);
    let reason = loop {
        let write = |ctx: &mut Context<'_, Probe>| {
            ctx.write(pattern(PIECE));
            Ok(())
        };
        if let Err(error) = seen.addr.send(Box::new(write)) {
            assert!(error.is_full() || seen.addr.is_gone());
        }
        if let Ok(Event::Closed(reason)) = seen.events.try_recv() {
            break reason;
        }
    };
    let CloseReason::SlowReader {
        queued,
        limit: told,
    } = reason
    else {
        panic!("{reason:?}")
    };
    assert_eq!(told, limit);
    assert!((limit + 1..=limit + PIECE).contains(&queued), "{queued}");
    client.read_to_end().expect_err("it does not look whole");
    wait_until("all is over", || stage.is_over());
}

#[test]
fn a_stuck_reader_is_closed_and_so_is_one_that_is_stuck_before_the_last_record() {
    let after = Duration::from_millis(200);
    let stage = stage(patient().stuck_timeout(after), |probe| probe);
    for closes in [false, true] {
        let (client, seen) = slow_pair(&stage);
        seen.tell(move |ctx| {
            ctx.write(pattern(MORE_THAN_THE_KERNEL_TAKES));
            if closes {
                ctx.close();
            }
            Ok(())
        });
        let reason = seen.closed();
        assert!(
            matches!(reason, CloseReason::StuckReader { .. }),
            "{reason}"
        );
        drop(client);
    }
    wait_until("all is over", || stage.is_over());
}

#[test]
fn a_half_close_that_a_full_socket_does_not_take_is_watched() {
    let options = patient().stuck_timeout(Duration::from_millis(200));
    let stage = stage(options, |probe| probe);
    let (client, seen) = slow_pair(&stage);
    // Fill the kernels until the socket refuses, byte by byte at the end.
    wait_until("the socket is full", || {
        seen.run(|ctx| {
            ctx.write(pattern(if ctx.queued() == 0 { 10_000 } else { 0 }));
        });
        settle(&stage.system);
        seen.run(|ctx| ctx.queued()) > 0
    });
    seen.tell(|ctx| {
        ctx.shutdown_write();
        Ok(())
    });
    let reason = seen.closed();
    assert!(
        matches!(reason, CloseReason::StuckReader { .. }),
        "{reason}"
    );
    drop(client);
}

#[test]
fn a_reader_that_takes_a_little_now_and_then_is_not_stuck() {
    let stuck = Duration::from_millis(500);
    let stage = stage(patient().stuck_timeout(stuck), |probe| probe);
    let (mut client, seen) = slow_pair(&stage);
    seen.tell(|ctx| {
        ctx.write(pattern(MORE_THAN_THE_KERNEL_TAKES));
        Ok(())
    });
    settle(&stage.system);
    let begun = Instant::now();
    let mut wire = vec![0; 20_000];
    while begun.elapsed() < 4 * stuck {
        // Much less than a batch of records in the time that it has.
        client.socket.read_exact(&mut wire).unwrap();
        std::thread::park_timeout(stuck / 10);
    }
    assert!(!seen.addr.is_gone());
}

#[test]
fn drained_comes_once_the_output_has_fallen_to_the_low_watermark() {
    let (low, high) = (50_000, 500_000);
    let (drained, at) = channel();
    let stage = stage(patient().watermarks(low, high), move |probe| {
        let drained = drained.clone();
        probe.on_drained(move |ctx| {
            drained.send(ctx.queued()).unwrap();
            Ok(())
        })
    });
    let (mut client, seen) = slow_pair(&stage);
    seen.run(|ctx| ctx.write(pattern(MORE_THAN_THE_KERNEL_TAKES)));
    settle(&stage.system);
    assert!(at.try_recv().is_err());
    client.read(MORE_THAN_THE_KERNEL_TAKES);
    assert!(next(&at) <= low);
    settle(&stage.system);
    assert!(at.try_recv().is_err(), "once");
}

#[test]
fn the_oldest_writes_are_dropped_whole_and_none_that_is_sealed() {
    let options = ConnectionOptions::new()
        .slow_reader(SlowReader::DropOldest)
        .output_max(200_000);
    let stage = stage(options, |probe| probe);
    let (mut client, seen) = slow_pair(&stage);
    let lines = 60_000;
    for first in (0..lines).step_by(1000) {
        seen.run(move |ctx| {
            for n in first..first + 1000 {
                ctx.write(format!("line {n:0100}\n"));
            }
        });
    }
    seen.tell(|ctx| {
        ctx.close();
        Ok(())
    });
    let got = String::from_utf8(client.read_to_end().unwrap()).unwrap();
    let numbers: Vec<u32> = got
        .lines()
        .map(|line| {
            assert_eq!(line.len(), 105, "{line:?}");
            line["line ".len()..].parse().expect("a whole line")
        })
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b));
    assert_eq!(numbers.last(), Some(&(lines - 1)), "the newest arrives");
    let dropped = stage.system.stats().dropped_writes;
    assert_eq!(numbers.len() as u64 + dropped, u64::from(lines));
    assert!(dropped > 0);
}

#[test]
fn the_last_value_of_each_key_arrives_and_each_is_whole() {
    let stage = stage(patient(), |probe| probe);
    let (mut client, seen) = slow_pair(&stage);
    for round in 0..2000_u32 {
        seen.run(move |ctx| {
            for key in 0..20_u64 {
                ctx.write_latest(key, format!("{key} {round:01000}\n").into());
            }
        });
    }
    seen.tell(|ctx| {
        ctx.close();
        Ok(())
    });
    let got = String::from_utf8(client.read_to_end().unwrap()).unwrap();
    let mut last = [None; 20];
    for line in got.lines() {
        let (key, round) = line.split_once(' ').expect("a whole line");
        assert_eq!(round.len(), 1000);
        let (key, round): (usize, u32) = (key.parse().unwrap(), round.parse().unwrap());
        assert!(last[key] < Some(round), "in order");
        last[key] = Some(round);
    }
    assert_eq!(last, [Some(1999); 20]);
    assert!(stage.system.stats().replaced_writes > 0);
}

/// So many bytes in a file of the test's own.
fn file(dir: &TempDir, len: usize) -> Arc<File> {
    let path = dir.path().join("file");
    std::fs::write(&path, pattern(len)).unwrap();
    Arc::new(File::open(path).unwrap())
}

#[test]
fn files_leave_in_order_with_what_is_written_around_them() {
    let dir = TempDir::new();
    let len = 3 << 20;
    let file = file(&dir, len);
    let stage = stage(patient(), |probe| probe);
    for slow in [false, true] {
        let (mut client, seen) = if slow {
            slow_pair(&stage)
        } else {
            pair(&stage)
        };
        let file = file.clone();
        seen.tell(move |ctx| {
            ctx.write(b"before");
            ctx.write_file(file.clone(), 0, len as u64).unwrap();
            ctx.notify_written(1);
            ctx.write_bytes(Bytes::from_static(b"between"));
            ctx.write_file(file, 10, 10).unwrap();
            ctx.write(b"behind");
            ctx.notify_written(2);
            ctx.close();
            Ok(())
        });
        let mut expected = b"before".to_vec();
        expected.extend(pattern(len));
        expected.extend(b"between");
        expected.extend(&pattern(len)[10..20]);
        expected.extend(b"behind");
        assert_same(&client.read_to_end().unwrap(), &expected);
        let events = seen.to_the_end();
        let [Event::Written(1), Event::Written(2), Event::Closed(_)] = &events[..] else {
            panic!("{events:?}")
        };
    }
}

#[test]
fn a_file_takes_no_more_than_half_of_a_small_budget() {
    let dir = TempDir::new();
    let len = MORE_THAN_THE_KERNEL_TAKES;
    let file = file(&dir, len);
    // The socket is asked again and again, until it takes no byte more.
    let options = ConnectionOptions::new().output_max(8 << 10);
    let options = options.least_output_rate(0, Duration::from_millis(5));
    let stage = stage(options, |probe| probe);
    let (mut client, seen) = slow_pair(&stage);
    seen.run(move |ctx| ctx.write_file(file, 0, len as u64).unwrap());
    let mut before = 0;
    wait_until("the kernel takes no more", || {
        seen.run(|ctx| ctx.set_timer(Duration::from_millis(50)));
        seen.until(|event| matches!(event, Event::Timer(_)).then_some(()));
        let queued = seen.run(|ctx| ctx.queued());
        std::mem::replace(&mut before, queued) == queued
    });
    assert!(before > 0);
    seen.tell(|ctx| {
        ctx.write(pattern(4000));
        ctx.close();
        Ok(())
    });
    let mut expected = pattern(len);
    expected.extend(pattern(4000));
    assert_same(&client.read_to_end().unwrap(), &expected);
    assert!(matches!(seen.closed(), CloseReason::Finished));
}

#[test]
fn a_file_that_ends_early_ends_the_connection_as_cut() {
    let dir = TempDir::new();
    let file = file(&dir, 1000);
    let stage = stage(patient(), |probe| probe);
    let (mut client, seen) = pair(&stage);
    // Shorter than it is when it is written, but by then on its way.
    let path = dir.path().join("file");
    seen.tell(move |ctx| {
        ctx.write_file(file, 0, 1000)?;
        File::options().write(true).open(path)?.set_len(500)?;
        Ok(())
    });
    let reason = seen.closed();
    assert!(matches!(reason, CloseReason::Io(_)), "{reason}");
    client.read_to_end().expect_err("it does not look whole");
}

#[test]
fn our_half_close_is_told_and_the_peer_may_go_on() {
    let stage = stage(patient(), |probe| probe);
    for slow in [false, true] {
        let (mut client, seen) = if slow {
            slow_pair(&stage)
        } else {
            pair(&stage)
        };
        let len = if slow { MORE_THAN_THE_KERNEL_TAKES } else { 10 };
        seen.run(move |ctx| {
            ctx.write(pattern(len));
            ctx.shutdown_write();
        });
        assert_same(&client.read_to_end().unwrap(), &pattern(len));
        client.send("still here");
        assert_eq!(seen.read(10), b"still here");
        client.close_notify();
        assert!(matches!(seen.closed(), CloseReason::PeerClosed));
    }
}

#[test]
fn the_peers_half_close_leaves_the_writing_side_open() {
    let stage = stage(patient(), |probe| probe.on_read_closed(|_| Ok(())));
    let (mut client, seen) = pair(&stage);
    client.send("request");
    client.close_notify();
    assert_eq!(seen.read(7), b"request");
    assert!(matches!(seen.next(), Event::ReadClosed));
    // Not for ever reported to be readable, though its end has come.
    half_close(&client.socket);
    seen.run(|ctx| ctx.write(pattern(100_000)));
    assert_same(&client.read(100_000), &pattern(100_000));
    seen.run(|ctx| ctx.shutdown_write());
    assert_eq!(client.read_to_end().unwrap(), b"");
    assert!(matches!(seen.closed(), CloseReason::PeerClosed));
}

#[test]
fn a_paused_connection_reads_nothing_and_goes_on_where_it_was() {
    let stage = stage(patient(), |probe| probe);
    let (client, seen) = slow_pair(&stage);
    seen.run(|ctx| ctx.pause());
    let sent = 4 << 20;
    let TlsClient {
        mut session,
        mut socket,
    } = client;
    let sender = std::thread::spawn(move || {
        for piece in pattern(sent).chunks(16 << 10) {
            session.writer().write_all(piece).unwrap();
            while session.wants_write() {
                session.write_tls(&mut socket).unwrap();
            }
        }
        session.send_close_notify();
        session.write_tls(&mut socket).unwrap();
        (session, socket)
    });
    // The sender is held back: it has much more than the kernels take.
    settle(&stage.system);
    assert!(seen.events.try_recv().is_err(), "nothing is shown");
    assert!(!sender.is_finished());
    seen.run(|ctx| ctx.resume());
    assert_same(&seen.read(sent), &pattern(sent));
    assert!(matches!(seen.next(), Event::ReadClosed));
    sender.join().unwrap();
}

#[test]
fn an_end_that_comes_in_a_pause_is_told_behind_what_is_kept() {
    let stage = stage(patient(), |probe| {
        let mut is_first = true;
        probe.on_readable(move |input, ctx| {
            if std::mem::take(&mut is_first) {
                // Of what has come with the end behind it.
                input.consume(1);
                ctx.pause();
            } else {
                input.take_all();
            }
            Ok(())
        })
    });
    let (mut client, seen) = pair(&stage);
    client
        .session
        .writer()
        .write_all(b"all in one piece")
        .unwrap();
    client.session.send_close_notify();
    let mut wire = Vec::new();
    while client.session.wants_write() {
        client.session.write_tls(&mut wire).unwrap();
    }
    client.socket.write_all(&wire).unwrap();
    assert!(matches!(seen.next(), Event::Readable(..)));
    settle(&stage.system);
    assert!(
        seen.events.try_recv().is_err(),
        "nothing is shown in a pause"
    );
    seen.run(|ctx| ctx.resume());
    let events = seen.to_the_end();
    let [
        Event::Readable(rest, true),
        Event::ReadClosed,
        Event::Closed(_),
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(rest, b"ll in one piece");
}

#[test]
fn an_abort_and_a_panic_are_no_orderly_ends() {
    let stage = stage(patient(), |probe| {
        probe.on_readable(|input, ctx| {
            if input.take_all() == b"abort" {
                ctx.abort();
                return Ok(());
            }
            panic!("on purpose")
        })
    });
    for how in ["abort", "panic"] {
        let (mut client, seen) = pair(&stage);
        client.send(how);
        client.read_to_end().expect_err("there is no close_notify");
        match seen.closed() {
            CloseReason::Aborted => assert_eq!(how, "abort"),
            CloseReason::Panicked(what) => assert_eq!((how, &what[..]), ("panic", "on purpose")),
            other => panic!("{other}"),
        }
    }
    wait_until("all is over", || stage.is_over());
}

#[test]
fn an_error_of_the_actors_own_flushes_and_says_the_end() {
    let stage = stage(patient(), |probe| {
        probe.on_readable(|_, ctx| {
            ctx.write(b"error: ");
            Err("no such thing".into())
        })
    });
    let (mut client, seen) = pair(&stage);
    client.send("x");
    assert_eq!(client.read_to_end().unwrap(), b"error: ");
    assert!(matches!(seen.closed(), CloseReason::Error(_)));
}

#[test]
fn what_holds_its_source_back_does_so_under_tls() {
    let options = patient().slow_reader(SlowReader::PauseSource);
    let stage = stage(options, |probe| {
        probe.on_readable(|input, ctx| {
            ctx.write(input.take_all());
            Ok(())
        })
    });
    let (client, seen) = slow_pair(&stage);
    let sent = 6 << 20;
    let TlsClient { session, socket } = client;
    let session = Arc::new(std::sync::Mutex::new(session));
    let mut to = socket.try_clone().unwrap();
    let sealing = session.clone();
    let sender = std::thread::spawn(move || {
        for piece in pattern(sent).chunks(16 << 10) {
            let mut wire = Vec::new();
            let mut session = sealing.lock().unwrap();
            session.writer().write_all(piece).unwrap();
            while session.wants_write() {
                session.write_tls(&mut wire).unwrap();
            }
            drop(session);
            to.write_all(&wire).unwrap();
        }
    });
    let mut echo = Vec::new();
    let mut wire = vec![0; 64 << 10];
    let mut from = socket;
    while echo.len() < sent {
        let len = from.read(&mut wire).unwrap();
        assert!(len > 0, "{} bytes came back", echo.len());
        let mut wire = &wire[..len];
        while !wire.is_empty() {
            let mut session = session.lock().unwrap();
            session.read_tls(&mut wire).unwrap();
            let state = session.process_new_packets().unwrap();
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            session.reader().read_exact(&mut plain).unwrap();
            echo.extend(plain);
        }
    }
    assert_same(&echo, &pattern(sent));
    sender.join().unwrap();
    drop(seen);
}

#[test]
fn a_stop_flushes_and_says_the_end() {
    let stage = stage(patient(), |probe| {
        probe.on_stopping(|ctx| {
            ctx.write(b"goodbye");
            ctx.close();
            Ok(())
        })
    });
    let (mut client, seen) = pair(&stage);
    stage.system.handle().stop(Duration::from_secs(20));
    assert_eq!(client.read_to_end().unwrap(), b"goodbye");
    assert!(matches!(seen.closed(), CloseReason::Finished));
    drop(client);
    let Stage { system, .. } = stage;
    system.run().unwrap();
}

#[test]
fn an_idle_connection_is_ended_with_a_word() {
    let options = ConnectionOptions::new().idle_timeout(Duration::from_millis(100));
    let stage = stage(options, |probe| probe);
    let (mut client, seen) = pair(&stage);
    assert_eq!(client.read_to_end().unwrap(), b"");
    assert!(matches!(seen.closed(), CloseReason::Idle(_)));
}
