//! What becomes of pushes for a reader that is too slow: the oldest are dropped, or newer values
//! take the place of older ones; whole writes always, and the last one arrives.

mod util;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use greenroom::testing::{Client, Faults, Random, Simulation, Stage as OneActor, for_each_seed};
use greenroom::*;
use proptest::prelude::*;
use util::*;

/// What one write that waits counts as beside its bytes.
const APART: usize = 64;

fn options(policy: SlowReader, max: usize) -> ConnectionOptions {
    ConnectionOptions::new().slow_reader(policy).output_max(max)
}

/// Does what it is sent, and counts the calls of `drained`.
#[derive(Default)]
struct Writer {
    drained: usize,
    told: Vec<u64>,
}

type Deed = Box<dyn FnOnce(&mut Context<'_, Writer>) + Send>;

impl Actor for Writer {
    type Message = Deed;

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        for byte in input.take_all() {
            ctx.write([*byte; 100]);
        }
        Ok(())
    }

    fn message(&mut self, deed: Deed, ctx: &mut Context<'_, Self>) -> Outcome {
        deed(ctx);
        Ok(())
    }

    fn drained(&mut self, _: &mut Context<'_, Self>) -> Outcome {
        self.drained += 1;
        Ok(())
    }

    fn written(&mut self, token: u64, _: &mut Context<'_, Self>) -> Outcome {
        self.told.push(token);
        Ok(())
    }
}

fn stage(policy: SlowReader, max: usize) -> OneActor<Writer> {
    let mut stage = OneActor::with_options(Writer::default(), options(policy, max));
    stage.stall();
    stage
}

fn tell(
    stage: &mut OneActor<Writer>,
    deed: impl FnOnce(&mut Context<'_, Writer>) + Send + 'static,
) {
    stage.send(Box::new(deed));
}

fn rest(stage: &mut OneActor<Writer>) -> Bytes {
    stage.unstall();
    stage.output()
}

// ---- drop the oldest ----------------------------------------------------------------------------

#[test]
fn the_oldest_writes_make_room_whole_and_are_counted_and_told() {
    let mut stage = stage(SlowReader::DropOldest, 10 * (100 + APART));
    for n in 0..10 {
        tell(&mut stage, move |ctx| assert!(ctx.write([b'a' + n; 100])));
    }
    assert_eq!((stage.queued(), stage.stats().dropped_writes), (1000, 0));
    tell(&mut stage, |ctx| assert!(!ctx.write([b'k'; 100])));
    assert_eq!((stage.queued(), stage.stats().dropped_writes), (1000, 1));
    // Two for one that is larger, in each of the ways to write.
    tell(&mut stage, |ctx| {
        assert!(!ctx.write_parts(&[&[b'l'; 60], &[b'l'; 60]]));
    });
    assert_eq!((stage.queued(), stage.stats().dropped_writes), (920, 3));
    tell(&mut stage, |ctx| {
        assert!(!ctx.write_bytes(vec![b'm'; 600].into()))
    });
    assert_eq!(stage.stats().dropped_writes, 7);
    // Larger than all that may wait: that one goes, and no other.
    tell(&mut stage, |ctx| {
        assert!(!ctx.write([b'n'; 1640 - APART + 1]))
    });
    assert_eq!(stage.stats().dropped_writes, 8);
    assert!(stage.reason().is_none());
    let mut expected = Vec::new();
    for (byte, len) in [
        (b'h', 100),
        (b'i', 100),
        (b'j', 100),
        (b'k', 100),
        (b'l', 120),
        (b'm', 600),
    ] {
        expected.extend(vec![byte; len]);
    }
    assert_eq!(stage.actor().drained, 0);
    assert_eq!(rest(&mut stage), expected);
    assert_eq!(stage.actor().drained, 1, "there is room again");
    assert_eq!(stage.queued(), 0);
}

#[test]
fn a_newer_value_whose_older_one_made_room_needs_room_for_all_of_itself() {
    let mut stage = stage(SlowReader::DropOldest, 300);
    tell(&mut stage, |ctx| ctx.write_latest(1, vec![b'a'; 50].into()));
    tell(&mut stage, |ctx| assert!(ctx.write([b'b'; 50])));
    // In the place of the older one it would be a hundred bytes more.
    tell(&mut stage, |ctx| {
        ctx.write_latest(1, vec![b'c'; 150].into());
    });
    let stats = stage.stats();
    assert_eq!((stats.dropped_writes, stats.replaced_writes), (2, 0));
    assert_eq!(rest(&mut stage), vec![b'c'; 150]);
}

#[test]
fn what_has_begun_to_leave_is_never_dropped() {
    let mut stage = stage(SlowReader::DropOldest, 1000);
    tell(&mut stage, |ctx| assert!(ctx.write([b'a'; 900])));
    assert_eq!(stage.take_output(1), "a");
    for byte in b'b'..=b'z' {
        tell(&mut stage, move |ctx| assert!(!ctx.write([byte; 500])));
    }
    assert_eq!(stage.stats().dropped_writes, 24, "all but the newest");
    let mut expected = vec![b'a'; 899];
    expected.extend([b'z'; 500]);
    assert_eq!(rest(&mut stage), expected);
}

#[test]
fn a_burst_of_one_callback_keeps_its_newest() {
    let mut stage = stage(SlowReader::DropOldest, 10 * (100 + APART));
    for round in 0..3_u64 {
        tell(&mut stage, move |ctx| {
            for n in 0..10_000_u32 {
                let text = format!("{round}/{n:>5}").repeat(13);
                ctx.write(&text.as_bytes()[..91]);
                if n == 9_999 {
                    ctx.notify_written(round);
                }
            }
        });
    }
    let kept = 10 * (100 + APART) / (91 + APART);
    assert_eq!(stage.queued(), kept * 91);
    assert_eq!(stage.stats().dropped_writes, 30_000 - kept as u64);
    let got = rest(&mut stage);
    let lines: Vec<&[u8]> = got.chunks(91).map(|line| &line[..7]).collect();
    let expected: Vec<String> = (10_000 - kept..10_000)
        .map(|n| format!("2/{n:>5}"))
        .collect();
    assert!(
        lines
            .into_iter()
            .eq(expected.iter().map(|line| line.as_bytes()))
    );
    assert_eq!(stage.actor().told, [0, 1, 2]);
}

#[test]
fn a_notice_for_what_was_dropped_comes_in_its_turn_and_not_early() {
    let mut stage = stage(SlowReader::DropOldest, 3 * (100 + APART));
    for n in 0..3 {
        tell(&mut stage, move |ctx| {
            ctx.write([b'a' + n; 100]);
            ctx.notify_written(u64::from(n));
        });
    }
    stage.take_output(1);
    // Two of them go.
    tell(&mut stage, |ctx| {
        ctx.write([b'd'; 200]);
        ctx.notify_written(3);
    });
    assert_eq!(stage.stats().dropped_writes, 2);
    stage.take_output(98);
    assert!(stage.actor().told.is_empty());
    stage.take_output(1);
    assert_eq!(stage.actor().told, [0, 1, 2]);
    stage.take_output(199);
    assert_eq!(stage.actor().told.len(), 3);
    stage.take_output(1);
    assert_eq!(stage.actor().told, [0, 1, 2, 3]);
}

#[test]
fn who_answers_keeps_the_newest_answers_too() {
    let mut stage = stage(SlowReader::DropOldest, 3 * (100 + APART));
    stage.receive("abcd");
    stage.receive("ef");
    let mut expected = Vec::new();
    b"def".iter().for_each(|byte| expected.extend([*byte; 100]));
    assert_eq!(rest(&mut stage), expected);
    stage.receive("gh");
    assert_eq!(stage.output().len(), 200, "at once where nothing waits");
}

#[test]
fn an_end_sends_what_was_not_dropped() {
    let mut stage = stage(SlowReader::DropOldest, 3 * (100 + APART));
    tell(&mut stage, |ctx| {
        (0..5).for_each(|n| {
            ctx.write([b'a' + n; 100]);
        });
        ctx.close();
        ctx.write([b'z'; 100]);
    });
    let mut expected = Vec::new();
    b"dez".iter().for_each(|byte| expected.extend([*byte; 100]));
    assert_eq!(rest(&mut stage), expected);
    assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
}

#[test]
fn over_a_socket_a_slow_reader_gets_whole_writes_in_order_and_the_last() {
    let stage = Stage::with(options(SlowReader::DropOldest, 256 << 10), |probe| probe);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    let mut last = 0;
    for number in 0_u32..3000 {
        let block = number.to_be_bytes().repeat(5_000);
        seen.run(move |ctx| match number % 3 {
            0 => ctx.write(block),
            1 => ctx.write_bytes(block.into()),
            _ => ctx.write_parts(&[&block[..4], &block[4..]]),
        });
        last = number;
        if stage.system.stats().dropped_writes > 20 {
            break;
        }
    }
    seen.tell(|ctx| {
        ctx.close();
        Ok(())
    });
    let got = read_to_end(client);
    let dropped = stage.system.stats().dropped_writes;
    assert!(dropped > 20, "the reader is too slow");
    let mut numbers = Vec::new();
    for block in got.chunks(20_000) {
        let number = u32::from_be_bytes(block[..4].try_into().unwrap());
        assert_same(block, &number.to_be_bytes().repeat(5_000));
        numbers.push(number);
    }
    assert!(numbers.is_sorted_by(|one, next| one < next));
    assert_eq!(numbers.last(), Some(&last));
    assert_eq!(numbers.len() as u64, u64::from(last) + 1 - dropped);
}

/// One poller whose connections drop the oldest, and may each hold twice its budget.
fn budgeted(budget: usize) -> Stage {
    let options = options(SlowReader::DropOldest, 2 * budget);
    Stage::listen(
        builder(1).output_budget(budget),
        "127.0.0.1:0",
        ListenOptions::new().connection(options).send_buffer(4096),
        |probe| probe,
    )
}

#[test]
fn past_the_pollers_budget_the_oldest_go_before_the_connection() {
    let stage = budgeted(16 << 20);
    let client = connect_small(&stage.listener, 4096);
    let seen = stage.accepted();
    for n in 0..40 {
        seen.run(move |ctx| ctx.write(vec![n; 1 << 20]));
        settle(&stage.system);
        assert!(stage.system.stats().output_waiting <= 16 << 20);
    }
    assert!(stage.system.stats().dropped_writes > 10 && !seen.addr.is_gone());
    seen.addr.close();
    let mut got = Vec::new();
    (&client).read_to_end(&mut got).unwrap();
    assert_eq!(got.len() % (1 << 20), 0, "whole writes");
    assert_eq!(got.last(), Some(&39));
}

#[test]
fn past_the_pollers_budget_who_makes_room_by_drops_goes_on_however_little_others_hold() {
    let stage = budgeted(16 << 20);
    let pairs: Vec<_> = (0..2)
        .map(|_| (connect_small(&stage.listener, 4096), stage.accepted()))
        .collect();
    let [(_, hog), (modest_client, modest)] = &pairs[..] else {
        panic!("two");
    };
    modest.run(|ctx| ctx.write(pattern(100_000)));
    for n in 0..40 {
        hog.run(move |ctx| ctx.write(vec![n; 1 << 20]));
        settle(&stage.system);
        assert!(stage.system.stats().output_waiting <= 16 << 20);
    }
    assert!(stage.system.stats().dropped_writes > 10 && !hog.addr.is_gone());
    assert_same(&read(modest_client, 100_000), &pattern(100_000));
}

#[test]
fn past_the_pollers_budget_who_cannot_drop_what_it_holds_ends_before_others_drop() {
    let stage = budgeted(8 << 20);
    let pairs: Vec<_> = (0..4)
        .map(|_| (connect_small(&stage.listener, 4096), stage.accepted()))
        .collect();
    let (hog, modest) = pairs.split_first().unwrap();
    // One write that has begun to leave, and little behind it.
    hog.1.run(|ctx| ctx.write(pattern(6 << 20)));
    hog.1.run(|ctx| {
        ctx.write([0; 1000]);
        ctx.write([1; 1000]);
    });
    let mut rounds = 0;
    while stage.system.stats().output_waiting > 5 << 20 {
        for (_, seen) in modest {
            seen.run(|ctx| ctx.write(pattern(20_000)));
            settle(&stage.system);
        }
        rounds += 1;
    }
    let reason = hog.1.closed();
    assert!(
        matches!(reason, CloseReason::OutputBudget { .. }),
        "{reason:?}"
    );
    assert!(stage.system.stats().dropped_writes <= 1, "of the hog's");
    for (client, _) in modest {
        let all = pattern(20_000).repeat(rounds);
        assert_same(&read(client, all.len()), &all);
    }
}

// ---- the newest of each key ---------------------------------------------------------------------

#[test]
fn a_newer_value_takes_the_place_of_the_older_that_waits_whole() {
    let mut stage = stage(SlowReader::Close, 10_000);
    tell(&mut stage, |ctx| {
        ctx.write_latest(1, "one=1 ".into());
        ctx.write_latest(2, "two=1 ".into());
        ctx.write("plain ");
        ctx.write_latest(1, "one=2 ".into());
        ctx.write_latest(3, Bytes::new());
    });
    assert_eq!(stage.queued(), 18);
    assert_eq!(stage.take_output(3), "one");
    tell(&mut stage, |ctx| {
        // The first has begun to leave.
        ctx.write_latest(1, "one=3 ".into());
        ctx.write_latest(2, "two=22222 ".into());
        ctx.write_latest(1, "one=4 ".into());
    });
    assert_eq!(stage.stats().replaced_writes, 3);
    assert_eq!(rest(&mut stage), "=2 two=22222 plain one=4 ");
    tell(&mut stage, |ctx| {
        ctx.write_latest(1, "one=5 ".into());
        ctx.write_latest(1, "one=6 ".into());
    });
    assert_eq!(stage.output(), "one=6 ", "those of one callback, too");
    assert_eq!(stage.queued(), 0);
}

#[test]
fn what_waits_is_bounded_by_the_values_of_all_keys() {
    let mut stage = stage(SlowReader::Close, 10 * (20 + APART));
    for round in 0..1000 {
        for key in 0..10 {
            tell(&mut stage, move |ctx| {
                ctx.write_latest(key, format!("{key:>9}={round:>10}").into());
            });
        }
    }
    assert_eq!(stage.queued(), 200);
    assert_eq!(stage.stats().replaced_writes, 9990);
    tell(&mut stage, |ctx| ctx.write_latest(11, "x".into()));
    let Some(CloseReason::SlowReader { queued, limit }) = stage.reason() else {
        panic!("{:?}", stage.reason())
    };
    assert_eq!((*queued, *limit), (10 * (20 + APART) + 1 + APART, 840));
}

#[test]
fn past_the_budget_a_new_key_is_dropped_or_drops_as_the_policy_says() {
    for policy in [SlowReader::DropNewest, SlowReader::DropOldest] {
        let mut stage = stage(policy, 3 * (10 + APART));
        for key in 0..4 {
            tell(&mut stage, move |ctx| {
                ctx.write_latest(key, format!("key {key:>6}").into());
            });
        }
        assert_eq!(stage.stats().dropped_writes, 1);
        tell(&mut stage, |ctx| ctx.write_latest(2, "key 2 newer".into()));
        let kept = match policy {
            SlowReader::DropNewest => {
                assert_eq!(stage.stats().dropped_writes, 2, "it has grown too large");
                "key      0key      1key      2"
            }
            _ => {
                assert_eq!(stage.stats().dropped_writes, 2, "so another one goes");
                "key 2 newerkey      3"
            }
        };
        assert_eq!(rest(&mut stage), kept);
        assert!(stage.reason().is_none());
    }
}

#[test]
fn values_of_one_callback_take_each_others_places_before_the_budget_is_looked_at() {
    let max = 10 * (20 + APART) + 100;
    let burst = |rounds: u64, plain: usize| {
        let mut stage = stage(SlowReader::Close, max);
        for before in 0..2 {
            tell(&mut stage, move |ctx| {
                ctx.notify_written(before);
                for round in 0..rounds {
                    for key in 0..10 {
                        ctx.write_latest(key, format!("{key:>9}={round:>10}").into());
                    }
                    if before == 1 && round == rounds / 2 {
                        ctx.write(vec![b'.'; plain]);
                    }
                }
                ctx.notify_written(10 + before);
            });
        }
        stage
    };
    for rounds in [10, 11, 12, 25, 1000] {
        let mut stage = burst(rounds, 100 - APART);
        assert!(stage.reason().is_none(), "{rounds}");
        assert_eq!(stage.stats().replaced_writes, 20 * rounds - 10);
        let mut expected = String::new();
        for key in 0..10 {
            expected += &format!("{key:>9}={:>10}", rounds - 1);
        }
        expected += &".".repeat(100 - APART);
        assert_eq!(rest(&mut stage), expected);
        assert_eq!(stage.actor().told, [0, 10, 1, 11]);
    }
    let stage = burst(1000, 101 - APART);
    assert!(matches!(
        stage.reason(),
        Some(CloseReason::SlowReader { .. })
    ));
}

#[test]
fn values_of_an_adapter_and_of_the_actor_inside_do_not_mix() {
    struct Adapter(Writer);
    impl Actor for Adapter {
        type Message = Deed;
        fn message(&mut self, deed: Deed, ctx: &mut Context<'_, Self>) -> Outcome {
            for round in 0..100 {
                ctx.write_latest(1, format!("outer {round:>4} ").into());
            }
            let (outcome, written) = ctx.nested(|ctx| self.0.message(deed, ctx));
            let all: Vec<u8> = written.parts().flatten().copied().collect();
            for round in 0..100 {
                ctx.write_latest(2, format!("outer {round:>5} ").into());
            }
            ctx.write(all);
            outcome
        }
        fn written(&mut self, token: u64, _: &mut Context<'_, Self>) -> Outcome {
            self.0.told.push(token);
            Ok(())
        }
    }
    let options = options(SlowReader::Close, 600);
    let mut stage = OneActor::with_options(Adapter(Writer::default()), options);
    stage.stall();
    stage.send(Box::new(|ctx| {
        // Plain writes here: what the peer gets of them is the adapter's.
        for round in 0..10 {
            ctx.write_latest(1, format!("inner {round} ").into());
        }
        ctx.notify_written(1);
    }));
    assert!(stage.reason().is_none() && stage.actor().0.told.is_empty());
    stage.unstall();
    let mut expected = "outer   99 outer    99 ".to_owned();
    (0..10).for_each(|round| expected += &format!("inner {round} "));
    assert_eq!(stage.output(), expected);
    assert_eq!(stage.actor().0.told, [1]);
}

#[test]
fn an_empty_write_drops_nobody() {
    let mut stage = stage(SlowReader::DropOldest, 100 + APART);
    tell(&mut stage, |ctx| assert!(ctx.write([b'a'; 100])));
    tell(&mut stage, |ctx| {
        assert!(ctx.write("") && ctx.write_bytes(Bytes::new()) && ctx.write_parts(&[]));
    });
    assert_eq!((stage.queued(), stage.stats().dropped_writes), (100, 0));
}

#[test]
fn a_notice_behind_a_value_is_told_when_the_one_in_its_place_has_left() {
    let mut stage = stage(SlowReader::Close, 10_000);
    tell(&mut stage, |ctx| {
        ctx.write_latest(1, "a".into());
        ctx.notify_written(0);
        ctx.write("b");
        ctx.notify_written(1);
    });
    tell(&mut stage, |ctx| ctx.write_latest(1, "aaaa".into()));
    stage.take_output(3);
    assert!(stage.actor().told.is_empty());
    stage.take_output(1);
    assert_eq!(stage.actor().told, [0]);
    stage.take_output(1);
    assert_eq!(stage.actor().told, [0, 1]);
}

#[test]
fn over_a_socket_the_last_value_of_each_key_arrives() {
    let stage = Stage::with(options(SlowReader::Close, 1 << 20), |probe| probe);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    // More than the kernel takes, so that some are replaced.
    let rounds = 1000_u64;
    for round in 0..rounds {
        seen.run(move |ctx| {
            for key in 0..16_u64 {
                let value = [key.to_be_bytes(), round.to_be_bytes()].concat().repeat(64);
                ctx.write_latest(key, value.into());
            }
        });
    }
    seen.addr.close();
    let got = read_to_end(client);
    let mut last = HashMap::new();
    for value in got.chunks(1024) {
        let key = u64::from_be_bytes(value[..8].try_into().unwrap());
        let round = u64::from_be_bytes(value[8..16].try_into().unwrap());
        assert_same(value, &value[..16].repeat(64));
        let before = last.insert(key, round);
        assert!(before.is_none_or(|before| before < round));
    }
    assert_eq!(last.len(), 16);
    assert!(last.values().all(|round| *round == rounds - 1));
    let replaced = stage.system.stats().replaced_writes;
    assert_eq!(got.len() as u64 / 1024, 16 * rounds - replaced);
    assert!(replaced > 0, "the reader is too slow");
}

// ---- against a model ----------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Op {
    Write(usize),
    Latest(u64, usize),
    Notify,
    /// The end of a callback.
    Return,
    Take(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![1..60_usize, 1..700_usize];
    prop_oneof![
        4 => len.clone().prop_map(Op::Write),
        3 => (0..3_u64, len).prop_map(|(key, len)| Op::Latest(key, len)),
        2 => Just(Op::Notify),
        3 => Just(Op::Return),
        2 => (0..900_usize).prop_map(Op::Take),
    ]
}

/// One write that waits, or a notice.
#[derive(Clone, Debug)]
enum Waits {
    Write {
        bytes: Vec<u8>,
        key: Option<u64>,
        begun: bool,
    },
    Notice(u64),
}

#[derive(Default)]
struct Model {
    queue: Vec<Waits>,
    got: Vec<u8>,
    told: Vec<u64>,
    dropped: u64,
    replaced: u64,
}

impl Model {
    fn cost(&self) -> usize {
        let cost = |waits: &Waits| match waits {
            Waits::Write { bytes, .. } => bytes.len() + APART,
            Waits::Notice(_) => 0,
        };
        self.queue.iter().map(cost).sum()
    }

    fn make_room(&mut self, cost: usize, max: usize) {
        while self.cost() + cost > max {
            let oldest = self
                .queue
                .iter()
                .position(|waits| matches!(waits, Waits::Write { begun: false, .. }));
            let Some(oldest) = oldest else { return };
            self.queue.remove(oldest);
            self.dropped += 1;
        }
    }

    fn write(&mut self, bytes: Vec<u8>, key: Option<u64>, max: usize) {
        if bytes.len() + APART > max {
            self.dropped += 1;
            return;
        }
        let older = |waits: &Waits| matches!(waits, Waits::Write { key: of, begun: false, .. } if of.is_some() && *of == key);
        let find = |queue: &[Waits]| queue.iter().position(older);
        let was = find(&self.queue).map(|at| match &self.queue[at] {
            Waits::Write { bytes, .. } => bytes.len(),
            Waits::Notice(_) => 0,
        });
        let grows = match was {
            Some(was) => bytes.len().saturating_sub(was),
            None => bytes.len() + APART,
        };
        self.make_room(grows, max);
        if find(&self.queue).is_none() {
            // The older one was among those that were dropped.
            self.make_room(bytes.len() + APART, max);
        }
        match find(&self.queue) {
            Some(at) => {
                self.queue[at] = Waits::Write {
                    bytes,
                    key,
                    begun: false,
                };
                self.replaced += 1;
            }
            None => self.queue.push(Waits::Write {
                bytes,
                key,
                begun: false,
            }),
        }
    }

    fn take(&mut self, mut n: usize) {
        while let Some(first) = self.queue.first_mut() {
            match first {
                Waits::Notice(token) => self.told.push(*token),
                Waits::Write { bytes, begun, .. } => {
                    let step = n.min(bytes.len());
                    self.got.extend(bytes.drain(..step));
                    *begun |= step > 0;
                    n -= step;
                    if !bytes.is_empty() {
                        return;
                    }
                }
            }
            self.queue.remove(0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Where the oldest make room: what leaves, what is dropped and replaced, and when notices are
    /// told is what a plain list says.
    #[test]
    fn writes_that_make_room_follow_a_model(ops in prop::collection::vec(op(), 1..120)) {
        let max = 1500;
        let mut stage = stage(SlowReader::DropOldest, max);
        let (mut model, mut callback, mut tokens) = (Model::default(), Vec::new(), 0);
        let mut got = Vec::new();
        for (n, op) in ops.into_iter().chain([Op::Return]).enumerate() {
            let fill = move |len: usize| (0..len).map(|at| (n * 13 + at) as u8).collect::<Vec<u8>>();
            let takes = match op {
                // The bursts of one callback have a test of their own.
                Op::Write(_) | Op::Latest(..) | Op::Notify if callback.len() < 4 => {
                    match op {
                        Op::Write(len) => model.write(fill(len), None, max),
                        Op::Latest(key, len) => model.write(fill(len), Some(key), max),
                        _ => model.queue.push(Waits::Notice(tokens)),
                    }
                    callback.push((op, fill, tokens));
                    tokens += 1;
                    continue;
                }
                Op::Take(n) => n,
                _ => 0,
            };
            let callback = std::mem::take(&mut callback);
            tell(&mut stage, move |ctx| {
                for (op, fill, token) in callback {
                    match op {
                        Op::Write(len) => {
                            ctx.write(fill(len));
                        }
                        Op::Latest(key, len) => ctx.write_latest(key, fill(len).into()),
                        _ => {
                            ctx.notify_written(token);
                        }
                    }
                }
            });
            got.extend(stage.take_output(takes));
            model.take(takes);
            prop_assert_eq!(&got, &model.got);
            prop_assert_eq!(&stage.actor().told, &model.told);
            let stats = stage.stats();
            prop_assert_eq!((stats.dropped_writes, stats.replaced_writes), (model.dropped, model.replaced));
        }
        model.take(usize::MAX);
        got.extend(rest(&mut stage));
        prop_assert_eq!(&got, &model.got);
        prop_assert_eq!(&stage.actor().told, &model.told);
        prop_assert!(stage.reason().is_none());
    }
}

// ---- under seeds --------------------------------------------------------------------------------

/// Pushes numbered lines to its peer for as long as it is asked to.
struct Ticker {
    number: u64,
    left: u64,
    lines: Random,
}

const KEYS: u64 = 5;

impl Actor for Ticker {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.set_interval(Duration::from_millis(1));
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        for _ in 0..self.lines.range(1..20) {
            if self.left == 0 {
                ctx.close();
                return Ok(());
            }
            self.left -= 1;
            self.number += 1;
            let key = self.number % KEYS;
            let len = self.lines.range(1..400) as usize;
            let line = format!("{key} {} {}\n", self.number, "x".repeat(len));
            if key == 0 {
                ctx.write(line);
            } else {
                ctx.write_latest(key, line.into());
            }
        }
        Ok(())
    }
}

fn tick(sim: &mut Simulation, policy: SlowReader) -> (u64, u64) {
    thread_local! {
        static LINES: RefCell<Option<Random>> = const { RefCell::new(None) };
    }
    let is_lossy = sim.random().one_in(3);
    let system = sim.system(System::builder().pollers(1));
    sim.faults(if is_lossy {
        Faults::all()
    } else {
        Faults::harmless()
    });
    let max = *sim.random().pick(&[2000, 10_000, 100_000]);
    let count = sim.random().range(1..4000);
    let seed = sim.random().below(u64::MAX);
    LINES.set(Some(Random::new(seed)));
    let options = options(policy, max).watermarks(max / 8, max / 2);
    let listen = ListenOptions::new().connection(options);
    let make = move |_| Ticker {
        number: 0,
        left: count,
        lines: LINES.take().expect("one connection"),
    };
    system.listen_with("127.0.0.1:9000", listen, make).unwrap();
    let client: Client = sim.client("127.0.0.1:9000");
    let mut got = Vec::new();
    for _ in 0..100 {
        match sim.random().below(6) {
            0 => client.stop_reading(),
            1 => client.read_on(),
            _ => {}
        }
        sim.run_for(Duration::from_millis(10));
        got.extend(client.received());
        if client.is_closed() || client.is_reset() {
            break;
        }
    }
    sim.faults(Faults::none());
    sim.heal();
    client.read_on();
    sim.run_for(Duration::from_secs(600));
    got.extend(client.received());
    let stats = system.stats();
    let is_whole = client.is_closed() && !client.is_reset() && stats.closed_by["finished"] == 1;
    let text = String::from_utf8(got).unwrap();
    let (mut last_of, mut last_plain) = (HashMap::new(), 0);
    let mut lines = 0;
    for line in text.split_inclusive('\n') {
        if !line.ends_with('\n') {
            assert!(!is_whole, "cut: {line:.40}");
            break;
        }
        lines += 1;
        let mut words = line.split(' ');
        let key: u64 = words.next().unwrap().parse().unwrap();
        let number: u64 = words.next().unwrap().parse().unwrap();
        let rest = words.next().unwrap().trim_end();
        assert!(number % KEYS == key && !rest.is_empty() && rest.bytes().all(|byte| byte == b'x'));
        if key == 0 {
            assert!(number > last_plain, "{number} after {last_plain}");
            last_plain = number;
        }
        let before = last_of.insert(key, number);
        assert!(before.is_none_or(|before| number > before));
    }
    if is_whole {
        assert_eq!(lines, count - stats.dropped_writes - stats.replaced_writes);
        let newest = last_of.values().max().copied();
        assert_eq!(newest, Some(count), "the last one always arrives");
        if policy == SlowReader::Close {
            for key in 0..KEYS {
                let last = (1..=count).rev().find(|number| number % KEYS == key);
                assert_eq!(last_of.get(&key).copied(), last, "the last of key {key}");
            }
        }
    }
    (stats.dropped_writes, stats.replaced_writes)
}

#[test]
fn whatever_happens_whole_lines_arrive_in_order_and_the_last() {
    let (dropped, replaced) = (RefCell::new(0), RefCell::new(0));
    for_each_seed(200, |sim| {
        let policy = *sim
            .random()
            .pick(&[SlowReader::DropOldest, SlowReader::Close]);
        let (d, r) = tick(sim, policy);
        *dropped.borrow_mut() += d;
        *replaced.borrow_mut() += r;
    });
    if std::env::var_os("GREENROOM_SEED").is_none() {
        assert!(*dropped.borrow() > 0 && *replaced.borrow() > 0);
    }
}
