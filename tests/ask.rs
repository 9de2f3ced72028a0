//! Asking: from a thread outside, which blocks, and from an actor, which is sent the answer.
//! Exactly one answer, always.

mod util;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use greenroom::*;
use util::*;

/// Not reached: the answer comes otherwise.
const LONG: Duration = TIMEOUT;

/// Always reached.
const SHORT: Duration = Duration::from_millis(5);

// ---- from outside -------------------------------------------------------------------------------

fn answer(number: u32) -> impl FnOnce(Reply<u32>) -> Job {
    move |reply| Box::new(move |_| reply.send(number).map_err(|_| "nobody waits for it".into()))
}

/// A question that is neither answered nor dropped, but handed to the test.
fn keep(kept: Sender<Reply<u32>>) -> impl FnOnce(Reply<u32>) -> Job {
    move |reply| Box::new(move |_| Ok(kept.send(reply).map_err(|_| "the test has ended")?))
}

fn one() -> (System, Seen) {
    let system = builder(1).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    (system, probe)
}

#[test]
fn an_ask_is_answered() {
    let (_system, probe) = one();
    for n in 0..1_000 {
        assert_eq!(probe.addr.ask(LONG, answer(n)), Ok(n));
    }
}

#[test]
fn an_ask_may_be_answered_later_and_by_another_thread() {
    let (_system, probe) = one();
    let (kept, questions) = channel::<Reply<u32>>();
    let replier = thread::spawn(move || next(&questions).send(6));
    assert_eq!(probe.addr.ask(LONG, keep(kept)), Ok(6));
    assert_eq!(replier.join().unwrap(), Ok(()));
}

#[test]
fn an_ask_times_out_and_a_late_answer_comes_back_to_the_replier() {
    let (_system, probe) = one();
    let (kept, questions) = channel();
    assert_eq!(probe.addr.ask(SHORT, keep(kept)), Err(AskError::TimedOut));
    assert_eq!(next(&questions).send(7), Err(7));
}

#[test]
fn of_an_answer_and_the_timeout_exactly_one_is_heard() {
    let (_system, probe) = one();
    let (kept, questions) = channel();
    let (mut in_time, mut late) = (0, 0);
    thread::scope(|scope| {
        let (verdicts, heard) = channel();
        scope.spawn(move || {
            for reply in questions {
                let _ = verdicts.send(Reply::send(reply, 1).is_ok());
            }
        });
        for n in 0..2_000 {
            let asked = probe
                .addr
                .ask(Duration::from_micros(n % 100), keep(kept.clone()));
            let accepted = next(&heard);
            assert_eq!(
                asked,
                if accepted {
                    Ok(1)
                } else {
                    Err(AskError::TimedOut)
                }
            );
            *(if accepted { &mut in_time } else { &mut late }) += 1;
        }
        drop(kept);
    });
    assert!(
        late > 0,
        "{in_time} in time, none late: this test has seen nothing"
    );
}

#[test]
fn a_question_dropped_is_unanswered() {
    let (_system, probe) = one();
    let dropped: Result<u32, _> = probe.addr.ask(LONG, |reply| {
        Box::new(move |_| {
            drop(reply);
            Ok(())
        })
    });
    assert_eq!(dropped, Err(AskError::Unanswered));
    // With the actor that holds it, too, which panics here.
    let dropped: Result<u32, _> = probe.addr.ask(LONG, |reply| {
        Box::new(move |_| {
            let _reply = reply;
            panic!("with a question in hand");
        })
    });
    assert_eq!(dropped, Err(AskError::Unanswered));
    assert!(matches!(probe.closed(), CloseReason::Panicked(_)));
}

#[test]
fn a_question_whose_actor_ends_before_its_turn_is_unanswered() {
    let (system, keeper) = one();
    let probe = spawn(&system, 0, |probe| probe);
    let held = hold(&keeper);
    probe.addr.close();
    let asker = {
        let addr = probe.addr.clone();
        thread::spawn(move || addr.ask(LONG, answer(1)))
    };
    // It is in the mailbox, behind the close, as soon as it is counted; either way it has to be
    // told the end.
    drop(held);
    assert!(matches!(
        asker.join().unwrap(),
        Err(AskError::Unanswered | AskError::Gone)
    ));
}

#[test]
fn a_question_to_a_system_that_ends_is_unanswered() {
    let (system, keeper) = one();
    let (kept, questions) = channel();
    let addr = keeper.addr.clone();
    let waiting = thread::spawn({
        let addr = addr.clone();
        move || addr.ask(LONG, keep(kept))
    });
    let reply = next(&questions);
    drop(system);
    assert_eq!(addr.ask(LONG, answer(1)), Err(AskError::Gone));
    drop(reply);
    assert_eq!(waiting.join().unwrap(), Err(AskError::Unanswered));
}

#[test]
fn an_ask_of_one_who_has_gone_or_whose_mailbox_is_full_is_told_so() {
    let system = builder(1).mailbox_bound(4).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    let held = hold(&probe);
    wait_until("the mailbox is full", || {
        probe.addr.send(Box::new(|_| Ok(()))).is_err()
    });
    assert_eq!(probe.addr.ask(LONG, answer(1)), Err(AskError::Full));
    drop(held);
    probe.addr.close();
    probe.closed();
    wait_until("it has gone", || probe.addr.is_gone());
    assert_eq!(probe.addr.ask(LONG, answer(1)), Err(AskError::Gone));
}

#[test]
fn an_ask_that_would_block_a_poller_closes_the_one_who_tried() {
    let (system, other) = one();
    let probe = spawn(&system, 0, |probe| probe);
    let of = other.addr.clone();
    probe.tell(move |_| {
        let _ = of.ask(LONG, answer(1));
        Ok(())
    });
    match probe.closed() {
        CloseReason::Panicked(what) => assert!(what.contains("Context::ask"), "{what}"),
        reason => panic!("{reason:?}"),
    }
    assert_eq!(other.addr.ask(LONG, answer(2)), Ok(2));
    assert_eq!(system.stats().panics, 1);
}

// ---- from an actor ------------------------------------------------------------------------------

type Answer = Result<u32, AskError>;

/// Asks, and reports the answers in their order.
struct Asker {
    answers: Sender<(u32, Answer)>,
}

enum Order {
    Ask {
        of: Addr<Probe>,
        within: Duration,
        question: Box<dyn FnOnce(Reply<u32>) -> Job + Send>,
        number: u32,
    },
    Answer(u32, Answer),
    Nothing,
}

impl Actor for Asker {
    type Message = Order;

    fn message(&mut self, order: Order, ctx: &mut Context<'_, Self>) -> Outcome {
        match order {
            Order::Ask {
                of,
                within,
                question,
                number,
            } => {
                ctx.ask(&of, within, question, move |answer| {
                    Order::Answer(number, answer)
                });
            }
            Order::Answer(number, answer) => self.answers.send((number, answer))?,
            Order::Nothing => {}
        }
        Ok(())
    }
}

struct Pair {
    system: System,
    asker: Addr<Asker>,
    asked: Seen,
    answers: Receiver<(u32, Answer)>,
}

impl Pair {
    /// An asker on poller 0 and one to be asked on the last poller.
    fn new(pollers: usize, bound: usize) -> Pair {
        let system = builder(pollers).mailbox_bound(bound).build().unwrap();
        let (answers, answered) = channel();
        let asker = system.spawn_on(0, || Asker { answers });
        let asked = spawn(&system, pollers - 1, |probe| probe);
        Pair {
            system,
            asker,
            asked,
            answers: answered,
        }
    }

    fn ask(
        &self,
        number: u32,
        within: Duration,
        question: impl FnOnce(Reply<u32>) -> Job + Send + 'static,
    ) {
        let order = Order::Ask {
            of: self.asked.addr.clone(),
            within,
            question: Box::new(question),
            number,
        };
        assert!(self.asker.send(order).is_ok());
    }

    /// The answer to the question of this number, and that no other came before.
    #[track_caller]
    fn answer(&self, number: u32) -> Answer {
        let (to, answer) = next(&self.answers);
        assert_eq!(to, number);
        answer
    }

    /// Nothing more is on its way.
    #[track_caller]
    fn over(self) {
        // A question that times out after the others: what the earlier ones still had to say would
        // have come before.
        let (kept, questions) = channel();
        let asked = spawn(&self.system, 0, |probe| probe);
        let of = asked.addr.clone();
        let order = Order::Ask {
            of,
            within: 10 * SHORT,
            question: Box::new(keep(kept)),
            number: 999,
        };
        assert!(self.asker.send(order).is_ok());
        assert_eq!(self.answer(999), Err(AskError::TimedOut));
        drop(questions);
        settle(&self.system);
        assert!(self.answers.try_recv().is_err(), "one question, one answer");
    }
}

#[test]
fn an_actor_asks_and_is_sent_one_answer() {
    for pollers in [1, 2] {
        let pair = Pair::new(pollers, 1_024);
        for n in 0..200 {
            // Most of these timeouts pass while the test still runs.
            pair.ask(n, if n % 2 == 0 { 5 * SHORT } else { LONG }, answer(n));
            let answer = pair.answer(n);
            assert!(
                answer == Ok(n) || n % 2 == 0 && answer == Err(AskError::TimedOut),
                "{answer:?}"
            );
        }
        pair.over();
    }
}

#[test]
fn an_actor_is_told_by_a_message_when_nobody_answers_in_time() {
    for pollers in [1, 2] {
        let pair = Pair::new(pollers, 1_024);
        let (kept, questions) = channel();
        pair.ask(1, SHORT, keep(kept));
        let reply = next(&questions);
        assert_eq!(pair.answer(1), Err(AskError::TimedOut));
        assert_eq!(
            reply.send(5),
            Err(5),
            "a late answer comes back to the replier"
        );
        pair.over();
    }
}

#[test]
fn an_actor_is_told_when_its_question_is_dropped_or_cannot_be_sent() {
    for pollers in [1, 2] {
        let pair = Pair::new(pollers, 8);
        pair.ask(1, LONG, |reply| {
            Box::new(move |_| {
                drop(reply);
                Ok(())
            })
        });
        assert_eq!(pair.answer(1), Err(AskError::Unanswered));
        if pollers == 2 {
            let held = hold(&pair.asked);
            wait_until("the mailbox is full", || {
                pair.asked.addr.send(Box::new(|_| Ok(()))).is_err()
            });
            pair.ask(2, LONG, answer(2));
            assert_eq!(pair.answer(2), Err(AskError::Full));
            drop(held);
        }
        pair.asked.addr.close();
        pair.asked.closed();
        wait_until("it has gone", || pair.asked.addr.is_gone());
        pair.ask(3, LONG, answer(3));
        assert_eq!(pair.answer(3), Err(AskError::Gone));
        pair.over();
    }
}

#[test]
fn an_answer_finds_room_in_a_full_mailbox() {
    let pair = Pair::new(1, 8);
    let (kept, questions) = channel();
    pair.ask(1, LONG, keep(kept));
    let reply = next(&questions);
    let held = hold(&pair.asked);
    wait_until("the mailbox is full", || {
        pair.asker.send(Order::Nothing).is_err()
    });
    assert_eq!(reply.send(1), Ok(()));
    drop(held);
    assert_eq!(pair.answer(1), Ok(1));
    pair.over();
}

#[test]
fn a_question_of_an_actor_has_one_answer_when_reply_and_timeout_race() {
    let pair = Pair::new(2, 1_024);
    let (kept, questions) = channel();
    let (mut in_time, mut late) = (0, 0);
    for n in 0..400 {
        pair.ask(
            n,
            Duration::from_micros(u64::from(n) * 5),
            keep(kept.clone()),
        );
        let accepted = next(&questions).send(n).is_ok();
        assert_eq!(
            pair.answer(n),
            if accepted {
                Ok(n)
            } else {
                Err(AskError::TimedOut)
            }
        );
        *(if accepted { &mut in_time } else { &mut late }) += 1;
    }
    assert!(
        in_time > 0,
        "all {late} were late: this test has seen nothing"
    );
    pair.over();
}

#[test]
fn an_answer_to_an_actor_that_has_gone_harms_nobody() {
    let pair = Pair::new(1, 1_024);
    let (kept, questions) = channel();
    pair.ask(1, LONG, keep(kept));
    let reply = next(&questions);
    pair.asker.close();
    wait_until("it has gone", || pair.asker.is_gone());
    // Given back, or counted: it is not lost in silence.
    if reply.send(1).is_ok() {
        wait_until("it is counted", || pair.system.stats().dead_letters == 1);
    }
    assert_eq!(pair.asked.run(|_| 7), 7);
    assert_eq!(pair.system.stats().panics, 0);
}

#[test]
fn a_panic_while_an_answer_is_made_is_the_askers_alone() {
    struct Fragile(Sender<String>);
    impl Actor for Fragile {
        type Message = Option<Addr<Probe>>;
        fn message(&mut self, of: Option<Addr<Probe>>, ctx: &mut Context<'_, Self>) -> Outcome {
            if let Some(of) = of {
                ctx.ask(&of, LONG, answer(1), |_| panic!("no message comes of this"));
            }
            Ok(())
        }
        fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
            let _ = self.0.send(reason.to_string());
        }
    }
    let (system, asked) = one();
    let (log, end) = channel();
    let fragile = system.spawn_on(0, || Fragile(log));
    fragile.send(Some(asked.addr.clone())).unwrap();
    assert!(next(&end).contains("no message comes of this"));
    assert_eq!(asked.run(|_| 7), 7);
    assert_eq!(system.stats().panics, 1);
}
