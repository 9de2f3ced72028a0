//! Writes, values of keys, files and notices in any order, to a reader that takes any number of
//! bytes at a time: what comes is whole and in order, and a notice is told once, not early, not
//! late.
//!
//!     GREENROOM_SEEDS=10000 cargo test --release --test mixed_output

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex};

use greenroom::testing::{Random, Stage};
use greenroom::*;

/// What is in front of each record: its number and how long it is.
const HEAD: usize = 8;

const FILES: usize = 200;

/// What one callback does.
#[derive(Clone, Copy)]
enum Step {
    Write { number: u32, len: usize },
    Shared { number: u32, len: usize },
    Latest { number: u32, key: u64, len: usize },
    File { offset: u64, len: usize },
    Notice(u64),
    NestedNotice(u64),
    Close,
}

/// The tokens that were told, which outlive the actor.
type Told = Arc<Mutex<Vec<u64>>>;

struct Writer {
    file: Arc<File>,
    told: Told,
}

struct Inner;

impl Actor for Inner {
    type Message = Vec<Step>;
}

impl Actor for Writer {
    type Message = Vec<Step>;

    fn message(&mut self, steps: Vec<Step>, ctx: &mut Context<'_, Self>) -> Outcome {
        for step in steps {
            match step {
                Step::Write { number, len } => {
                    ctx.write(record(number, len));
                }
                Step::Shared { number, len } => {
                    ctx.write_bytes(record(number, len).into());
                }
                Step::Latest { number, key, len } => {
                    ctx.write_latest(key, record(number, len).into());
                }
                Step::File { offset, len } => {
                    // Where writes are dropped this may be, too.
                    let _ = ctx.write_file(self.file.clone(), offset, len as u64);
                }
                Step::Close => ctx.close(),
                Step::Notice(token) => assert!(ctx.notify_written(token)),
                Step::NestedNotice(token) => {
                    ctx.nested::<Inner, _>(|ctx| assert!(ctx.notify_written(token)));
                }
            }
        }
        Ok(())
    }

    fn written(&mut self, token: u64, _: &mut Context<'_, Self>) -> Outcome {
        self.told.lock().expect("no panic").push(token);
        Ok(())
    }
}

/// Bytes that tell where they belong.
fn record(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((len as u32).to_le_bytes());
    bytes.extend((0..len).map(|at| (number as usize * 31 + at) as u8));
    bytes
}

/// A file of records, and where each stands.
fn records() -> (Arc<File>, Vec<(u64, usize)>) {
    let (mut all, mut places) = (Vec::new(), Vec::new());
    for at in 0..FILES {
        let len = at * 7919 % 3000;
        places.push((all.len() as u64, HEAD + len));
        all.extend(record(1_000_000 + at as u32, len));
    }
    let name = format!("greenroom-{}-mixed", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, all).expect("a file");
    let file = File::open(&path).expect("the same");
    std::fs::remove_file(&path).expect("the same");
    (Arc::new(file), places)
}

/// What was written under a number.
struct Wrote {
    place: usize,
    key: Option<u64>,
    len: usize,
}

fn run(seed: u64, file: &Arc<File>, places: &[(u64, usize)]) -> [usize; 3] {
    let mut random = Random::new(seed);
    let policy = *random.pick(&[
        SlowReader::Close,
        SlowReader::DropOldest,
        SlowReader::DropOldest,
        SlowReader::DropNewest,
    ]);
    let drops = policy != SlowReader::Close;
    let options = ConnectionOptions::new()
        .output_max(if drops { 12_000 } else { 64 << 20 })
        .watermarks(100, 8000)
        .slow_reader(policy);
    let told = Told::default();
    let count = || told.lock().expect("no panic").len();
    let writer = Writer {
        file: file.clone(),
        told: told.clone(),
    };
    let mut stage = Stage::with_options(writer, options);
    stage.stall();
    let mut wrote: HashMap<u32, Wrote> = HashMap::new();
    let (mut number, mut files) = (0, 0);
    // Of each notice, how many were written before it; of those told, what had been taken.
    let (mut asked, mut taken_when) = (Vec::new(), Vec::new());
    let mut out = Vec::new();
    for _ in 0..random.range(1..80) {
        if random.one_in(2) {
            let mut steps = Vec::new();
            let mut is_behind = false;
            for _ in 0..random.range(1..8) {
                let len = *random.pick(&[0, 1, 100, 600, 2000]) + random.below(40) as usize;
                let place = wrote.len();
                let kind = random.below(6);
                let (mut key, at) = (None, number);
                steps.push(match kind {
                    0 => Step::Write { number, len },
                    1 => Step::Shared { number, len },
                    2 | 3 => {
                        let of = random.below(4);
                        key = Some(of);
                        let key = of;
                        Step::Latest { number, key, len }
                    }
                    4 if files < FILES => {
                        let (offset, len) = places[files];
                        let at = 1_000_000 + files as u32;
                        files += 1;
                        let len_is = len - HEAD;
                        wrote.insert(
                            at,
                            Wrote {
                                place,
                                key,
                                len: len_is,
                            },
                        );
                        steps.push(Step::File { offset, len });
                        continue;
                    }
                    _ => {
                        let token = asked.len() as u64;
                        let is_nested = random.one_in(4);
                        // Behind one that comes last they all do.
                        is_behind |= is_nested;
                        asked.push((place, is_behind));
                        steps.push(if is_nested {
                            Step::NestedNotice(token)
                        } else {
                            Step::Notice(token)
                        });
                        continue;
                    }
                });
                wrote.insert(at, Wrote { place, key, len });
                number += 1;
            }
            let end = wrote.len();
            for (place, is_last) in &mut asked {
                if std::mem::take(is_last) {
                    *place = end;
                }
            }
            stage.send(steps);
        } else {
            let n = *random.pick(&[1, 5, 100, 1000, 5000]) + random.below(50) as usize;
            out.extend(stage.take_output(n));
        }
        taken_when.resize(count(), out.len());
        if stage.queued() == 0 {
            assert_eq!(count(), asked.len(), "seed {seed}: late");
        }
        assert!(stage.reason().is_none(), "{:?}", stage.reason());
    }
    if random.one_in(2) {
        stage.send(vec![Step::Close]);
        while stage.reason().is_none() {
            let n = random.range(1..5000) as usize;
            out.extend(stage.take_output(n));
            taken_when.resize(count(), out.len());
        }
        assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    } else {
        stage.unstall();
        out.extend(stage.output());
    }
    let told = told.lock().expect("no panic").clone();
    assert!(
        told.iter().copied().eq(0..asked.len() as u64),
        "seed {seed}: {told:?}"
    );
    // What has come, in order.
    let (mut at, mut last, mut of_key) = (0, None, HashMap::new());
    let mut seen = 0;
    while at < out.len() {
        let word = |at: usize| u32::from_le_bytes(out[at..at + 4].try_into().expect("four"));
        let (number, len) = (word(at), word(at + 4) as usize);
        let Wrote {
            place,
            key,
            len: was,
        } = wrote.get(&number).expect("one that was written");
        assert_eq!(len, *was, "seed {seed}");
        let end = at + HEAD + len;
        assert_eq!(out[at..end], record(number, len), "seed {seed}");
        match key {
            None => {
                assert!(last < Some(*place), "seed {seed}: {number} out of order");
                last = Some(*place);
            }
            Some(key) => {
                let before = of_key.insert(*key, *place);
                assert!(before < Some(*place), "seed {seed}: an old value of {key}");
            }
        }
        for (token, taken) in taken_when.iter().enumerate() {
            let is_early = asked[token].0 > *place && *taken < end;
            assert!(
                !is_early,
                "seed {seed}: {token} told at {taken}, {number} ended at {end}"
            );
        }
        seen += 1;
        at = end;
    }
    if !drops {
        let plain = wrote.values().filter(|wrote| wrote.key.is_none()).count();
        let keyed = |wrote: &&Wrote| wrote.key.is_some();
        let mut newest = HashMap::new();
        for wrote in wrote.values().filter(keyed) {
            let place = newest.entry(wrote.key.expect("keyed")).or_insert(0);
            *place = wrote.place.max(*place);
        }
        assert_eq!(newest, of_key, "seed {seed}: the last value of each key");
        assert!(seen >= plain, "seed {seed}: {seen} of {plain}");
    }
    [wrote.len(), seen, told.len()]
}

#[test]
fn whatever_is_written_comes_whole_and_in_order_and_no_notice_is_early_or_late() {
    let (file, places) = records();
    let seeds = std::env::var("GREENROOM_SEEDS").ok();
    let seeds = seeds.and_then(|seeds| seeds.parse().ok()).unwrap_or(300);
    let mut sum = [0; 3];
    for seed in 0..seeds {
        let counts = run(seed, &file, &places);
        for (sum, n) in sum.iter_mut().zip(counts) {
            *sum += n;
        }
    }
    let [wrote, seen, told] = sum;
    assert!(
        seen > wrote / 4 && seen < wrote && told > wrote / 8,
        "{sum:?}"
    );
}
