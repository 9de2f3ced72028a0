//! Descriptors that are no streams, watched for actors that read them themselves.

mod util;

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use greenroom::testing::Simulation;
use greenroom::*;
use util::{
    TempDir, assert_quiet, builder, descriptors, hold, in_child, next, settle, spawn, wait_until,
};

#[derive(Debug)]
enum Event {
    Opened,
    /// What it was told, and what it read.
    Ready(Readiness, Vec<u8>),
    Closed(&'static str),
}

type Job = Box<dyn FnOnce(&mut Context<'_, Watcher>) -> Outcome + Send>;

/// Reports what it is told, and reads up to so many bytes at a time.
struct Watcher {
    events: Sender<Event>,
    reads: usize,
}

impl Watcher {
    /// One read of the descriptor that it is lent.
    fn read(&self, ctx: &Context<'_, Self>) -> Vec<u8> {
        let fd = ctx.descriptor().expect("it has one");
        let mut bytes = vec![0; self.reads];
        // SAFETY: the buffer is writable for its length, the descriptor lent for the call.
        let read = unsafe { libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
        assert!(read >= 0, "{}", io::Error::last_os_error());
        bytes.truncate(read as usize);
        bytes
    }
}

impl Actor for Watcher {
    type Message = Job;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        assert!(!ctx.has_socket() && ctx.descriptor().is_some());
        let _ = self.events.send(Event::Opened);
        Ok(())
    }

    fn ready(&mut self, ready: Readiness, ctx: &mut Context<'_, Self>) -> Outcome {
        let bytes = if ready.is_readable() && self.reads > 0 {
            self.read(ctx)
        } else {
            Vec::new()
        };
        let is_end = ready.is_readable() && self.reads > 0 && bytes.is_empty();
        let _ = self.events.send(Event::Ready(ready, bytes));
        if is_end {
            ctx.close();
        }
        Ok(())
    }

    fn message(&mut self, job: Job, ctx: &mut Context<'_, Self>) -> Outcome {
        job(ctx)
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        assert!(ctx.descriptor().is_some() || matches!(reason, CloseReason::NotAdopted(_)));
        let _ = self.events.send(Event::Closed(reason.name()));
    }
}

struct Seen {
    addr: Addr<Watcher>,
    events: Receiver<Event>,
}

impl Seen {
    fn tell(&self, job: impl FnOnce(&mut Context<'_, Watcher>) -> Outcome + Send + 'static) {
        self.addr.send(Box::new(job)).expect("it is there");
    }

    #[track_caller]
    fn ready(&self) -> (Readiness, Vec<u8>) {
        match next(&self.events) {
            Event::Ready(ready, bytes) => (ready, bytes),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn closed(&self) -> &'static str {
        match next(&self.events) {
            Event::Closed(name) => name,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn nothing(&self, system: &System) {
        settle(system);
        let event = self.events.try_recv();
        assert!(event.is_err(), "{event:?}");
    }
}

/// Has it watched, and waits until the actor is opened.
#[track_caller]
fn watch(
    system: &System,
    descriptor: impl Into<OwnedFd>,
    interest: Interest,
    reads: usize,
) -> Seen {
    let (send, events) = channel();
    let make = move || Watcher {
        events: send,
        reads,
    };
    let addr = system.watch(descriptor, interest, make).unwrap();
    assert!(matches!(next(&events), Event::Opened));
    Seen { addr, events }
}

#[test]
fn a_pipe_is_read_to_its_end() {
    let system = builder(1).build().unwrap();
    let (pipe, mut writer) = io::pipe().unwrap();
    let seen = watch(&system, pipe, Interest::READ, 64);
    seen.nothing(&system);
    writer.write_all(b"hello").unwrap();
    let (ready, bytes) = seen.ready();
    assert!(ready.is_readable() && !ready.is_writable() && !ready.is_hung_up());
    assert_eq!(bytes, b"hello");
    seen.nothing(&system);
    drop(writer);
    let (ready, _) = seen.ready();
    assert!(ready.is_hung_up() && !ready.is_readable(), "{ready:?}");
    seen.addr.close();
    assert_eq!(seen.closed(), "finished");
    assert_eq!(
        system.stats().connections,
        0,
        "it is not counted as a socket"
    );
}

#[test]
fn it_is_told_again_for_as_long_as_something_is_left() {
    let system = builder(1).build().unwrap();
    let (pipe, mut writer) = io::pipe().unwrap();
    let seen = watch(&system, pipe, Interest::READ, 1);
    writer.write_all(b"hello").unwrap();
    drop(writer);
    let read: Vec<u8> = (0..5).flat_map(|_| seen.ready().1).collect();
    assert_eq!(read, b"hello");
    assert!(seen.ready().0.is_hung_up());
}

#[test]
fn a_hang_up_that_nobody_heeds_is_told_once() {
    let system = builder(1).name("hung-up").build().unwrap();
    // The reader's side of a pipe without writers, the writer's side of one without readers, and an
    // end that has nothing asked for but what cannot come.
    let (reader, writer) = io::pipe().unwrap();
    drop(writer);
    let read = watch(&system, reader, Interest::READ, 0);
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let write = watch(&system, writer, Interest::WRITE, 0);
    let (reader, writer) = io::pipe().unwrap();
    drop(writer);
    let other = watch(&system, reader, Interest::WRITE, 0);
    for seen in [&read, &write, &other] {
        assert!(seen.ready().0.is_hung_up());
    }
    assert_quiet("hung-up");
    for seen in [&read, &write, &other] {
        seen.nothing(&system);
        // Asked for anew, it is told anew.
        seen.tell(|ctx| {
            ctx.resume();
            Ok(())
        });
        assert!(seen.ready().0.is_hung_up());
        seen.tell(|ctx| {
            ctx.set_interest(Interest::READ);
            Ok(())
        });
        assert!(seen.ready().0.is_hung_up());
    }
    assert_quiet("hung-up");
}

#[test]
fn what_is_not_asked_for_is_not_told() {
    let system = builder(1).name("unasked").build().unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    let seen = watch(&system, ours, Interest::NONE, 0);
    drop(theirs);
    assert_quiet("unasked");
    seen.nothing(&system);
    seen.tell(|ctx| {
        ctx.set_interest(Interest::WRITE);
        Ok(())
    });
    let (ready, _) = seen.ready();
    assert!(ready.is_writable() && !ready.is_readable() && ready.is_hung_up());
}

#[test]
fn interest_changes_at_run_time() {
    let system = builder(1).build().unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let seen = watch(&system, ours, Interest::READ, 64);
    seen.tell(|ctx| {
        ctx.set_interest(Interest::READ | Interest::WRITE);
        Ok(())
    });
    assert!(seen.ready().0.is_writable());
    // Fill it: then only what can be read is told.
    seen.tell(|ctx| {
        let fd = ctx.descriptor().unwrap().try_clone_to_owned()?;
        let mut stream = UnixStream::from(fd);
        while stream.write(&[0; 4096]).is_ok() {}
        Ok(())
    });
    settle(&system);
    while seen.events.try_recv().is_ok() {}
    theirs.write_all(b"x").unwrap();
    let (ready, bytes) = seen.ready();
    assert!(ready.is_readable() && !ready.is_writable() && bytes == b"x");
    seen.nothing(&system);
    theirs.set_nonblocking(true).unwrap();
    while theirs.read(&mut [0; 4096]).is_ok() {}
    assert!(seen.ready().0.is_writable());
}

#[test]
fn a_pause_takes_it_out_of_the_selector() {
    let system = builder(1).name("paused").build().unwrap();
    let (pipe, mut writer) = io::pipe().unwrap();
    let seen = watch(&system, pipe, Interest::READ, 64);
    seen.tell(|ctx| {
        ctx.pause();
        Ok(())
    });
    settle(&system);
    writer.write_all(b"x").unwrap();
    drop(writer);
    assert_quiet("paused");
    seen.nothing(&system);
    seen.tell(|ctx| {
        ctx.resume();
        Ok(())
    });
    assert_eq!(seen.ready().1, b"x");
}

/// Waits for room in the mailbox of another, and goes on.
struct Feeder {
    pipe: PipeReader,
    to: Addr<util::Probe>,
    kept: Option<util::Job>,
    events: Sender<&'static str>,
}

impl Feeder {
    fn feed(&mut self, job: util::Job, ctx: &mut Context<'_, Self>) {
        if let Err(error) = self.to.send(job) {
            self.kept = Some(error.into_message());
            ctx.wait_for_room(&self.to);
            let _ = self.events.send("full");
        }
    }
}

impl Actor for Feeder {
    type Message = ();

    fn ready(&mut self, _ready: Readiness, ctx: &mut Context<'_, Self>) -> Outcome {
        assert!(self.kept.is_none(), "it waits");
        if self.pipe.read(&mut [0])? == 0 {
            ctx.close();
            return Ok(());
        }
        let events = self.events.clone();
        self.feed(Box::new(move |_| Ok(events.send("done")?)), ctx);
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let job = self.kept.take().expect("it waited");
        self.feed(job, ctx);
        Ok(())
    }
}

#[test]
fn backpressure_reaches_the_descriptor() {
    let system = builder(2).mailbox_bound(4).build().unwrap();
    let slow = spawn(&system, 0, |probe| probe);
    let held = hold(&slow);
    let (pipe, mut writer) = io::pipe().unwrap();
    let (send, events) = channel();
    let (watched, to) = (pipe.try_clone().unwrap(), slow.addr.clone());
    let make = move || Feeder {
        pipe,
        to,
        kept: None,
        events: send,
    };
    let handle = system.handle();
    handle.watch_on(1, watched, Interest::READ, make).unwrap();
    writer.write_all(&[0; 20]).unwrap();
    assert_eq!(next(&events), "full");
    drop(held);
    drop(writer);
    let done = events.iter().filter(|what| *what == "done").count();
    assert_eq!(done, 20, "none is lost, and the feeder ends");
}

fn owned(fd: i32) -> OwnedFd {
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the call that returned it has just made it, and nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[test]
fn an_inotify_tells_of_a_new_file() {
    let dir = TempDir::new();
    // SAFETY: takes no pointer.
    let inotify = owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) });
    let path = std::ffi::CString::new(dir.path().to_str().unwrap()).unwrap();
    // SAFETY: the path ends with a NUL and outlives the call.
    let watching =
        unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), path.as_ptr(), libc::IN_CREATE) };
    assert!(watching >= 0);
    let system = builder(1).build().unwrap();
    let seen = watch(&system, inotify, Interest::READ, 4096);
    File::create(dir.join("a-new-file")).unwrap();
    let (_, bytes) = seen.ready();
    assert!(String::from_utf8_lossy(&bytes).contains("a-new-file"));
}

#[test]
fn a_timerfd_ticks() {
    // SAFETY: takes no pointer.
    let timer = owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) });
    let every = libc::timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    let spec = libc::itimerspec {
        it_interval: every,
        it_value: every,
    };
    // SAFETY: the structure outlives the call, and no old value is asked for.
    let set = unsafe {
        libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut())
    };
    assert_eq!(set, 0);
    let system = builder(1).build().unwrap();
    let seen = watch(&system, timer, Interest::READ, 8);
    for _ in 0..3 {
        let ticks: [u8; 8] = seen.ready().1.try_into().unwrap();
        assert!(u64::from_ne_bytes(ticks) > 0);
    }
}

#[test]
fn an_eventfd_counts_across_threads() {
    // SAFETY: takes no pointer.
    let event = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) });
    let mut writer = File::from(event.try_clone().unwrap());
    let system = builder(1).build().unwrap();
    let seen = watch(&system, event, Interest::READ, 8);
    writer.write_all(&7_u64.to_ne_bytes()).unwrap();
    assert_eq!(seen.ready().1, 7_u64.to_ne_bytes());
}

#[test]
fn a_signalfd_tells_of_a_signal() {
    let system = builder(1).build().unwrap();
    let hub = spawn(&system, 0, |probe| probe);
    let (send, events) = channel();
    // On the poller's own thread, which alone blocks the signal, and sends it to itself.
    hub.tell(move |ctx| {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the set is initialised by the first call and outlives the others.
        let signals = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGUSR2);
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            owned(libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC))
        };
        let watcher = Watcher {
            events: send,
            reads: size_of::<libc::signalfd_siginfo>(),
        };
        ctx.watch(signals, Interest::READ, watcher);
        Ok(())
    });
    assert!(matches!(next(&events), Event::Opened));
    hub.tell(|_| {
        // SAFETY: takes no pointer; the signal is blocked on this thread.
        unsafe { libc::raise(libc::SIGUSR2) };
        Ok(())
    });
    let Event::Ready(_, info) = next(&events) else {
        panic!("it is told");
    };
    assert_eq!(info[..4], (libc::SIGUSR2 as u32).to_ne_bytes());
}

#[test]
fn what_is_always_ready_is_refused_and_given_back() {
    let system = builder(1).build().unwrap();
    let file = || File::open(std::env::current_exe().unwrap()).unwrap();
    for (file, text) in [
        (
            file(),
            "the descriptor is a regular file, which is always ready",
        ),
        (File::open("/").unwrap(), "a directory"),
        (File::open("/dev/null").unwrap(), "a character device"),
    ] {
        let number = file.as_raw_fd();
        let (events, _) = channel();
        let make = move || Watcher { events, reads: 0 };
        let error = system.watch(file, Interest::READ, make).unwrap_err();
        assert!(error.to_string().starts_with("watch: "), "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(matches!(error.kind(), AdoptErrorKind::NotPollable(_)));
        let back = error.into_socket().unwrap().into_fd().unwrap();
        assert_eq!(back.as_raw_fd(), number);
    }
    // From an actor: told by `closed` alone.
    let hub = spawn(&system, 0, |probe| probe);
    let (events, told) = channel();
    let file = file();
    hub.tell(move |ctx| {
        ctx.watch(file, Interest::READ, Watcher { events, reads: 0 });
        Ok(())
    });
    assert!(matches!(next(&told), Event::Closed("not adopted")));
    assert!(told.recv().is_err(), "and dropped");
}

#[test]
fn a_stop_does_not_wait_for_it() {
    let system = builder(2).build().unwrap();
    let (pipe, mut writer) = io::pipe().unwrap();
    let seen = watch(&system, pipe, Interest::READ, 64);
    let handle = system.handle();
    handle.stop(Duration::from_secs(3600));
    system.run().unwrap();
    assert_eq!(seen.closed(), "stopped");
    wait_until("it is closed", || writer.write_all(b"x").is_err());
    let (pipe, _writer) = io::pipe().unwrap();
    let make = || -> Watcher { unreachable!() };
    let error = handle.watch(pipe, Interest::READ, make).unwrap_err();
    assert!(matches!(error.kind(), AdoptErrorKind::Stopped));
}

/// Panics at the first readiness.
struct Brittle;

impl Actor for Brittle {
    type Message = ();

    fn ready(&mut self, _ready: Readiness, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.set_interest(Interest::WRITE);
        panic!("at the first byte");
    }
}

#[test]
fn a_panic_ends_it_and_closes_the_descriptor() {
    let system = builder(1).build().unwrap();
    let (pipe, mut writer) = io::pipe().unwrap();
    system.watch(pipe, Interest::READ, || Brittle).unwrap();
    // Another one, whose own interest stays what it is.
    let (other, mut to_other) = io::pipe().unwrap();
    let neighbour = watch(&system, other, Interest::READ, 64);
    writer.write_all(b"x").unwrap();
    wait_until("it is closed", || writer.write_all(b"x").is_err());
    assert_eq!(system.stats().closed_by["panicked"], 1);
    neighbour.tell(|ctx| {
        ctx.resume();
        Ok(())
    });
    to_other.write_all(b"x").unwrap();
    assert_eq!(neighbour.ready().1, b"x");

    // Whoever has no descriptor cannot ask for its directions.
    let hub = spawn(&system, 0, |probe| probe);
    assert!(hub.run(|ctx| ctx.descriptor().is_none()));
    hub.tell(|ctx| {
        ctx.set_interest(Interest::READ);
        Ok(())
    });
    assert!(matches!(hub.closed(), CloseReason::Panicked(what) if what.contains("no descriptor")));
}

#[test]
fn an_actor_without_the_callback_ends_with_an_error() {
    struct Deaf;
    impl Actor for Deaf {
        type Message = ();
    }
    let system = builder(1).build().unwrap();
    let (pipe, mut writer) = io::pipe().unwrap();
    system.watch(pipe, Interest::READ, || Deaf).unwrap();
    writer.write_all(b"x").unwrap();
    wait_until("it has ended", || system.stats().closed_by["error"] == 1);
}

#[test]
fn a_simulated_system_watches_no_real_descriptor() {
    let mut simulation = Simulation::new(1);
    let system = simulation.system(System::builder());
    let (pipe, _writer) = io::pipe().unwrap();
    let make = || -> Watcher { unreachable!() };
    let error = system.watch(pipe, Interest::READ, make).unwrap_err();
    assert!(matches!(error.kind(), AdoptErrorKind::OtherWorld));
}

#[test]
fn no_descriptor_is_left_behind() {
    in_child("no_descriptor_is_left_behind", 256, || {
        let system = builder(1).build().unwrap();
        let before = descriptors();
        for round in 0..300 {
            let (pipe, writer) = io::pipe().unwrap();
            match round % 3 {
                0 => {
                    let seen = watch(&system, pipe, Interest::READ, 64);
                    seen.addr.close();
                    assert_eq!(seen.closed(), "finished");
                }
                1 => {
                    let make = || -> Watcher { panic!("no actor") };
                    system.watch(pipe, Interest::READ, make).unwrap();
                }
                _ => {
                    let file = File::open("/dev/null").unwrap();
                    let make = || -> Watcher { unreachable!() };
                    assert!(system.watch(file, Interest::READ, make).is_err());
                }
            }
            drop(writer);
        }
        settle(&system);
        assert_eq!(descriptors(), before);
    });
}

/// Receives on a UDP socket of its own, errors, too.
struct Receives {
    socket: std::net::UdpSocket,
    received: Sender<Result<Vec<u8>, io::ErrorKind>>,
}

impl Actor for Receives {
    type Message = ();

    fn ready(&mut self, _ready: Readiness, _ctx: &mut Context<'_, Self>) -> Outcome {
        let mut bytes = [0; 64];
        let received = self.socket.recv(&mut bytes);
        let received = received.map(|len| bytes[..len].to_vec());
        let _ = self.received.send(received.map_err(|error| error.kind()));
        Ok(())
    }
}

#[test]
fn an_error_that_the_actor_has_taken_is_no_hang_up() {
    use std::net::UdpSocket;
    let system = builder(1).build().unwrap();
    // Of an address of its own, so that the port is nobody else's meanwhile.
    let peer = UdpSocket::bind("127.0.77.1:0").unwrap();
    let at = peer.local_addr().unwrap();
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = ours.local_addr().unwrap();
    ours.connect(at).unwrap();
    ours.set_nonblocking(true).unwrap();
    let (sender, received) = channel();
    let socket = ours.try_clone().unwrap();
    let make = move || Receives {
        socket,
        received: sender,
    };
    let fd = OwnedFd::from(ours.try_clone().unwrap());
    system.handle().watch(fd, Interest::READ, make).unwrap();
    peer.send_to(b"one", addr).unwrap();
    assert_eq!(next(&received), Ok(b"one".to_vec()));
    drop(peer);
    ours.send(b"to nobody").unwrap();
    assert_eq!(next(&received), Err(io::ErrorKind::ConnectionRefused));
    let peer = UdpSocket::bind(at).unwrap();
    peer.send_to(b"two", addr).unwrap();
    assert_eq!(next(&received), Ok(b"two".to_vec()));
}
