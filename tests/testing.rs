//! `greenroom::testing`: a stage shows what a poller would do, without a system call.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bytes::Bytes;
use greenroom::testing::{Probe, Stage};
use greenroom::*;

/// Notes every call, and does what it is told: by the lines that it is sent, by its messages.
#[derive(Default)]
struct Notes {
    calls: Vec<String>,
    /// Leaves input unconsumed until there are so many bytes.
    needs: usize,
    pause_after: bool,
}

enum Tell {
    Write(Bytes),
    Pause,
    Resume,
    Close,
    Abort,
    ShutWrite,
    Timer(Duration),
    Interval(Duration),
    Fail(&'static str),
    Panic(&'static str),
    Stop,
    Keys(Reply<usize>),
}

impl Actor for Notes {
    type Message = Tell;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.calls.push(format!("opened {:?}", ctx.peer()));
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let end = if input.at_end() { " at end" } else { "" };
        let shown = String::from_utf8_lossy(input.bytes());
        self.calls.push(format!("readable {shown}{end}"));
        if input.len() < self.needs {
            input.need(self.needs);
            return Ok(());
        }
        input.take_all();
        if self.pause_after && !shown.is_empty() {
            ctx.pause();
        }
        Ok(())
    }

    fn read_closed(&mut self, _: &mut Context<'_, Self>) -> Outcome {
        self.calls.push("read_closed".into());
        Ok(())
    }

    fn message(&mut self, message: Tell, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            Tell::Write(bytes) => drop(ctx.write_bytes(bytes)),
            Tell::Pause => ctx.pause(),
            Tell::Resume => ctx.resume(),
            Tell::Close => ctx.close(),
            Tell::Abort => ctx.abort(),
            Tell::ShutWrite => ctx.shutdown_write(),
            Tell::Timer(after) => drop(ctx.set_timer(after)),
            Tell::Interval(period) => drop(ctx.set_interval(period)),
            Tell::Fail(text) => return Err(io::Error::other(text).into()),
            Tell::Panic(text) => panic!("{text}"),
            Tell::Stop => ctx.system().stop(Duration::from_secs(5)),
            Tell::Keys(reply) => drop(reply.send(self.calls.len())),
        }
        Ok(())
    }

    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.calls.push("timer".into());
        if self.calls.iter().filter(|call| *call == "timer").count() == 3 {
            ctx.cancel_timer(key);
        }
        Ok(())
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.calls.push(format!("drained {}", ctx.queued()));
        Ok(())
    }

    fn stopping(&mut self, _: Instant, _: &mut Context<'_, Self>) -> Outcome {
        self.calls.push("stopping".into());
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        self.calls.push(format!("closed: {reason}"));
    }
}

fn calls(stage: &Stage<Notes>) -> Vec<String> {
    stage.actor().calls.clone()
}

const SECOND: Duration = Duration::from_secs(1);

// ---- input --------------------------------------------------------------------------------------

#[test]
fn kept_input_is_shown_again_when_as_much_as_was_needed_is_there() {
    let mut stage = Stage::new(Notes {
        needs: 4,
        ..Notes::default()
    });
    stage.receive("a");
    stage.receive("b");
    stage.receive("cd");
    let peer = "opened Some(Tcp(127.0.0.1:50000))";
    assert_eq!(calls(&stage), [peer, "readable a", "readable abcd"]);
}

#[test]
fn what_is_kept_is_shown_at_the_end_and_then_the_half_close_is_told() {
    let mut stage = Stage::new(Notes {
        needs: 4,
        ..Notes::default()
    });
    stage.receive("abc");
    stage.half_close();
    assert_eq!(
        calls(&stage)[1..],
        ["readable abc", "readable abc at end", "read_closed"]
    );
    assert!(stage.reason().is_none() && !stage.is_reading());
    // It may go on writing.
    stage.send(Tell::Write("bye".into()));
    assert_eq!(stage.output(), "bye");
    stage.send(Tell::Close);
    assert!(matches!(stage.reason(), Some(CloseReason::PeerClosed)));
    assert!(!stage.is_connected());
}

#[test]
fn a_paused_actor_is_shown_nothing_until_it_resumes() {
    let mut stage = Stage::new(Notes {
        pause_after: true,
        ..Notes::default()
    });
    stage.receive("a");
    assert!(stage.is_paused() && !stage.is_reading());
    stage.receive("b");
    stage.half_close();
    assert_eq!((stage.unread(), calls(&stage).len()), (1, 2));
    stage.send(Tell::Resume);
    stage.send(Tell::Resume);
    assert_eq!(calls(&stage).last().unwrap(), "read_closed");
    assert!(calls(&stage).contains(&"readable b".to_owned()));
}

#[test]
fn more_input_than_may_be_kept_ends_it() {
    let options = ConnectionOptions::new().input_max(3);
    let mut stage = Stage::with_options(
        Notes {
            needs: 3,
            ..Notes::default()
        },
        options.clone(),
    );
    stage.receive("ab");
    assert!(stage.reason().is_none());
    let mut stage = Stage::with_options(
        Notes {
            needs: 5,
            ..Notes::default()
        },
        options,
    );
    stage.receive("abcd");
    let reason = stage.reason();
    assert!(
        matches!(reason, Some(CloseReason::InputTooLong { len: 5, limit: 3 })),
        "{reason:?}"
    );
}

// ---- output -------------------------------------------------------------------------------------

#[test]
fn drained_comes_at_the_low_watermark() {
    let options = ConnectionOptions::new().watermarks(10, 100);
    let mut stage = Stage::with_options(Notes::default(), options);
    stage.stall();
    stage.send(Tell::Write(vec![b'x'; 60].into()));
    stage.send(Tell::Write(vec![b'y'; 40].into()));
    assert_eq!((stage.queued(), stage.output().len()), (100, 0));
    assert_eq!(
        stage.take_output(89),
        [vec![b'x'; 60], vec![b'y'; 29]].concat()
    );
    assert_eq!((stage.queued(), calls(&stage).len()), (11, 1));
    assert_eq!(stage.take_output(1), "y");
    assert_eq!(calls(&stage)[1..], ["drained 10"]);
    stage.unstall();
    assert_eq!((stage.queued(), stage.output().len()), (0, 10));
}

#[test]
fn a_reader_is_stuck_or_slow() {
    let options = ConnectionOptions::new()
        .output_max(100)
        .stuck_timeout(SECOND);
    let mut stage = Stage::with_options(Notes::default(), options.clone());
    stage.stall();
    stage.send(Tell::Write(vec![0; 50].into()));
    stage.advance(SECOND / 2);
    assert_eq!(stage.take_output(1).len(), 1);
    stage.advance(SECOND / 2);
    assert!(stage.reason().is_none());
    stage.advance(SECOND / 2);
    let reason = stage.reason();
    assert!(
        matches!(
            reason,
            Some(CloseReason::StuckReader {
                queued: 49,
                after: SECOND
            })
        ),
        "{reason:?}"
    );
    // Not an orderly end: the peer would take what it has for all there is.
    assert!(stage.is_reset());

    let mut stage = Stage::with_options(Notes::default(), options.clone());
    stage.stall();
    stage.send(Tell::Write(vec![0; 60].into()));
    stage.send(Tell::Write(vec![0; 60].into()));
    assert!(stage.is_reset());
    let reason = stage.reason();
    assert!(
        matches!(
            reason,
            Some(CloseReason::SlowReader {
                queued: 120,
                limit: 100
            })
        ),
        "{reason:?}"
    );

    let mut stage = Stage::with_options(
        Notes::default(),
        options.slow_reader(SlowReader::DropNewest),
    );
    stage.stall();
    stage.send(Tell::Write(vec![1; 60].into()));
    stage.send(Tell::Write(vec![2; 60].into()));
    assert_eq!(stage.take_output(100), vec![1; 60]);
    assert_eq!(stage.stats().dropped_writes, 1);
}

#[test]
fn a_slow_peer_can_hold_back_its_own_requests() {
    let options = ConnectionOptions::new()
        .watermarks(1, 10)
        .slow_reader(SlowReader::PauseSource);
    let mut stage = Stage::with_options(Notes::default(), options);
    stage.stall();
    stage.send(Tell::Write(vec![0; 10].into()));
    stage.receive("more");
    assert!(!stage.is_reading() && !stage.is_paused());
    assert_eq!(stage.unread(), 4);
    stage.take_output(9);
    assert_eq!((stage.is_reading(), stage.unread()), (true, 0));
}

// ---- ends ---------------------------------------------------------------------------------------

#[test]
fn a_close_flushes_and_lingers() {
    let mut stage = Stage::new(Notes::default());
    stage.stall();
    stage.send(Tell::Write("last words".into()));
    stage.send(Tell::Close);
    assert!(stage.reason().is_none() && !stage.is_write_shut());
    assert_eq!(stage.take_output(100), "last words");
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    assert!(stage.is_write_shut() && stage.is_connected());
    stage.receive("under way");
    assert_eq!((stage.unread(), stage.is_connected()), (0, true));
    stage.half_close();
    assert!(!stage.is_connected() && !stage.is_reset());
    assert_eq!(calls(&stage)[1..], ["closed: finished"]);
}

#[test]
fn a_linger_ends_by_its_timeout() {
    let options = ConnectionOptions::new().linger(SECOND, 1000);
    let mut stage = Stage::with_options(Notes::default(), options);
    stage.send(Tell::Close);
    stage.advance(SECOND - Duration::from_nanos(1));
    assert!(stage.is_connected());
    stage.advance(Duration::from_nanos(1));
    assert!(!stage.is_connected());
}

#[test]
fn half_close_abort_and_reset() {
    let mut stage = Stage::new(Notes::default());
    stage.send(Tell::ShutWrite);
    assert!(stage.is_write_shut() && stage.reason().is_none());
    stage.receive("still heard");
    assert_eq!(calls(&stage)[1..], ["readable still heard"]);

    let mut stage = Stage::new(Notes::default());
    stage.send(Tell::Abort);
    assert!(matches!(stage.reason(), Some(CloseReason::Aborted)) && stage.is_reset());

    let mut stage = Stage::new(Notes::default());
    stage.reset();
    assert!(matches!(stage.reason(), Some(CloseReason::Reset)));

    // A paused connection is not looked at.
    let mut stage = Stage::new(Notes::default());
    stage.send(Tell::Pause);
    stage.reset();
    assert!(stage.reason().is_none());
    stage.send(Tell::Write("x".into()));
    assert!(matches!(stage.reason(), Some(CloseReason::Reset)));
}

#[test]
fn the_very_error_of_a_callback_is_the_reason() {
    let mut stage = Stage::new(Notes::default());
    stage.send(Tell::Fail("no such thing"));
    let Some(CloseReason::Error(error)) = stage.reason() else {
        panic!("{:?}", stage.reason())
    };
    assert!(error.is::<io::Error>());
    assert_eq!(calls(&stage)[1..], ["closed: no such thing"]);
    assert!(stage.addr().is_gone());
}

#[test]
#[should_panic(expected = "testing::Notes panicked: over the edge")]
fn a_panic_is_shown() {
    Stage::new(Notes::default()).send(Tell::Panic("over the edge"));
}

#[test]
fn what_follows_a_panic_can_be_looked_at() {
    let mut stage = Stage::new(Notes::default());
    catch_unwind(AssertUnwindSafe(|| {
        stage.send(Tell::Panic("over the edge"))
    }))
    .unwrap_err();
    assert!(matches!(stage.reason(), Some(CloseReason::Panicked(what)) if what == "over the edge"));
    assert_eq!(
        calls(&stage)[1..],
        ["closed: a callback panicked: over the edge"]
    );
    // It is shown once.
    stage.advance(SECOND);
    assert_eq!(stage.stats().panics, 1);
}

struct FailsToClose;

impl Actor for FailsToClose {
    type Message = ();

    fn closed(&mut self, _: &CloseReason, _: &mut Context<'_, Self>) {
        panic!("in closed");
    }
}

#[test]
#[should_panic(expected = "`closed` of testing::FailsToClose")]
fn a_panic_in_closed_is_shown() {
    Stage::new(FailsToClose).half_close();
}

#[test]
fn stopping_has_its_deadline() {
    let mut stage = Stage::new(Notes::default());
    stage.stop(SECOND);
    assert!(stage.is_stopping());
    assert_eq!(calls(&stage)[1..], ["stopping"]);
    stage.advance(SECOND);
    assert!(matches!(stage.reason(), Some(CloseReason::Stopped)));

    let mut stage = Stage::new(Notes::default());
    stage.send(Tell::Stop);
    assert_eq!(calls(&stage)[1..], ["stopping"]);
}

// ---- time ---------------------------------------------------------------------------------------

#[test]
fn time_moves_by_advance_alone_and_timers_fire_in_order() {
    let mut stage = Stage::new(Notes::default());
    let start = stage.now();
    stage.send(Tell::Timer(SECOND));
    stage.advance(SECOND - Duration::from_nanos(1));
    assert_eq!(calls(&stage).len(), 1);
    stage.advance(Duration::from_nanos(1));
    assert_eq!(calls(&stage)[1..], ["timer"]);
    assert_eq!(stage.now(), start + SECOND);
    // Each at its own deadline, though time moves in one step; and then cancelled.
    stage.send(Tell::Interval(SECOND));
    stage.advance(10 * SECOND);
    assert_eq!(calls(&stage)[1..], ["timer"; 3]);
}

#[test]
fn an_idle_connection_ends_by_its_timeout() {
    let options = ConnectionOptions::new().idle_timeout(SECOND);
    let mut stage = Stage::with_options(Notes::default(), options);
    stage.advance(SECOND / 2);
    stage.receive("x");
    stage.advance(SECOND * 3 / 4);
    assert!(stage.reason().is_none());
    stage.advance(SECOND / 4);
    assert!(matches!(stage.reason(), Some(CloseReason::Idle(SECOND))));
}

#[test]
fn an_incomplete_frame_ends_by_its_timeout() {
    let options = ConnectionOptions::new().incomplete_timeout(SECOND);
    let mut stage = Stage::with_options(
        Notes {
            needs: 9,
            ..Notes::default()
        },
        options,
    );
    stage.receive("frag");
    stage.advance(SECOND);
    let reason = stage.reason();
    assert!(
        matches!(
            reason,
            Some(CloseReason::SlowSender {
                kept: 4,
                after: SECOND
            })
        ),
        "{reason:?}"
    );
}

#[test]
#[should_panic(expected = "have not come to rest")]
fn actors_that_never_rest_are_told() {
    struct Loop;
    impl Actor for Loop {
        type Message = ();
        fn message(&mut self, (): (), ctx: &mut Context<'_, Self>) -> Outcome {
            Ok(ctx.addr().send(())?)
        }
    }
    Stage::without_socket(Loop).send(());
}

// ---- other actors -------------------------------------------------------------------------------

/// Passes lines on, and holds its reader back while the hub is full.
struct Feeder {
    hub: Recipient<Vec<u8>>,
    refused: VecDeque<Vec<u8>>,
}

impl Actor for Feeder {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while self.refused.is_empty()
            && let Some(line) = input.line(80)?
        {
            self.pass(line.to_vec(), ctx)?;
        }
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let refused = self.refused.pop_front();
        refused.map_or(Ok(()), |line| self.pass(line, ctx))
    }
}

impl Feeder {
    fn pass(&mut self, line: Vec<u8>, ctx: &mut Context<'_, Self>) -> Outcome {
        match self.hub.send(line) {
            Err(error) if error.is_full() => {
                self.refused.push_back(error.into_message());
                ctx.wait_for_room(&self.hub);
                Ok(())
            }
            sent => Ok(sent?),
        }
    }
}

fn feeder(hub: &Probe<Vec<u8>>) -> Feeder {
    Feeder {
        hub: hub.recipient(),
        refused: VecDeque::new(),
    }
}

#[test]
fn a_full_mailbox_holds_its_senders_back_and_loses_nothing() {
    let mut hub = Probe::with_bound(4);
    let mut stage = Stage::new(feeder(&hub));
    let lines: Vec<_> = (0..100).map(|n| n.to_string().into_bytes()).collect();
    stage.receive(lines.join(&b'\n'));
    stage.receive("\n");
    assert!(stage.is_waiting() && !stage.is_reading());
    let mut taken = Vec::new();
    while taken.len() < 100 {
        assert!(stage.is_waiting() || taken.len() + 4 >= 100);
        taken.extend(hub.take_all());
        stage.run();
    }
    assert_eq!(taken, lines);
    assert!(!stage.is_waiting() && stage.is_reading());
}

#[test]
fn an_actor_that_has_gone_is_room_and_a_refusal() {
    let mut hub = Probe::with_bound(2);
    let mut stage = Stage::new(feeder(&hub));
    stage.receive("1\n2\n3\n");
    assert!(stage.is_waiting());
    assert_eq!(hub.take().unwrap(), b"1");
    drop(hub);
    stage.run();
    let reason = stage.reason().unwrap().to_string();
    assert_eq!(reason, "send: the receiver has gone");
}

/// A hub with members, and the parent of a child.
#[derive(Default)]
struct Hub {
    members: Members<u32>,
    left: usize,
}

enum ToHub {
    Join(Recipient<u32>),
    Push(u32),
    Left(Left),
    Spawn,
    Ask(Addr<Hub>),
    Answer(Result<usize, AskError>),
    Count(Reply<usize>),
}

impl From<Left> for ToHub {
    fn from(left: Left) -> ToHub {
        ToHub::Left(left)
    }
}

impl Actor for Hub {
    type Message = ToHub;

    fn message(&mut self, message: ToHub, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            ToHub::Join(member) => drop(self.members.join(&member, ctx)),
            ToHub::Push(n) => self.members.push(n).map_err(|_| "full")?,
            ToHub::Left(left) => self.left += usize::from(self.members.left(&left)),
            ToHub::Spawn => drop(ctx.spawn(Notes::default())),
            ToHub::Ask(other) => ctx.ask(&other, SECOND, ToHub::Count, ToHub::Answer),
            ToHub::Answer(answer) => self.left = answer.unwrap_or(1000),
            ToHub::Count(reply) => drop(reply.send(self.members.len())),
        }
        Ok(())
    }
}

#[test]
fn probes_are_members_of_a_hub() {
    let (mut a, b) = (Probe::<u32>::new(), Probe::<u32>::new());
    let mut hub = Stage::without_socket(Hub::default());
    hub.send(ToHub::Push(0));
    hub.send(ToHub::Join(a.recipient()));
    hub.send(ToHub::Join(b.recipient()));
    assert_ne!(a.id(), b.id());
    hub.send(ToHub::Push(1));
    assert_eq!(hub.ask(ToHub::Count), Ok(2));
    drop(b);
    hub.send(ToHub::Push(2));
    assert_eq!(hub.actor().left, 1);
    assert_eq!(a.take_all(), [1, 2]);
    // Without the join a push is for others.
    a.recipient::<u32>().close();
    assert_eq!((a.take(), a.is_asked_to_close()), (None, true));
}

#[test]
fn questions_are_answered_or_time_out() {
    let mut other = Probe::<ToHub>::new();
    let mut hub = Stage::without_socket(Hub::default());
    hub.send(ToHub::Ask(other.addr()));
    let Some(ToHub::Count(reply)) = other.take() else {
        panic!("no question came")
    };
    reply.send(7).unwrap();
    hub.run();
    assert_eq!(hub.actor().left, 7);
    hub.send(ToHub::Ask(other.addr()));
    hub.advance(SECOND);
    assert_eq!(hub.actor().left, 1000);

    let mut stage = Stage::new(Notes::default());
    assert_eq!(stage.ask(Tell::Keys), Ok(1));
    stage.send(Tell::Close);
    assert_eq!(stage.ask(Tell::Keys), Err(AskError::Gone));
}

#[test]
fn spawned_actors_are_there_to_be_seen() {
    let mut hub = Stage::without_socket(Hub::default());
    hub.send(ToHub::Spawn);
    let spawned = hub.spawned::<Notes>();
    assert_eq!(spawned.len(), 1);
    assert_eq!(spawned[0].calls, ["opened None"]);
    assert_eq!(hub.stats().opened, 2);
}

// ---- no system call -----------------------------------------------------------------------------

/// Uses every method of [`Context`].
struct Everything {
    hub: Addr<Hub>,
    timer: Option<TimerKey>,
}

impl Actor for Everything {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if input.is_empty() {
            // The wait for room, below, is over, as it would be over and over again.
            return Ok(());
        }
        ctx.write(input.take_all());
        ctx.write_bytes(Bytes::from(vec![1; 100_000]));
        ctx.write_parts(&[b"a", b"b"]);
        let (_, written) = ctx.nested::<Everything, _>(|ctx| ctx.write("nested"));
        for part in written.parts() {
            ctx.write(part);
        }
        let _ = (
            ctx.queued(),
            ctx.is_above_high_watermark(),
            ctx.is_closing(),
            ctx.has_socket(),
        );
        let _ = (
            ctx.id(),
            ctx.poller(),
            ctx.peer(),
            ctx.local_addr(),
            ctx.now(),
            ctx.system(),
        );
        ctx.pause();
        ctx.resume();
        let deadline = ctx.now() + 2 * SECOND;
        ctx.set_timer_at(deadline);
        let key = ctx.set_timer(SECOND);
        ctx.set_interval(SECOND);
        ctx.cancel_timer(key);
        self.timer = Some(key);
        ctx.addr().send(())?;
        ctx.wait_for_room(&self.hub);
        ctx.ask(&self.hub, SECOND, ToHub::Count, |_| ());
        ctx.spawn(Hub::default());
        ctx.spawn_on(0, Hub::default);
        Ok(())
    }

    fn message(&mut self, (): (), _: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.shutdown_write();
        ctx.close();
        Ok(())
    }
}

/// What a seccomp(2) filter in a process of its own lets pass: memory, locks and the end. Anything
/// else kills it.
mod sandbox {
    use libc::{
        BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JUMP, BPF_K, BPF_LD, BPF_RET, BPF_STMT, BPF_W, c_long,
        sock_filter, sock_fprog,
    };

    const ALLOWED: [c_long; 8] = [
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_exit_group,
    ];

    /// Whether the kernel knows filters and lets this process have one.
    pub(super) fn enter() -> bool {
        let mut program: Vec<sock_filter> = Vec::new();
        let ret = |action| {
            // SAFETY: fills in a structure.
            unsafe { BPF_STMT((BPF_RET | BPF_K) as u16, action) }
        };
        // The number of the call is the first word of what the filter is given.
        // SAFETY: fills in a structure.
        program.push(unsafe { BPF_STMT((BPF_LD | BPF_W | BPF_ABS) as u16, 0) });
        for call in ALLOWED {
            // SAFETY: fills in a structure.
            program
                .push(unsafe { BPF_JUMP((BPF_JMP | BPF_JEQ | BPF_K) as u16, call as u32, 0, 1) });
            program.push(ret(libc::SECCOMP_RET_ALLOW));
        }
        program.push(ret(libc::SECCOMP_RET_KILL_PROCESS));
        let filter = sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: the filter and its program are valid during the calls, which copy them.
        unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const filter,
                ) == 0
        }
    }

    /// Ends the process without a look back.
    pub(super) fn exit(code: i32) -> ! {
        // SAFETY: does not return.
        unsafe { libc::_exit(code) }
    }
}

const NO_FILTER: i32 = 77;

/// In a process of its own, see below: drives every method of a context under the filter.
#[test]
#[ignore = "ends its process; started by `a_context_performs_no_system_call`"]
fn child_drives_everything_in_a_sandbox() {
    let hub = Probe::new();
    let mut stage = Stage::new(Everything {
        hub: hub.addr(),
        timer: None,
    });
    if !sandbox::enter() {
        sandbox::exit(NO_FILTER);
    }
    stage.receive("hello");
    stage.stall();
    stage.receive("hello");
    stage.take_output(1000);
    stage.unstall();
    stage.advance(SECOND);
    stage.half_close();
    let well = stage.reason().is_some() && stage.actor().timer.is_some() && !stage.is_connected();
    sandbox::exit(i32::from(!well));
}

/// The same with one system call: shows that the filter is in force.
#[test]
#[ignore = "ends its process; started by `a_context_performs_no_system_call`"]
fn child_performs_a_system_call_in_a_sandbox() {
    struct Sly;
    impl Actor for Sly {
        type Message = ();
        fn message(&mut self, (): (), _: &mut Context<'_, Self>) -> Outcome {
            let _ = std::fs::metadata("/");
            Ok(())
        }
    }
    let mut stage = Stage::new(Sly);
    if !sandbox::enter() {
        sandbox::exit(NO_FILTER);
    }
    stage.send(());
    sandbox::exit(0);
}

/// Proves that between bytes in and bytes out neither a `Context` nor the code that carries out its
/// requests performs a system call, but for memory and for locks that somebody else holds. (A
/// message to a poller that sleeps does perform one; there is none.)
#[test]
fn a_context_performs_no_system_call() {
    use std::os::unix::process::ExitStatusExt;
    let run = |test: &str| {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", test, "--ignored", "--test-threads=1"])
            // In an arena of a thread's own glibc reads a file of /proc before it gives memory
            // back.
            .env("MALLOC_ARENA_MAX", "1")
            .output()
            .unwrap()
    };
    let sly = run("child_performs_a_system_call_in_a_sandbox");
    if sly.status.code() == Some(NO_FILTER) {
        println!("skipped: no seccomp filter can be had here");
        return;
    }
    assert_eq!(
        sly.status.signal(),
        Some(libc::SIGSYS),
        "the filter is not in force: {sly:?}"
    );
    let honest = run("child_drives_everything_in_a_sandbox");
    assert_eq!(honest.status.code(), Some(0), "{honest:?}");
}
