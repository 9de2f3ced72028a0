//! A socket that leaves its actor, with all that is under way on it.

mod util;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use greenroom::*;
use util::*;

/// Keeps all input.
fn keeping(probe: Probe) -> Probe {
    probe.on_readable(|_, _| Ok(()))
}

/// Detaches the socket of a probe that takes messages, into a channel.
#[track_caller]
fn detach(seen: &Seen) -> Detached {
    let (send, detached) = channel();
    seen.tell(move |ctx| {
        ctx.detach(move |detached| drop(send.send(detached)))?;
        Ok(())
    });
    next(&detached)
}

/// As std's type, which waits.
#[track_caller]
fn blocking(detached: Detached) -> TcpStream {
    detached.set_nonblocking(false).unwrap();
    let stream = detached.into_tcp_stream().unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

#[test]
fn it_leaves_with_what_was_not_consumed_and_the_connection_goes_on() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_readable(|input, _| {
            input.take(3);
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    client.write_all(b"abcde").unwrap();
    seen.until(|event| matches!(event, Event::Readable(shown, _) if shown == b"de").then_some(()));
    let detached = detach(&seen);
    assert!(matches!(seen.closed(), CloseReason::Detached));
    assert_eq!(&detached.unread[..], b"de");
    assert!(detached.unwritten.is_empty() && !detached.is_write_shut());
    assert_eq!(detached.peer, Peer::Tcp(client.local_addr().unwrap()));
    assert_eq!(detached.local.as_ref(), Some(stage.listener.local_addr()));

    client.write_all(b"fgh").unwrap();
    let mut stream = blocking(detached);
    assert_eq!(read(&stream, 3), b"fgh");
    stream.write_all(b"answer").unwrap();
    assert_eq!(read(&client, 6), b"answer");
    drop(stream);
    assert!(read_to_end(&client).is_empty());
}

#[test]
fn what_the_kernel_has_not_taken_is_given_back_in_order() {
    let stage = Stage::with(ConnectionOptions::new().output_max(16 << 20), keeping);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    let bytes = pattern(6_000_000);
    let (first, last) = (bytes[..5_999_000].to_vec(), bytes[5_999_000..].to_vec());
    seen.tell(move |ctx| {
        ctx.write_bytes(first.into());
        Ok(())
    });
    settle(&stage.system);
    let (send, detached) = channel();
    seen.tell(move |ctx| {
        // Before and after: it is one callback.
        ctx.write(&last[..500]);
        ctx.detach(move |detached| drop(send.send(detached)))?;
        ctx.write(&last[500..]);
        Ok(())
    });
    let detached = next(&detached);
    let unwritten = detached.unwritten.clone();
    assert!(unwritten.len() > 1_000 && unwritten.len() < bytes.len());
    let mut stream = blocking(detached);
    let writer = std::thread::spawn(move || stream.write_all(&unwritten));
    assert_same(&read_to_end(&client), &bytes);
    writer.join().unwrap().unwrap();
}

#[test]
fn what_the_same_callback_wrote_is_not_sent() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        // From `readable`, whose output would leave at once, and in the place where it was read.
        probe.on_readable(|input, ctx| {
            let bytes = input.take_all();
            ctx.write(bytes);
            let expected = bytes.to_vec();
            ctx.detach(move |detached| {
                assert_same(&detached.unwritten, &expected);
                let mut stream = detached.into_tcp_stream().unwrap();
                stream.write_all(b"nothing before").unwrap();
            })?;
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    client.write_all(&pattern(2_000)).unwrap();
    assert_eq!(read_to_end(&client), b"nothing before");
    assert!(matches!(seen.closed(), CloseReason::Detached));
    assert_eq!(stage.system.stats().panics, 0);
}

#[test]
fn the_actor_ends_once_and_nothing_of_it_is_left() {
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    let (send, detached) = channel();
    seen.tell(move |ctx| {
        ctx.set_timer(Duration::ZERO);
        ctx.detach(move |detached| drop(send.send(detached)))?;
        Ok(())
    });
    let detached = next(&detached);
    let events = seen.to_the_end();
    assert!(
        matches!(events[..], [Event::Closed(CloseReason::Detached)]),
        "{events:?}"
    );
    assert!(seen.addr.send(Box::new(|_| Ok(()))).is_err());
    settle(&stage.system);
    assert_eq!(stage.listener.connections(), 0);
    let stats = stage.system.stats();
    assert_eq!((stats.connections, stats.closed_by["detached"]), (0, 1));
    // The connection is still there.
    let mut stream = blocking(detached);
    stream.write_all(b"x").unwrap();
    assert_eq!(read(&client, 1), b"x");
}

#[test]
fn its_place_below_the_listeners_limit_is_free() {
    let options = ListenOptions::new().max_connections(1);
    let stage = Stage::listen(builder(1), "127.0.0.1:0", options, |probe| probe);
    let (_client, first) = stage.pair();
    let _waits = stage.client();
    let _detached = detach(&first);
    stage.accepted();
}

#[test]
fn it_is_out_of_the_selector_before_anybody_has_it() {
    let stage = Stage::listen(
        builder(1).name("detaching"),
        "127.0.0.1:0",
        ListenOptions::new(),
        keeping,
    );
    let (mut client, seen) = stage.pair();
    let detached = detach(&seen);
    // Input that nobody reads: a descriptor that is still watched would be reported for ever.
    client.write_all(b"unheard").unwrap();
    assert_quiet("detaching");
    drop(detached);
}

#[test]
fn the_end_that_was_read_is_read_again() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_read_closed(|_| Ok(()))
    });
    let (client, seen) = stage.pair();
    half_close(&client);
    seen.until(|event| matches!(event, Event::ReadClosed).then_some(()));
    let detached = detach(&seen);
    assert_eq!(blocking(detached).read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_half_close_that_waits_is_told() {
    let stage = Stage::with(ConnectionOptions::new(), keeping);
    let (_client, seen) = stage.pair();
    let (send, detached) = channel();
    seen.tell(move |ctx| {
        ctx.write(b"last");
        ctx.shutdown_write();
        ctx.detach(move |detached| drop(send.send(detached)))?;
        Ok(())
    });
    let detached = next(&detached);
    assert!(detached.is_write_shut());
    assert_eq!(&detached.unwritten[..], b"last");
}

#[test]
fn a_detached_socket_is_of_one_kind() {
    let dir = TempDir::new();
    let socket = dir.join("socket");
    let path = format!("unix:{}", socket.display());
    let stage = Stage::listen(builder(1), &path, ListenOptions::new(), keeping);
    let mut client = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let detached = detach(&stage.accepted());
    assert_eq!(detached.peer, Peer::Unix);
    let error = detached.into_tcp_stream().unwrap_err();
    assert!(
        error.to_string().contains("use into_unix_stream"),
        "{error}"
    );
    let stream = error.into_detached().into_unix_stream().unwrap();
    (&stream).write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();

    let stage = Stage::new();
    let (_client, seen) = stage.pair();
    let error = detach(&seen).into_unix_stream().unwrap_err();
    assert!(error.to_string().contains("use into_tcp_stream"), "{error}");
    assert!(error.into_detached().into_fd().is_ok());
}

#[test]
fn where_there_is_nothing_to_detach_it_is_refused() {
    let (send, refusals) = channel();
    let told = send.clone();
    let stage = Stage::with(ConnectionOptions::new(), move |probe| {
        let told = told.clone();
        probe.on_closed(move |_, ctx| {
            let _ = told.send(ctx.detach(|_| unreachable!()));
        })
    });
    let hub = spawn(&stage.system, 0, |probe| probe);
    let refused = hub.run(|ctx| ctx.detach(|_| unreachable!()));
    assert_eq!(refused, Err(DetachError::NoSocket));

    let (_client, seen) = stage.pair();
    let told = send.clone();
    seen.tell(move |ctx| {
        ctx.close();
        let _ = told.send(ctx.detach(|_| unreachable!()));
        Ok(())
    });
    assert_eq!(next(&refusals), Err(DetachError::Closing));
    // Inside `closed`.
    assert_eq!(next(&refusals), Err(DetachError::NoSocket));

    let (_client, seen) = stage.pair();
    seen.tell(move |ctx| {
        let _ = send.send(ctx.detach(|detached| drop(detached.unread)));
        let _ = send.send(ctx.detach(|_| unreachable!()));
        Ok(())
    });
    assert_eq!(next(&refusals), Ok(()));
    assert_eq!(next(&refusals), Err(DetachError::Twice));
    assert!(matches!(seen.closed(), CloseReason::Detached));
    assert_eq!(stage.system.stats().panics, 0);
}

/// Tells when it is dropped.
struct Dropped(Sender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

fn uncalled() -> (impl FnOnce(Detached) + Send + 'static, Receiver<()>) {
    let (send, dropped) = channel();
    let dropper = Dropped(send);
    let take = move |_| {
        let _kept = &dropper;
        panic!("it is not called");
    };
    (take, dropped)
}

#[test]
fn another_end_of_the_same_callback_holds() {
    let stage = Stage::new();
    let jobs: [fn(&mut Context<'_, Probe>) -> Outcome; 4] = [
        |ctx| {
            ctx.abort();
            Ok(())
        },
        |ctx| {
            ctx.close();
            Ok(())
        },
        |_| Err("an error".into()),
        |_| panic!("a panic"),
    ];
    let names = ["aborted", "finished", "error", "panicked"];
    for (job, name) in jobs.into_iter().zip(names) {
        let (_client, seen) = stage.pair();
        let (take, dropped) = uncalled();
        seen.tell(move |ctx| {
            ctx.detach(take)?;
            assert!(ctx.is_closing());
            job(ctx)
        });
        assert_eq!(seen.closed().name(), name);
        next(&dropped);
    }
    assert_eq!(stage.system.stats().panics, 1);
}

#[test]
fn a_panic_of_the_taker_closes_what_it_was_given_and_nothing_else() {
    let stage = Stage::new();
    let (client, seen) = stage.pair();
    let (other, neighbour) = stage.pair();
    seen.tell(|ctx| {
        ctx.detach(|_detached| panic!("the taker"))?;
        Ok(())
    });
    assert!(matches!(seen.closed(), CloseReason::Detached));
    assert!(read_to_end(&client).is_empty());
    settle(&stage.system);
    assert_eq!(stage.system.stats().panics, 1);
    neighbour.run(|ctx| ctx.write(b"well"));
    assert_eq!(read(&other, 4), b"well");
}

#[test]
fn what_is_dropped_with_bytes_unwritten_is_reset() {
    let stage = Stage::new();
    let (mut client, seen) = stage.pair();
    seen.tell(|ctx| {
        ctx.write(b"half of");
        ctx.detach(|_detached| panic!("the taker"))?;
        Ok(())
    });
    let error = client.read(&mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // Not where they were taken out: whoever has the descriptor has to know.
    let (mut client, seen) = stage.pair();
    let (send, detached) = channel();
    seen.tell(move |ctx| {
        ctx.write(b"half of");
        ctx.detach(move |detached| drop(send.send(detached)))?;
        Ok(())
    });
    drop(next(&detached).into_tcp_stream().unwrap());
    assert_eq!(client.read(&mut [0; 64]).unwrap(), 0);
}

#[test]
fn a_system_whose_last_socket_is_detached_stops() {
    let (send, detached) = channel();
    let stage = Stage::with(ConnectionOptions::new(), move |probe| {
        let send = send.clone();
        probe.on_stopping(move |ctx| {
            let send = send.clone();
            ctx.detach(move |detached| drop(send.send(detached)))?;
            Ok(())
        })
    });
    let (client, seen) = stage.pair();
    stage.system.handle().stop(Duration::from_secs(3600));
    stage.system.run().unwrap();
    assert!(matches!(seen.closed(), CloseReason::Detached));
    blocking(next(&detached)).write_all(b"on").unwrap();
    assert_eq!(read(&client, 2), b"on");
}

#[test]
fn no_descriptor_is_left_behind() {
    in_child("no_descriptor_is_left_behind", 256, || {
        let stage = Stage::new();
        let (_client, seen) = stage.pair();
        drop(detach(&seen));
        settle(&stage.system);
        let before = descriptors();
        static CALLED: AtomicUsize = AtomicUsize::new(0);
        for round in 0..400 {
            let (client, seen) = stage.pair();
            seen.tell(move |ctx| {
                ctx.detach(move |detached| {
                    CALLED.fetch_add(1, Ordering::Relaxed);
                    assert!(round % 3 > 0);
                    drop(detached);
                })?;
                Ok(())
            });
            assert!(read_to_end(&client).is_empty());
        }
        settle(&stage.system);
        assert_eq!(CALLED.load(Ordering::Relaxed), 400);
        assert_eq!(descriptors(), before);
    });
}
