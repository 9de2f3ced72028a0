//! Any input in any pieces to any actor: what it consumes and writes is what a simple model says.

mod util;

use std::io::Write;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};

use greenroom::*;
use proptest::prelude::*;
use util::*;

/// What an actor does in one call of `readable`.
#[derive(Clone, Debug)]
enum Step {
    /// Consumes up to so many bytes.
    Take(usize),
    /// Consumes a line, if one is there.
    Line,
    /// Consumes a frame of so many bytes, if it is there, and otherwise waits for all of it.
    Frame(usize),
    /// Consumes everything.
    All,
    /// Consumes up to so many bytes, pauses, and has itself resumed by a message.
    Pause(usize),
    /// Looks at it and leaves it.
    Leave,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop_oneof![1..20_usize, 500..2_000_usize].prop_map(Step::Take),
        3 => Just(Step::Line),
        3 => prop_oneof![1..50_usize, 1..5_000_usize, 60_000..150_000_usize].prop_map(Step::Frame),
        1 => Just(Step::All),
        2 => (300..3_000_usize).prop_map(Step::Pause),
        1 => Just(Step::Leave),
    ]
}

/// How long the pieces are that the client writes.
fn chunks() -> impl Strategy<Value = Vec<usize>> {
    let len = prop_oneof![3 => 1..20_usize, 3 => 1..3_000_usize, 1 => 1..100_000_usize];
    prop::collection::vec(len, 1..25)
}

/// Does one step after the other, call by call, and writes what it consumes with its number before
/// it. Checks on its way that what it is shown is what has not been consumed, in one piece.
struct Stepper {
    steps: Vec<Step>,
    call: usize,
    /// All that the client sends.
    sent: Vec<u8>,
    consumed: usize,
    ended: bool,
}

/// Goes on reading.
struct Resume;

impl Stepper {
    fn consume(&mut self, bytes: &[u8], ctx: &mut Context<'_, Self>) {
        self.consumed += bytes.len();
        ctx.write(bytes);
    }
}

impl Actor for Stepper {
    type Message = Resume;

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let shown = input.bytes();
        // Its ends are enough: to compare all of it at each call would take a time that grows with
        // the square.
        let expected = self.sent[self.consumed..].get(..shown.len());
        let ends = |bytes: &[u8]| {
            let end = bytes.len().min(64);
            (bytes[..end].to_vec(), bytes[bytes.len() - end..].to_vec())
        };
        if expected.map(ends) != Some(ends(shown)) {
            return Err(format!(
                "shown {} bytes that do not follow byte {}",
                shown.len(),
                self.consumed
            )
            .into());
        }
        if input.at_end() && self.consumed + shown.len() != self.sent.len() {
            return Err("at its end the input is not all there".into());
        }
        if self.ended {
            return Err("input was shown after its end".into());
        }
        let step = self.steps[self.call % self.steps.len()].clone();
        self.call += 1;
        let before = self.consumed;
        match step {
            Step::Take(len) => {
                let len = len.min(input.len());
                self.consume(input.take(len).unwrap_or_default(), ctx);
            }
            Step::Line => {
                let line = input.line(usize::MAX)?.map_or(0, |_| input.consumed());
                self.consume(&shown[..line], ctx);
            }
            Step::Frame(len) => {
                let frame = input.frame(len, usize::MAX)?;
                self.consume(frame.unwrap_or_default(), ctx);
            }
            Step::All => self.consume(input.take_all(), ctx),
            // Resuming shows what was kept, which may be nothing: whoever pauses then never reads
            // on.
            Step::Pause(_) if shown.is_empty() => {}
            Step::Pause(len) => {
                let len = len.min(input.len());
                self.consume(input.take(len).unwrap_or_default(), ctx);
                ctx.pause();
                ctx.addr().send(Resume)?;
            }
            Step::Leave => {}
        }
        if self.consumed - before != input.consumed() {
            return Err("it counts something else".into());
        }
        Ok(())
    }

    fn message(&mut self, _: Resume, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.resume();
        Ok(())
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.ended {
            return Err("the end was told twice".into());
        }
        self.ended = true;
        ctx.write(b"|");
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        if let Some((_, told)) = JOBS.get() {
            let _ = told.send((self.consumed, reason.to_string()));
        }
    }
}

type Told = (usize, String);

type Job = (Vec<Step>, Vec<u8>);

static JOBS: OnceLock<(std::sync::Mutex<Receiver<Job>>, Sender<Told>)> = OnceLock::new();

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_pieces_to_any_actor_are_what_a_model_says(
        chunks in chunks(),
        steps in prop::collection::vec(step(), 1..12),
        seed in any::<u32>(),
    ) {
        check(&chunks, steps, seed)?;
    }
}

struct Bench {
    /// Keeps the server.
    _system: System,
    listener: Listener,
    jobs: Sender<(Vec<Step>, Vec<u8>)>,
    told: Receiver<Told>,
}

/// One server for all cases.
fn bench() -> std::sync::MutexGuard<'static, Bench> {
    static BENCH: OnceLock<std::sync::Mutex<Bench>> = OnceLock::new();
    let bench = BENCH.get_or_init(|| {
        let (jobs, from) = channel();
        let (tell, told) = channel();
        JOBS.set((std::sync::Mutex::new(from), tell))
            .expect("it is set here alone");
        let system = builder(1).build().expect("the system starts");
        let options = ListenOptions::new().connection(
            ConnectionOptions::new()
                .input_max(8 << 20)
                .output_max(8 << 20),
        );
        let make = |_| {
            let (jobs, _) = JOBS.get().expect("it is set before");
            let (steps, sent) = next(&jobs.lock().expect("nobody panics with it"));
            Stepper {
                steps,
                call: 0,
                sent,
                consumed: 0,
                ended: false,
            }
        };
        let listener = system
            .listen_with("127.0.0.1:0", options, make)
            .expect("the system listens");
        std::sync::Mutex::new(Bench {
            _system: system,
            listener,
            jobs,
            told,
        })
    });
    bench
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn check(chunks: &[usize], steps: Vec<Step>, seed: u32) -> Result<(), TestCaseError> {
    let bench = bench();
    let mut sent = pattern(chunks.iter().sum());
    // A line's end here and there.
    for at in (0..sent.len()).step_by(seed as usize % 700 + 1) {
        sent[at] = b'\n';
    }
    bench
        .jobs
        .send((steps, sent.clone()))
        .expect("the server is there");
    let client = connect(&bench.listener);
    let mut writing = client.try_clone().expect("a descriptor is left");
    let pieces = chunks.to_vec();
    let input = sent.clone();
    let writer = std::thread::spawn(move || {
        let mut rest = &input[..];
        for len in pieces {
            let (piece, more) = rest.split_at(len);
            if writing.write_all(piece).is_err() {
                return;
            }
            rest = more;
        }
        half_close(&writing);
    });
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut &client, &mut answer)
        .map_err(|error| TestCaseError::fail(format!("the answer has no end: {error}")))?;
    writer.join().expect("the writer does not panic");
    let (consumed, reason) = next(&bench.told);
    prop_assert_eq!(reason, CloseReason::PeerClosed.to_string());
    // The model: what it consumed is a beginning of what was sent, and its answer is that, whole
    // and in order.
    prop_assert!(consumed <= sent.len());
    prop_assert_eq!(answer.len(), consumed + 1);
    prop_assert!(answer[..consumed] == sent[..consumed] && answer[consumed] == b'|');
    Ok(())
}
