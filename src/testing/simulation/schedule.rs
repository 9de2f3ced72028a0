//! Whose turn it is, and when.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use crate::ask;
use crate::call::Hosted;
use crate::connect::Target;
use crate::poller::Poller;
use crate::registry::ActorKey;
use crate::sys::{Fault, Network, Who};

use super::{Simulation, note};
use crate::testing::runner::{Runner, whole_ms};

impl Simulation {
    pub(super) fn pass(&mut self, time: Duration) {
        let to = self.elapsed() + time;
        Network::with(|network| network.advance(to));
    }

    /// What is due. Whether there was something.
    pub(super) fn happen(&mut self) -> bool {
        let mut happened = false;
        if Network::with(|network| network.happens(Fault::ClockJump)) {
            let jump = self.order.duration(Duration::from_secs(10));
            note(format_args!("the clock jumps by {jump:?}"));
            self.pass(jump);
        }
        happened |= self.work();
        while let Some(Reverse(first)) = self.scripts.peek()
            && first.at <= self.elapsed()
            && let Some(Reverse(script)) = self.scripts.pop()
        {
            happened = true;
            (script.what)(self);
        }
        happened
    }

    /// Begins offloaded work for which a thread is free, and runs what is done. Whether there was
    /// some.
    fn work(&mut self) -> bool {
        let now = self.elapsed();
        for program in &self.programs {
            let shared = &program.handle.shared;
            for pool in [&shared.workers, &shared.resolvers] {
                while let Some(job) = pool.take() {
                    // Mostly what a disk takes, now and then what a name server does.
                    let longest = if self.order.one_in(8) {
                        Duration::from_secs(1)
                    } else {
                        Duration::from_millis(10)
                    };
                    self.begun += 1;
                    let done_at = now + self.order.duration(longest);
                    self.working
                        .insert((done_at, self.begun), (pool.clone(), job));
                }
            }
        }
        let mut worked = false;
        while let Some(first) = self.working.first_entry()
            && first.key().0 <= now
        {
            worked = true;
            let (pool, job) = first.remove();
            note("a thread has done a piece of work");
            pool.run(job);
        }
        worked
    }

    /// Has a client actor's connect begin at once.
    pub(super) fn connect_client(&mut self, key: ActorKey, target: Target, actor: Box<dyn Hosted>) {
        let program = self.clients();
        let runner = |runner: &Runner| runner.program == program;
        let at = self.pollers.iter().position(runner);
        let at = at.expect("the clients have a poller");
        let who = self.who(at);
        let now = self.elapsed();
        let runner = &mut self.pollers[at];
        let Some(poller) = &mut runner.poller else {
            // The clients have stopped: nobody is at the address.
            let shared = &self.programs[program].handle.shared;
            shared.pollers[0].door.leave(key);
            return shared.pollers[0].door.free(key);
        };
        let acted = Network::with(|network| network.acts(Some(who)));
        let was_poller = ask::mark_poller_thread(true);
        poller.hosts.connect_actor(key, target, actor);
        // Its turn may come later.
        poller.hosts.call.now = None;
        ask::mark_poller_thread(was_poller);
        Network::with(|network| network.acts(acted));
        // It has a deadline now, and perhaps something to tell.
        runner.until = Some(now);
    }

    /// Which poller is to have the next turn.
    pub(super) fn choose(&mut self) -> Option<usize> {
        let now = self.elapsed();
        let able: Vec<usize> = (0..self.pollers.len())
            .filter(|at| self.pollers[*at].is_able(now))
            .collect();
        if able.is_empty() {
            return None;
        }
        if Network::with(|network| network.happens(Fault::Interrupt)) {
            // A signal: somebody gets up for nothing.
            let at = self.order.below(self.pollers.len() as u64) as usize;
            let runner = &self.pollers[at];
            if runner.poller.is_some() && runner.stalled <= now {
                return Some(at);
            }
        }
        Some(*self.order.pick(&able))
    }

    pub(super) fn run_turn(&mut self, at: usize) {
        if Network::with(|network| network.happens(Fault::Stall)) {
            let time = self.order.duration(Duration::from_secs(2));
            self.pollers[at].stalled = self.elapsed() + time;
            self.note_of(at, format_args!("gets no processor for {time:?}"));
            return;
        }
        self.enter(at, |_| ());
    }

    fn note_of(&self, at: usize, text: fmt::Arguments<'_>) {
        let who = self.who(at);
        let before = Network::with(|network| network.acts(Some(who)));
        Network::note(text);
        Network::with(|network| network.acts(before));
    }

    fn who(&self, at: usize) -> Who {
        let runner = &self.pollers[at];
        Who {
            process: self.programs[runner.program].process,
            poller: runner.number,
        }
    }

    /// Ends the wait of a poller, has it do `what` and a turn, and lets it fall asleep again.
    fn enter(&mut self, at: usize, what: impl FnOnce(&mut Poller)) {
        let Some(mut poller) = self.pollers[at].poller.take() else {
            return;
        };
        let who = self.who(at);
        let acted = Network::with(|network| network.acts(Some(who)));
        let was_poller = ask::mark_poller_thread(true);
        poller
            .get_up(Some(Duration::ZERO))
            .expect("a simulated selector does not fail");
        what(&mut poller);
        let has_stopped = poller.turn(|| self.interleave());
        if has_stopped {
            Network::note("has stopped");
            // Its end, as when its thread ends.
            drop(poller);
            self.pollers[at].has_stopped = true;
        } else {
            let timeout = poller.fall_asleep();
            // A wait is never shorter than asked for, and ends on a whole millisecond.
            self.pollers[at].until = timeout.map(|timeout| self.elapsed() + whole_ms(timeout));
            self.pollers[at].poller = Some(poller);
        }
        ask::mark_poller_thread(was_poller);
        Network::with(|network| network.acts(acted));
    }

    /// Between two steps of a poller's turn another one may come in.
    fn interleave(&mut self) {
        if self.pollers.len() > 1 && self.order.one_in(16) {
            let now = self.elapsed();
            let at = self.order.below(self.pollers.len() as u64) as usize;
            if self.pollers[at].is_able(now) {
                self.run_turn(at);
            }
        }
    }

    /// When something is to happen, while nothing does.
    pub(super) fn next_at(&self) -> Option<Duration> {
        let now = self.elapsed();
        let pollers = self.pollers.iter().filter_map(|runner| runner.next_at(now));
        let scripts = self.scripts.peek().map(|Reverse(script)| script.at);
        let network = Network::with(|network| network.next_at());
        let work = self.working.first_key_value().map(|((at, _), _)| *at);
        pollers.chain(scripts).chain(network).chain(work).min()
    }

    /// Promise 4: no wake is lost. Nobody is able to run here, so whoever has a message sleeps.
    #[track_caller]
    pub(super) fn check_sleepers(&self) {
        let now = self.elapsed();
        for runner in &self.pollers {
            if let Some(poller) = &runner.poller
                && runner.stalled <= now
            {
                assert!(
                    !poller.has_mail(),
                    "poller {} of system {} sleeps while a mailbox of its has a message",
                    runner.number,
                    runner.program
                );
            }
        }
    }

    #[track_caller]
    pub(super) fn show_panics(&mut self) {
        let programs = self.programs.iter();
        let panics = programs.map(|program| program.handle.shared.panics()).sum();
        if std::mem::replace(&mut self.panics, panics) != panics && !self.panics_allowed {
            let what = Network::with(Network::take_panic);
            panic!("{}", what.unwrap_or_else(|| "an actor panicked".to_owned()));
        }
    }
}
