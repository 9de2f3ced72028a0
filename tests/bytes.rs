//! Bytes on their way: from a peer to its actor, shown in one piece; and from an actor to its peer,
//! in order and whole.

mod util;

use std::io::Write;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use greenroom::*;
use util::*;

/// Writes `bytes` in pieces of very different sizes, through all of the three calls that there are.
fn write_mixed(ctx: &mut Context<'_, Probe>, bytes: &[u8]) {
    let sizes = [1, 7, 511, 512, 513, 3, 20_000, 0, 64, 100_000, 2];
    let (mut rest, mut step) = (bytes, 0);
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(sizes[step % sizes.len()].min(rest.len()));
        match step % 3 {
            0 => ctx.write(piece),
            1 => ctx.write_bytes(Bytes::copy_from_slice(piece)),
            _ => {
                let (first, second) = piece.split_at(piece.len() / 3);
                ctx.write_parts(&[first, b"", second])
            }
        };
        (rest, step) = (more, step + 1);
    }
}

const LEN: usize = 6 << 20;
const JOB: usize = 300_000;

/// Lets the actor write far more than the kernel takes, in many callbacks, and then close.
fn write_in_jobs(seen: &Seen) -> Vec<u8> {
    let bytes = pattern(LEN);
    for piece in bytes.chunks(JOB) {
        let piece = piece.to_vec();
        seen.run(move |ctx| write_mixed(ctx, &piece));
    }
    assert!(
        seen.run(|ctx| ctx.queued()) > JOB,
        "the socket is to have refused bytes, or this tests nothing"
    );
    seen.tell(|ctx| {
        ctx.close();
        Ok(())
    });
    bytes
}

#[test]
fn bytes_leave_in_order_and_whole_to_a_reader_with_a_tiny_buffer() {
    let stage = Stage::with(ConnectionOptions::new().output_max(2 * LEN), |probe| probe);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    let bytes = write_in_jobs(&seen);
    assert_same(&read_to_end(client), &bytes);
}

#[test]
fn bytes_leave_in_order_and_whole_through_a_unix_socket() {
    let dir = TempDir::new();
    let socket = dir.join("socket");
    let options = ListenOptions::new().connection(ConnectionOptions::new().output_max(2 * LEN));
    let stage = Stage::listen(
        builder(1),
        &format!("unix:{}", socket.display()),
        options,
        |probe| probe,
    );
    let client = UnixStream::connect(&socket).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    let bytes = write_in_jobs(&stage.accepted());
    assert_same(&read_to_end(client), &bytes);
}

#[test]
fn what_a_callback_writes_leaves_in_one_piece() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_readable(|input, ctx| {
            for byte in input.take_all() {
                ctx.write([*byte]);
            }
            Ok(())
        })
    });
    let (mut client, _seen) = stage.pair();
    let bytes = pattern(100);
    client.write_all(&bytes).unwrap();
    assert_same(&read(&client, 100), &bytes);
    assert_eq!(segments_received(&client), 1);
}

#[test]
fn parts_and_payloads_leave_in_one_piece() {
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    let payload = Bytes::from(pattern(5000));
    let shared = payload.clone();
    seen.run(move |ctx| {
        ctx.write("head ");
        ctx.write_bytes(shared.clone());
        ctx.write_parts(&[b" one", b"", b" two "]);
        ctx.write_bytes(shared);
    });
    let expected = [b"head ", &payload[..], b" one two ", &payload].concat();
    assert_same(&read(&client, expected.len()), &expected);
    assert_eq!(segments_received(&client), 1);
}

#[test]
fn what_the_messages_of_one_turn_write_leaves_in_one_piece() {
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    let other = spawn(&stage.system, 0, |probe| probe);
    // From a callback of the same poller, so that all are there when it comes to deliver them.
    let to = seen.addr.clone();
    other.run(move |_| {
        for byte in 0..100 {
            let write = move |ctx: &mut Context<'_, Probe>| {
                ctx.write([byte]);
                Ok(())
            };
            to.send(Box::new(write)).unwrap();
        }
    });
    assert_eq!(read(&client, 100), (0..100).collect::<Vec<u8>>());
    assert_eq!(segments_received(&client), 1);
}

#[test]
fn input_is_kept_and_shown_in_one_piece_at_every_split() {
    let frame = b"a frame in three parts";
    let len = frame.len();
    let stage = Stage::with(ConnectionOptions::new(), move |probe| {
        probe.on_readable(move |input, _| {
            input.take(len);
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    for first in 1..len - 1 {
        for second in [first + 1, (first + len) / 2, len - 1] {
            if second <= first || second >= len {
                continue;
            }
            for (from, to) in [(0, first), (first, second), (second, len)] {
                client.write_all(&frame[from..to]).unwrap();
                let Event::Readable(shown, false) = seen.next() else {
                    panic!("bytes were to come")
                };
                assert_eq!(shown, &frame[..to], "split at {first} and {second}");
            }
        }
    }
}

#[test]
fn need_puts_the_next_call_off_until_so_many_bytes_are_there() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_readable(|input, _| {
            if input.take(100).is_none() {
                input.need(100);
            }
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    let bytes = pattern(200);
    for frame in bytes.chunks(100) {
        client.write_all(&frame[..10]).unwrap();
        assert!(matches!(seen.next(), Event::Readable(shown, false) if shown == frame[..10]));
        for piece in frame[10..].chunks(10) {
            client.write_all(piece).unwrap();
            settle(&stage.system);
        }
        let Event::Readable(shown, false) = seen.next() else {
            panic!("the frame was to come")
        };
        assert_eq!(shown, frame);
    }
}

#[test]
fn bytes_that_need_waits_for_are_shown_at_the_half_close_all_the_same() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_readable(|input, _| {
            input.need(1000);
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    client.write_all(b"ab").unwrap();
    assert!(matches!(seen.next(), Event::Readable(shown, false) if shown == b"ab"));
    client.write_all(b"cd").unwrap();
    half_close(&client);
    assert!(matches!(seen.next(), Event::Readable(shown, true) if shown == b"abcd"));
    assert!(matches!(seen.next(), Event::ReadClosed));
}

#[test]
fn frames_larger_than_the_read_buffer_come_whole() {
    let options = ConnectionOptions::new()
        .input_max(4 << 20)
        .output_max(16 << 20);
    let stage = Stage::with(options, |probe| {
        probe.on_readable(|input, ctx| {
            if let Some(frame) = input.length_prefixed(Prefix::U32Be, 3 << 20)? {
                ctx.write(frame);
            }
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    let mut echo = client.try_clone().unwrap();
    for len in [65_531, 65_532, 65_533, 70_000, 3 << 20] {
        let frame = pattern(len);
        let sent = frame.clone();
        let writer = std::thread::spawn(move || {
            client.write_all(&(len as u32).to_be_bytes()).unwrap();
            client.write_all(&sent).unwrap();
            client
        });
        assert_same(&read(&mut echo, len), &frame);
        client = writer.join().unwrap();
        settle(&stage.system);
        let calls = seen.events.try_iter().count();
        assert!(
            calls <= 3,
            "length, part, whole: that is 3 calls at most for a frame of {len} bytes, not {calls}"
        );
    }
}

#[test]
fn readable_is_called_again_while_it_consumes() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_readable(|input, _| {
            input.take(3);
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    client.write_all(b"onetwosixten!").unwrap();
    for rest in [
        &b"onetwosixten!"[..],
        b"twosixten!",
        b"sixten!",
        b"ten!",
        b"!",
    ] {
        assert!(matches!(seen.next(), Event::Readable(shown, false) if shown == rest));
    }
    settle(&stage.system);
    assert!(
        seen.events.try_recv().is_err(),
        "an actor that consumes nothing is not called again"
    );
}

#[test]
fn resume_shows_what_was_kept() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_readable(|input, ctx| {
            if input.bytes() == b"kept" {
                ctx.pause();
            } else {
                input.take_all();
            }
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    client.write_all(b"kept").unwrap();
    assert!(matches!(seen.next(), Event::Readable(shown, false) if shown == b"kept"));
    client.write_all(b" and more").unwrap();
    // While it is paused nothing is read, and resuming shows what was kept before it reads on.
    settle(&stage.system);
    assert!(
        seen.events.try_recv().is_err(),
        "a paused actor is shown nothing"
    );
    seen.tell(|ctx| {
        ctx.resume();
        Ok(())
    });
    assert!(matches!(seen.next(), Event::Readable(shown, false) if shown == b"kept"));
    settle(&stage.system);
    assert!(seen.events.try_recv().is_err(), "it has paused again");
    seen.tell(|ctx| {
        ctx.resume();
        Ok(())
    });
    assert!(matches!(seen.next(), Event::Readable(shown, false) if shown == b"kept"));
}

#[test]
fn resume_calls_readable_even_with_nothing_kept_and_reading_goes_on() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_opened(|ctx| {
            ctx.pause();
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    client.write_all(b"waits").unwrap();
    settle(&stage.system);
    assert!(
        seen.events.try_recv().is_err(),
        "a paused actor is shown nothing"
    );
    seen.tell(|ctx| {
        ctx.resume();
        Ok(())
    });
    assert!(matches!(seen.next(), Event::Readable(shown, false) if shown.is_empty()));
    assert!(matches!(seen.next(), Event::Readable(shown, false) if shown == b"waits"));
}

#[test]
fn pausing_holds_the_peer_back_and_loses_nothing() {
    let stage = Stage::new();
    let mut client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.run(|ctx| ctx.pause());
    let bytes = pattern(8 << 20);
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&sent).unwrap();
        client
    });
    for _ in 0..20 {
        settle(&stage.system);
    }
    assert!(!writer.is_finished(), "the kernel holds the peer back");
    assert!(
        seen.events.try_recv().is_err(),
        "a paused actor is shown nothing"
    );
    seen.tell(|ctx| {
        ctx.resume();
        Ok(())
    });
    assert_same(&seen.read(bytes.len()), &bytes);
    writer.join().unwrap();
}
