//! Whatever an actor writes of its input, in whatever order and however it goes on, the peer gets
//! what a model says.

mod util;

use std::io::Write;
use std::net::Shutdown;
use std::sync::Mutex;

use bytes::Bytes;
use greenroom::*;
use proptest::prelude::*;
use util::*;

/// One write of a callback. Places are shares of the input, in 1/64.
#[derive(Clone, Debug)]
enum Op {
    Slice(usize, usize),
    Bytes(usize),
    Small(usize),
    Parts(usize, usize),
    Nested(Vec<Op>),
}

/// What the callback does after its writes.
#[derive(Clone, Copy, Debug)]
enum End {
    Stay,
    Close,
    Shut,
    Error,
    Pause,
}

fn op() -> impl Strategy<Value = Op> {
    let leaf = prop_oneof![
        6 => (0..64_usize, 0..65_usize).prop_map(|(at, len)| Op::Slice(at, len)),
        1 => (0..20_000_usize).prop_map(Op::Bytes),
        1 => (0..2_000_usize).prop_map(Op::Small),
        1 => (0..64_usize, 0..65_usize).prop_map(|(at, len)| Op::Parts(at, len)),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(Op::Nested)
    })
}

/// For the next connection.
struct Job {
    sent: Vec<u8>,
    ops: Vec<Op>,
    /// How much of the input is consumed.
    eaten: usize,
    end: End,
}

/// Waits for all that its client sends, then does its writes in one callback.
struct Writer {
    job: Job,
    done: bool,
}

/// The part of an input of `len` bytes that an [`Op`] means.
fn range(len: usize, at: usize, n: usize) -> std::ops::Range<usize> {
    let at = len * at / 64;
    at..(at + len * n / 64).min(len)
}

fn run<A: Actor>(ops: &[Op], input: &[u8], ctx: &mut Context<'_, A>) {
    for op in ops {
        match op {
            Op::Slice(at, n) => {
                ctx.write(&input[range(input.len(), *at, *n)]);
            }
            Op::Bytes(n) => {
                ctx.write_bytes(Bytes::from(vec![b'B'; *n]));
            }
            Op::Small(n) => {
                ctx.write(vec![b's'; *n]);
            }
            Op::Parts(at, n) => {
                ctx.write_parts(&[b"<", &input[range(input.len(), *at, *n)], b">"]);
            }
            Op::Nested(ops) => {
                let ((), written) = ctx.nested::<A, _>(|ctx| run(ops, input, ctx));
                for part in written.parts() {
                    ctx.write(part);
                }
            }
        }
    }
}

/// What the peer gets: a write that does not fit into the budget is dropped whole.
fn model(ops: &[Op], input: &[u8], out: &mut Vec<u8>, max: usize) {
    for op in ops {
        let mut piece = Vec::new();
        match op {
            Op::Slice(at, n) => piece.extend(&input[range(input.len(), *at, *n)]),
            Op::Bytes(n) => piece.extend(vec![b'B'; *n]),
            Op::Small(n) => piece.extend(vec![b's'; *n]),
            Op::Parts(at, n) => {
                piece.push(b'<');
                piece.extend(&input[range(input.len(), *at, *n)]);
                piece.push(b'>');
            }
            Op::Nested(ops) => {
                model(ops, input, out, max);
                continue;
            }
        }
        if out.len() + piece.len() <= max {
            out.extend(piece);
        }
    }
}

impl Actor for Writer {
    type Message = ();
    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let n = self.job.sent.len();
        if self.done {
            let rest = &self.job.sent[self.job.eaten..];
            assert!(
                input.is_empty() || input.bytes() == rest,
                "shown something else"
            );
            input.take_all();
            return Ok(());
        }
        if input.len() < n {
            input.need(n);
            return Ok(());
        }
        self.done = true;
        run(&self.job.ops, input.bytes(), ctx);
        input.consume(self.job.eaten);
        match self.job.end {
            End::Stay => {}
            End::Close => ctx.close(),
            End::Shut => ctx.shutdown_write(),
            End::Error => return Err("as it is to".into()),
            End::Pause => {
                ctx.pause();
                ctx.addr().send(())?;
            }
        }
        Ok(())
    }
    fn message(&mut self, (): (), ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.resume();
        Ok(())
    }
}

static JOB: Mutex<Option<Job>> = Mutex::new(None);

/// The budget of those that drop what is past it.
const MAX: usize = 400_000;

/// A small socket that drops, a small one that is paused, and one that takes most at once.
fn world() -> &'static (System, Vec<Listener>) {
    static WORLD: std::sync::OnceLock<(System, Vec<Listener>)> = std::sync::OnceLock::new();
    WORLD.get_or_init(|| {
        let system = builder(1).build().unwrap();
        let listeners = [
            SlowReader::DropNewest,
            SlowReader::PauseSource,
            SlowReader::DropNewest,
        ]
        .into_iter()
        .enumerate()
        .map(|(n, policy)| {
            let mut options = ConnectionOptions::new()
                .input_max(1 << 20)
                .slow_reader(policy)
                .output_max(if policy == SlowReader::DropNewest {
                    MAX
                } else {
                    64 << 20
                });
            if n < 2 {
                options = options.watermarks(1 << 10, 8 << 10);
            }
            let mut listen = ListenOptions::new().connection(options);
            if n < 2 {
                listen = listen.send_buffer(4096);
            }
            let make = |_| Writer {
                job: JOB.lock().unwrap().take().expect("one for each connection"),
                done: false,
            };
            system.listen_with("127.0.0.1:0", listen, make).unwrap()
        })
        .collect();
        (system, listeners)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_of_the_input_arrives(
        ops in prop::collection::vec(op(), 0..6),
        len in prop_oneof![
            1..3_000_usize,
            3_000..40_000_usize,
            Just(65_536),
            Just(81_920),
            60_000..150_000_usize,
        ],
        eaten in 0..=8_usize,
        end in prop::sample::select(vec![
            End::Stay,
            End::Close,
            End::Shut,
            End::Error,
            End::Pause,
        ]),
        listener in 0..3_usize,
        seed in any::<u32>(),
    ) {
        let mut state = seed;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let sent: Vec<u8> = (0..len).map(|_| byte()).collect();
        let eaten = len * eaten / 8;
        let mut expected = Vec::new();
        model(&ops, &sent, &mut expected, if listener == 1 { usize::MAX } else { MAX });
        *JOB.lock().unwrap() = Some(Job { sent: sent.clone(), ops, eaten, end });
        let (system, listeners) = world();
        let panics = system.stats().panics;
        let mut client = match listener {
            2 => connect(&listeners[2]),
            small => connect_small(&listeners[small], 4096),
        };
        client.write_all(&sent).unwrap();
        let got = read(&client, expected.len());
        prop_assert!(got == expected);
        if matches!(end, End::Stay | End::Pause | End::Shut) {
            client.shutdown(Shutdown::Write).unwrap();
        }
        let rest = read_to_end(&client);
        prop_assert_eq!(rest.len(), 0);
        prop_assert_eq!(system.stats().panics, panics);
    }
}
