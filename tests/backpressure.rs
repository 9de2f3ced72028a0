//! Readers that are stuck or slow: each ends with its reason, or holds its source back, or loses
//! whole writes that are counted.

mod util;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use greenroom::*;
use util::*;

/// What the kernel takes for a client that does not read, on both sides, stays below this many
/// bytes.
const MORE_THAN_THE_KERNEL_TAKES: usize = 12 << 20;

#[test]
fn a_slow_reader_is_closed_at_its_budget_and_the_reason_tells_it() {
    let limit = 1 << 20;
    let stage = Stage::with(ConnectionOptions::new().output_max(limit), |probe| probe);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    let block = pattern(100_000);
    let mut written = 0;
    let reason = loop {
        let piece = block.clone();
        // From the end on nobody takes a message.
        let write = move |ctx: &mut Context<'_, Probe>| {
            ctx.write(piece);
            Ok(())
        };
        match seen.addr.send(Box::new(write)) {
            Ok(()) => written += block.len(),
            Err(error) => assert!(error.is_full() || seen.addr.is_gone()),
        }
        if let Ok(Event::Closed(reason)) = seen.events.try_recv() {
            break reason;
        }
        assert!(written < 1 << 30, "the connection ends");
    };
    let CloseReason::SlowReader {
        queued,
        limit: told,
    } = reason
    else {
        panic!("{reason:?}")
    };
    assert_eq!(told, limit);
    assert!(
        (limit + 1..=limit + block.len()).contains(&queued),
        "{queued} bytes were queued"
    );
    drop(client);
    wait_until("all is over", || stage.is_over());
}

#[test]
fn the_budget_counts_what_one_callback_writes_and_nothing_of_it_leaves_past_it() {
    let stage = Stage::with(ConnectionOptions::new().output_max(1000), |probe| probe);
    let (client, seen) = stage.pair();
    assert!(
        seen.run(|ctx| ctx.write([b'a'; 600]) && ctx.write([b'b'; 400])),
        "just its budget"
    );
    assert_eq!(read(&client, 1000).len(), 1000);
    seen.tell(|ctx| {
        ctx.write([b'c'; 600]);
        ctx.write([b'd'; 401]);
        Ok(())
    });
    assert!(matches!(
        seen.closed(),
        CloseReason::SlowReader {
            queued: 1001,
            limit: 1000
        }
    ));
}

#[test]
fn a_stuck_reader_is_closed_after_a_time_without_progress() {
    let after = Duration::from_millis(50);
    let options = ConnectionOptions::new()
        .output_max(2 * MORE_THAN_THE_KERNEL_TAKES)
        .stuck_timeout(after);
    let stage = Stage::with(options, |probe| probe);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.run(|ctx| ctx.write(pattern(MORE_THAN_THE_KERNEL_TAKES)));
    let reason = seen.closed();
    let CloseReason::StuckReader {
        queued,
        after: told,
    } = reason
    else {
        panic!("{reason:?}")
    };
    assert!(queued > 0 && queued < MORE_THAN_THE_KERNEL_TAKES);
    assert_eq!(told, after);
    drop(client);
    wait_until("all is over", || stage.is_over());
}

#[test]
fn a_stuck_reader_is_closed_also_while_its_connection_closes() {
    let after = Duration::from_millis(50);
    let options = ConnectionOptions::new()
        .output_max(2 * MORE_THAN_THE_KERNEL_TAKES)
        .stuck_timeout(after);
    let stage = Stage::with(options, |probe| probe);
    let _client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.tell(|ctx| {
        ctx.write(pattern(MORE_THAN_THE_KERNEL_TAKES));
        ctx.close();
        Ok(())
    });
    assert!(matches!(seen.closed(), CloseReason::StuckReader { .. }));
}

#[test]
fn a_reader_that_takes_a_little_now_and_then_is_not_stuck() {
    let after = Duration::from_millis(400);
    let options = ConnectionOptions::new()
        .output_max(2 * MORE_THAN_THE_KERNEL_TAKES)
        .stuck_timeout(after);
    let stage = Stage::with(options, |probe| probe);
    let mut client = connect_small(&stage.listener, 64 << 10);
    let seen = stage.accepted();
    let bytes = pattern(MORE_THAN_THE_KERNEL_TAKES);
    let written = bytes.clone();
    seen.tell(move |ctx| {
        ctx.write(written);
        ctx.close();
        Ok(())
    });
    // Three times the timeout goes by while it takes a share every 20 ms, then it takes the rest.
    let (_never, tick) = channel::<()>();
    let begun = Instant::now();
    let mut taken = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while begun.elapsed() < 3 * after {
        let len = client.read(&mut buffer).unwrap();
        taken.extend_from_slice(&buffer[..len]);
        let _ = tick.recv_timeout(Duration::from_millis(20));
    }
    taken.extend(read_to_end(&client));
    assert_same(&taken, &bytes);
    assert!(matches!(seen.closed(), CloseReason::Finished));
}

#[test]
fn a_source_is_held_back_by_its_own_slowness_and_nothing_is_lost() {
    let high = 64 << 10;
    let options = ConnectionOptions::new()
        .slow_reader(SlowReader::PauseSource)
        .output_max(4 << 20)
        .watermarks(16 << 10, high);
    let (highest, is_held) = (Arc::new(AtomicUsize::new(0)), channel());
    let (seen_highest, held) = (highest.clone(), is_held.0);
    let stage = Stage::with(options, move |probe| {
        let (highest, held) = (highest.clone(), held.clone());
        probe.on_readable(move |input, ctx| {
            ctx.write(input.take_all());
            highest.fetch_max(ctx.queued(), Ordering::Relaxed);
            if ctx.is_above_high_watermark() {
                let _ = held.send(());
            }
            Ok(())
        })
    });
    let mut client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    let bytes = pattern(3 * MORE_THAN_THE_KERNEL_TAKES);
    let (mut writing, sent) = (client.try_clone().unwrap(), bytes.clone());
    let progress = Arc::new(AtomicUsize::new(0));
    let written = progress.clone();
    let writer = std::thread::spawn(move || {
        for piece in sent.chunks(8 << 10) {
            writing.write_all(piece).unwrap();
            written.fetch_add(piece.len(), Ordering::Relaxed);
        }
    });
    // Nothing is read until the writer has been brought to a standstill.
    next(&is_held.1);
    let (mut last, mut still) = (0, 0);
    wait_until("the writer stands still", || {
        settle(&stage.system);
        let now = progress.load(Ordering::Relaxed);
        still = if now == last { still + 1 } else { 0 };
        last = now;
        still == 20
    });
    assert!(last < bytes.len(), "the source is held back");
    let mut taken = vec![0; bytes.len()];
    client.read_exact(&mut taken).unwrap();
    assert_same(&taken, &bytes);
    writer.join().unwrap();
    let highest = seen_highest.load(Ordering::Relaxed);
    assert!(
        highest <= high + (64 << 10),
        "at most one read's worth beyond the high watermark, not {highest}"
    );
    assert!(
        seen.events
            .try_iter()
            .any(|event| matches!(event, Event::Drained))
    );
    drop(client);
    assert!(matches!(seen.closed(), CloseReason::PeerClosed));
}

#[test]
fn drop_newest_drops_whole_writes_counts_them_and_says_so() {
    let options = ConnectionOptions::new()
        .slow_reader(SlowReader::DropNewest)
        .output_max(256 << 10);
    let stage = Stage::with(options, |probe| probe);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    let mut expected = Vec::new();
    let mut dropped = 0;
    for number in 0_u32..2000 {
        // Of one size in three calls, and each tells its number throughout.
        let block = number.to_be_bytes().repeat(5_000);
        let written = block.clone();
        let taken = seen.run(move |ctx| match number % 3 {
            0 => ctx.write(written),
            1 => ctx.write_bytes(written.into()),
            _ => ctx.write_parts(&[&written[..4], &written[4..]]),
        });
        if taken {
            expected.extend(block);
        } else {
            dropped += 1;
        }
        if dropped > 10 {
            break;
        }
    }
    assert!(dropped > 10, "the reader is too slow");
    assert_eq!(stage.system.stats().dropped_writes, dropped);
    seen.tell(|ctx| {
        ctx.close();
        Ok(())
    });
    assert_same(&read_to_end(client), &expected);
    assert!(matches!(seen.closed(), CloseReason::Finished));
}

/// What `drained` calls there were so far; everything else is passed over.
fn drained(seen: &Seen) -> usize {
    seen.events
        .try_iter()
        .filter(|event| matches!(event, Event::Drained))
        .count()
}

#[test]
fn drained_is_called_once_per_crossing_also_when_the_kernel_takes_all_at_once() {
    let stage = Stage::with(
        ConnectionOptions::new().watermarks(1_000, 10_000),
        |probe| probe,
    );
    let (client, seen) = stage.pair();
    for (len, calls) in [(9_999, 0), (10_000, 1), (500, 0), (20_000, 1), (9_999, 0)] {
        assert_eq!(
            seen.run(move |ctx| (ctx.write(vec![0; len]), ctx.is_above_high_watermark()).1),
            calls == 1
        );
        read(&client, len);
        settle(&stage.system);
        assert_eq!(drained(&seen), calls, "after {len} bytes");
    }
}

#[test]
fn drained_is_called_for_an_answer_that_the_kernel_takes_at_once() {
    let options = ConnectionOptions::new().watermarks(1_000, 10_000);
    let stage = Stage::with(options, |probe| {
        probe.on_readable(|input, ctx| {
            ctx.write(vec![0; 100 * input.take_all().len()]);
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    for (len, calls) in [(99, 0), (100, 1), (5, 0), (200, 1)] {
        client.write_all(&vec![0; len]).unwrap();
        read(&client, 100 * len);
        settle(&stage.system);
        assert_eq!(drained(&seen), calls, "after {len} hundred bytes");
    }
}

#[test]
fn drained_is_called_at_the_low_watermark_when_a_slow_reader_has_taken_the_rest() {
    let low = 1_000;
    let options = ConnectionOptions::new()
        .output_max(2 * MORE_THAN_THE_KERNEL_TAKES)
        .watermarks(low, 8 << 20);
    let (at, queued) = channel();
    let stage = Stage::with(options, move |probe| {
        let at = at.clone();
        probe.on_drained(move |ctx| {
            at.send(ctx.queued())?;
            Ok(())
        })
    });
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    for _ in 0..2 {
        seen.run(|ctx| ctx.write(pattern(MORE_THAN_THE_KERNEL_TAKES)));
        settle(&stage.system);
        assert_eq!(drained(&seen), 0, "more than the low watermark waits");
        assert_same(
            &read(&client, MORE_THAN_THE_KERNEL_TAKES),
            &pattern(MORE_THAN_THE_KERNEL_TAKES),
        );
        assert!(next(&queued) <= low);
        settle(&stage.system);
        assert_eq!(drained(&seen), 1);
    }
}

#[test]
fn an_actor_that_refills_in_drained_sends_without_end_and_without_growing() {
    let options = ConnectionOptions::new()
        .output_max(1 << 20)
        .watermarks(16 << 10, 64 << 10);
    let stage = Stage::with(options, |probe| {
        let mut left = 200;
        probe.on_drained(move |ctx| {
            if left == 0 {
                ctx.close();
                return Ok(());
            }
            left -= 1;
            ctx.write(pattern(100_000));
            Ok(())
        })
    });
    let (client, seen) = stage.pair();
    seen.run(|ctx| ctx.write(pattern(100_000)));
    assert_same(&read_to_end(client), &pattern(100_000).repeat(201));
    assert!(matches!(seen.closed(), CloseReason::Finished));
}

/// What is left in the kernel's hands is an end that cannot be taken for the end of the stream.
#[test]
fn who_is_given_up_sees_a_reset() {
    let after = Duration::from_millis(50);
    let options = ConnectionOptions::new()
        .output_max(2 * MORE_THAN_THE_KERNEL_TAKES)
        .stuck_timeout(after);
    let stage = Stage::with(options, |probe| probe);
    let mut client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.run(|ctx| ctx.write(pattern(MORE_THAN_THE_KERNEL_TAKES)));
    assert!(matches!(seen.closed(), CloseReason::StuckReader { .. }));
    let end = std::io::copy(&mut client, &mut std::io::sink());
    let kind = end.expect_err("a cut stream has no orderly end").kind();
    assert_eq!(kind, std::io::ErrorKind::ConnectionReset);
}
