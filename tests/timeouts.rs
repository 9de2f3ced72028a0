//! Who says nothing, sends or takes too little, or does not take what a close has to flush, ends
//! with the reason for it. To the moment these are looked at in `simulated_timeouts.rs`.

mod util;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use greenroom::*;
use util::*;

const SOON: Duration = Duration::from_millis(200);

/// Sends, or receives, again and again until that fails; with a little time in between.
fn drip(mut step: impl FnMut() -> bool + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let clock = Clock::new();
        while step() {
            clock.tick();
        }
    })
}

#[test]
fn who_says_nothing_ends_and_who_said_a_byte_or_was_told_one_does_not() {
    let options = ConnectionOptions::new().first_bytes_timeout(SOON);
    let stage = Stage::with(options, |probe| probe);
    let (mut speaking, heard) = stage.pair();
    speaking.write_all(b"x").unwrap();
    heard.read(1);
    let (listening, told) = stage.pair();
    told.run(|ctx| ctx.write(b"welcome"));
    // Two after them, one after the other: their time is over long after that of the first.
    for _ in 0..2 {
        let (client, seen) = stage.pair();
        let reason = seen.closed();
        assert!(matches!(reason, CloseReason::Silent(SOON)), "{reason:?}");
        assert!(read_to_end(client).is_empty(), "an orderly end");
    }
    assert_eq!(stage.system.stats().closed_by["silent"], 2);
    assert!(heard.events.try_recv().is_err());
    assert_eq!(read(&listening, 7), b"welcome");
    assert!(told.events.try_recv().is_err());
    heard.run(|_| ());
    told.run(|_| ());
}

#[test]
fn a_frame_that_comes_byte_by_byte_ends_by_its_rate() {
    let options = ConnectionOptions::new().least_input_rate(1 << 20, SOON);
    let stage = Stage::with(options, |probe| probe.on_readable(|_, _| Ok(())));
    let (mut client, seen) = stage.pair();
    let drip = drip(move || client.write_all(b"x").is_ok());
    let reason = seen.closed();
    let CloseReason::InputRate { kept, least, after } = reason else {
        panic!("{reason:?}")
    };
    assert!(0 < kept && kept < least && least == 1 << 20 && after == SOON);
    drop(stage);
    drip.join().unwrap();
}

/// A client that takes a little of what comes now and then.
fn sip(mut client: TcpStream) -> std::thread::JoinHandle<()> {
    drip(move || client.read(&mut [0; 64]).is_ok_and(|len| len > 0))
}

#[test]
fn a_reader_that_sips_ends_by_its_rate() {
    let options = ConnectionOptions::new()
        .output_max(32 << 20)
        .least_output_rate(32 << 20, SOON);
    let stage = Stage::with(options, |probe| probe);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.run(|ctx| ctx.write(pattern(16 << 20)));
    let sip = sip(client);
    let reason = seen.closed();
    let CloseReason::OutputRate {
        taken,
        least,
        after,
    } = reason
    else {
        panic!("{reason:?}")
    };
    assert!(taken < least && least == 32 << 20 && after == SOON);
    sip.join().unwrap();
}

#[test]
fn a_close_is_not_held_by_a_reader_that_sips() {
    let options = ConnectionOptions::new()
        .output_max(32 << 20)
        .flush_timeout(SOON);
    let stage = Stage::with(options, |probe| probe);
    let other = Duration::from_millis(100);
    for after in [SOON, other] {
        let mut client = connect_small(&stage.listener, 16 << 10);
        let seen = stage.accepted();
        seen.run(move |ctx| {
            ctx.write(pattern(16 << 20));
            if after == SOON {
                ctx.close();
            } else {
                ctx.close_within(after);
            }
        });
        let reason = seen.closed();
        let CloseReason::NotFlushed {
            queued,
            after: told,
        } = reason
        else {
            panic!("{reason:?}")
        };
        assert!(queued > 0 && told == after);
        // What had come is not taken for all.
        let end = loop {
            match client.read(&mut [0; 65536]) {
                Ok(0) => panic!("an orderly end"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    }
    wait_until("all is over", || stage.is_over());
}

#[test]
fn who_is_refused_and_does_not_read_why_is_not_waited_for() {
    let farewell = bytes::Bytes::from(pattern(16 << 20));
    let options = ListenOptions::new()
        .max_connections(1)
        .at_limit(AtLimit::Refuse(farewell));
    let stage = Stage::listen(builder(1), "127.0.0.1:0", options, |probe| probe);
    let (_served, _seen) = stage.pair();
    let _refused = connect_small(&stage.listener, 16 << 10);
    wait_until("it is refused", || stage.system.stats().refused == 1);
    let begun = std::time::Instant::now();
    wait_until("it has gone", || stage.system.stats().connections == 1);
    // Long before a stuck reader would be told so.
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_close_behind_a_file_waits_for_a_reader_that_keeps_on() {
    const LEN: usize = 24 << 20;
    let dir = TempDir::new();
    let path = dir.join("zeros");
    let file = std::fs::File::create_new(&path).unwrap();
    file.set_len(LEN as u64).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let options = ConnectionOptions::new()
        .output_max(4096)
        .watermarks(1024, 4096)
        .flush_timeout(Duration::from_secs(1));
    let stage = Stage::with(options, |probe| probe);
    let (mut client, seen) = stage.pair();
    seen.run(move |ctx| {
        ctx.write_file(file, 0, LEN as u64).unwrap();
        ctx.close();
    });
    // Some megabytes a second, for longer than a close alone may take.
    let mut buffer = vec![0; 128 << 10];
    let mut left = LEN;
    while left > 0 {
        let most = buffer.len().min(left);
        client.read_exact(&mut buffer[..most]).unwrap();
        left -= most;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(matches!(seen.closed(), CloseReason::Finished));
}
