//! The threads that run what must not run on a poller.
//!
//! A queue and its threads behind one lock, which is held for a push or a pop, and once for the
//! start of the first thread. Whoever offloads starts a thread only where there is none, or where all
//! are at work because the one in reserve could not be started: a worker that takes the last idle
//! thread's place starts another one before it begins, up to the limit, so that there is one in
//! reserve and a poller need not start it. Threads without work end, but for the one in reserve while
//! others are at work.
//!
//! Nothing here is waited for by a poller. Work under way is never interrupted.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::mem;
use std::sync::PoisonError;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::sync::{Arc, Condvar, Mutex, OnceLock, lock};

/// What a thread is to do. It contains its own panics. Dropped before it has run, it says so to
/// whoever counts.
pub(crate) trait Work: Send {
    /// Does what may take long.
    fn run(&mut self);

    /// Gives the result to who waits for it. The place of the work is free by then, so that who is
    /// told that it is done has room for the next.
    fn deliver(self: Box<Self>);
}

pub(crate) type Job = Box<dyn Work>;

/// How many threads, and how much work may wait for one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) threads: usize,
    pub(crate) queue: usize,
    /// How long a thread waits for work before it ends: long enough for a burst to find those of
    /// the last one, short enough that a server that seldom offloads keeps no stacks.
    pub(crate) idle: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            threads: 16,
            queue: 1024,
            idle: Duration::from_secs(10),
        }
    }
}

/// Why work was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Closed,
    NoThread,
}

/// The pool of one system. A clone is the same pool.
#[derive(Clone)]
pub(crate) struct Workers {
    pool: Arc<Pool>,
}

struct Pool {
    state: Mutex<State>,
    /// Woken for each piece of work, and when the pool closes.
    work: Condvar,
    name: String,
    /// No thread is ever made: a simulation takes the work out and runs it.
    is_by_hand: bool,
    when_idle: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct State {
    limits: Limits,
    queue: VecDeque<Job>,
    /// Those that wait for work.
    idle: usize,
    /// Taken out of the queue and not done.
    running: usize,
    /// How many of those have run and are being delivered.
    delivering: usize,
    /// Threads that are there or about to be.
    count: usize,
    /// Those that are there, by number, and whether each is at work.
    threads: HashMap<u64, Worker>,
    /// The number of the next one.
    next: u64,
    is_closed: bool,
}

struct Worker {
    /// `None` until whoever started it has it, by when it may be at work.
    thread: Option<JoinHandle<()>>,
    is_running: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.running == 0 && self.queue.is_empty()
    }
}

impl Workers {
    /// A pool without threads: they come with the work. They are called `name-work-0` and so on.
    pub(crate) fn new(name: &str, limits: Limits) -> Workers {
        Workers::with(format!("{name}-work"), limits, false)
    }

    /// A pool whose work is run by whoever [takes](Workers::take) it.
    pub(crate) fn by_hand(limits: Limits) -> Workers {
        Workers::with(String::new(), limits, true)
    }

    fn with(name: String, limits: Limits, is_by_hand: bool) -> Workers {
        let state = State {
            limits,
            ..State::default()
        };
        Workers {
            pool: Arc::new(Pool {
                state: Mutex::new(state),
                work: Condvar::new(),
                name,
                is_by_hand,
                when_idle: OnceLock::new(),
            }),
        }
    }

    /// Another pool of the same sort, whose threads are called `name-what-0` and so on.
    pub(crate) fn beside(&self, what: &str, limits: Limits) -> Workers {
        let system = self.pool.name.trim_end_matches("-work");
        Workers::with(format!("{system}-{what}"), limits, self.pool.is_by_hand)
    }

    /// Calls `tell` whenever all work is done, from the thread that did the last of it. To be said
    /// once.
    pub(crate) fn when_idle(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.pool.when_idle.set(Box::new(tell));
    }

    /// Queues the job that `make` makes of `parts`, or gives them back.
    pub(crate) fn submit<P>(
        &self,
        parts: P,
        make: impl FnOnce(P) -> Job,
    ) -> Result<(), (Refusal, P)> {
        let mut state = lock(&self.pool.state);
        if state.is_closed {
            return Err((Refusal::Closed, parts));
        }
        let Limits { threads, queue, .. } = state.limits;
        if state.queue.len() + state.running - state.delivering >= threads.saturating_add(queue) {
            return Err((Refusal::Full, parts));
        }
        // There is none, or none in reserve because it could not be started.
        let is_short = state.count == state.running && state.count < threads;
        if is_short && !self.pool.is_by_hand {
            let number = state.reserve();
            match self.pool.start(number) {
                Ok(thread) => state.enter(number, thread),
                Err(error) => {
                    state.release(number);
                    if state.count == 0 {
                        drop(state);
                        log::error!("{}: no thread can be started: {error}", self.pool.name);
                        return Err((Refusal::NoThread, parts));
                    }
                }
            }
        }
        state.queue.push_back(make(parts));
        let is_awaited = state.idle > 0;
        drop(state);
        if is_awaited {
            self.pool.work.notify_one();
        }
        Ok(())
    }

    /// Whether nothing waits and nothing is being done.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.pool.state).is_idle()
    }

    /// Nothing is taken any more, and threads end when they have done what they are at. Returns the
    /// work that nobody has begun.
    pub(crate) fn close(&self) -> VecDeque<Job> {
        let mut state = lock(&self.pool.state);
        state.is_closed = true;
        let stranded = mem::take(&mut state.queue);
        drop(state);
        self.pool.work.notify_all();
        stranded
    }

    /// After [`close`](Workers::close): waits for the threads that are not at work, which end at
    /// once, and leaves the others to themselves. Not to be called by one of them.
    pub(crate) fn join(&self) {
        let mut state = lock(&self.pool.state);
        let threads = mem::take(&mut state.threads);
        drop(state);
        for worker in threads.into_values().filter(|worker| !worker.is_running) {
            // Its work contains its panics.
            let _ = worker.thread.map(JoinHandle::join);
        }
    }

    // ---- by hand --------------------------------------------------------------------------------

    /// Begins the oldest work, if a thread would be free for it.
    pub(crate) fn take(&self) -> Option<Job> {
        let mut state = lock(&self.pool.state);
        if state.running >= state.limits.threads {
            return None;
        }
        let job = state.queue.pop_front()?;
        state.running += 1;
        Some(job)
    }

    /// Does work that was taken.
    pub(crate) fn run(&self, job: Job) {
        self.pool.work(job, None);
    }

    /// How much waits for a thread.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.pool.state).queue.len()
    }
}

impl State {
    /// Counts a thread that is about to be started.
    fn reserve(&mut self) -> u64 {
        self.count += 1;
        self.next += 1;
        let number = self.next - 1;
        let (thread, is_running) = (None, false);
        self.threads.insert(number, Worker { thread, is_running });
        number
    }

    /// Takes that back.
    fn release(&mut self, number: u64) {
        self.count -= 1;
        self.threads.remove(&number);
    }

    fn enter(&mut self, number: u64, thread: JoinHandle<()>) {
        // Gone if it has ended meanwhile.
        if let Some(worker) = self.threads.get_mut(&number) {
            worker.thread = Some(thread);
        }
    }
}

impl Pool {
    fn start(self: &Arc<Pool>, number: u64) -> std::io::Result<JoinHandle<()>> {
        let pool = self.clone();
        thread::Builder::new()
            .name(format!("{}-{number}", self.name))
            .spawn(move || pool.run(number))
    }

    fn run(self: &Arc<Pool>, number: u64) {
        while let Some(job) = self.next(number) {
            self.work(job, Some(number));
        }
    }

    fn work(&self, mut job: Job, number: Option<u64>) {
        job.run();
        lock(&self.state).delivering += 1;
        job.deliver();
        self.done(number);
    }

    /// Waits for work; `None` when this thread is to end.
    fn next(self: &Arc<Pool>, number: u64) -> Option<Job> {
        let mut state = lock(&self.state);
        let job = loop {
            if let Some(job) = state.queue.pop_front() {
                break job;
            }
            if !state.is_closed {
                state.idle += 1;
                let idle = state.limits.idle;
                let (woken, waited) = self
                    .work
                    .wait_timeout(state, idle)
                    .unwrap_or_else(PoisonError::into_inner);
                state = woken;
                state.idle -= 1;
                // One in reserve stays as long as others are at work: nobody starts a thread where
                // there is one, and theirs may take for ever.
                let is_reserve = state.idle == 0 && state.running > 0;
                if !waited.timed_out() || is_reserve {
                    continue;
                }
            }
            if state.queue.is_empty() {
                state.release(number);
                return None;
            }
        };
        state.running += 1;
        if let Some(worker) = state.threads.get_mut(&number) {
            worker.is_running = true;
        }
        let is_spare_missing = state.idle == 0 && state.count < state.limits.threads;
        if is_spare_missing && !state.is_closed {
            let spare = state.reserve();
            drop(state);
            self.start_spare(spare);
        }
        Some(job)
    }

    fn start_spare(self: &Arc<Pool>, number: u64) {
        let started = self.start(number);
        let mut state = lock(&self.state);
        match started {
            Ok(thread) => state.enter(number, thread),
            Err(error) => {
                state.release(number);
                drop(state);
                log::warn!("{}: no further thread can be started: {error}", self.name);
            }
        }
    }

    fn done(&self, number: Option<u64>) {
        let mut state = lock(&self.state);
        state.running -= 1;
        state.delivering -= 1;
        if let Some(worker) = number.and_then(|number| state.threads.get_mut(&number)) {
            worker.is_running = false;
        }
        let is_idle = state.is_idle();
        drop(state);
        if is_idle && let Some(tell) = self.when_idle.get() {
            tell();
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.pool.state);
        f.debug_struct("Workers")
            .field("threads", &state.count)
            .field("running", &state.running)
            .field("queued", &state.queue.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn pool(threads: usize, queue: usize) -> Workers {
        let idle = LONG;
        Workers::new(
            "test",
            Limits {
                threads,
                queue,
                idle,
            },
        )
    }

    /// Work that nobody waits for.
    impl<F: FnOnce() + Send> Work for Option<F> {
        fn run(&mut self) {
            if let Some(work) = self.take() {
                work();
            }
        }

        fn deliver(self: Box<Self>) {}
    }

    fn submit(workers: &Workers, job: impl FnOnce() + Send + 'static) -> Result<(), Refusal> {
        let submitted = workers.submit(job, |job| Box::new(Some(job)));
        submitted.map_err(|(refusal, _)| refusal)
    }

    /// A job that says that it has begun, and waits for a word.
    fn held(workers: &Workers, begun: &Sender<()>) -> Sender<()> {
        let (release, released) = channel();
        let begun = begun.clone();
        submit(workers, move || {
            begun.send(()).unwrap();
            let _ = released.recv();
        })
        .unwrap();
        release
    }

    fn wait(for_it: &Receiver<()>) {
        for_it.recv_timeout(LONG).unwrap();
    }

    #[test]
    fn as_much_is_taken_as_there_are_threads_and_places() {
        let workers = pool(2, 1);
        let (begun, seen) = channel();
        let held: Vec<_> = (0..2).map(|_| held(&workers, &begun)).collect();
        wait(&seen);
        wait(&seen);
        submit(&workers, || ()).unwrap();
        assert_eq!(submit(&workers, || ()), Err(Refusal::Full));
        assert_eq!(workers.waiting(), 1);
        drop(held);
        assert!(workers.close().len() <= 1);
        workers.join();
    }

    #[test]
    fn long_work_delays_no_other_while_there_are_threads() {
        let workers = pool(3, 8);
        let (begun, seen) = channel();
        // Each is begun though none of those before has ended.
        let held: Vec<_> = (0..3)
            .map(|_| {
                let release = held(&workers, &begun);
                wait(&seen);
                release
            })
            .collect();
        assert_eq!(lock(&workers.pool.state).count, 3, "and no thread more");
        drop(held);
    }

    #[test]
    fn where_the_thread_in_reserve_could_not_be_started_the_next_work_tries_again() {
        let workers = pool(1, 8);
        let (begun, seen) = channel();
        let first = held(&workers, &begun);
        wait(&seen);
        // As if it could not: all are at work, and there may be more.
        lock(&workers.pool.state).limits.threads = 3;
        let second = held(&workers, &begun);
        wait(&seen);
        let third = held(&workers, &begun);
        wait(&seen);
        assert_eq!(lock(&workers.pool.state).count, 3);
        drop((first, second, third));
    }

    #[test]
    fn whoever_closes_gets_what_was_not_begun_and_waits_for_the_idle_alone() {
        let workers = pool(2, 8);
        let (begun, seen) = channel();
        let first = held(&workers, &begun);
        let second = held(&workers, &begun);
        wait(&seen);
        wait(&seen);
        submit(&workers, || panic!("it is not run")).unwrap();
        assert!(!workers.is_idle());
        assert_eq!(workers.close().len(), 1);
        assert_eq!(submit(&workers, || ()), Err(Refusal::Closed));
        // Returns though both are at work.
        workers.join();
        let (idle, is_idle) = channel();
        workers.when_idle(move || idle.send(()).unwrap());
        drop((first, second));
        wait(&is_idle);
        assert!(workers.is_idle());
    }

    /// Work whose delivery asks for more.
    struct Chain(Workers, Sender<Result<(), Refusal>>);

    impl Work for Chain {
        fn run(&mut self) {}

        fn deliver(self: Box<Self>) {
            let _ = self.1.send(submit(&self.0, || ()));
        }
    }

    #[test]
    fn who_is_told_that_work_is_done_has_room_for_more() {
        let workers = pool(1, 0);
        let (delivered, seen) = channel();
        for _ in 0..100 {
            let chain = Chain(workers.clone(), delivered.clone());
            let taken = workers.submit(chain, |chain| Box::new(chain));
            assert!(taken.is_ok());
            assert_eq!(seen.recv_timeout(LONG), Ok(Ok(())));
            while !workers.is_idle() {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn idle_threads_are_joined() {
        let workers = pool(4, 8);
        let (done, seen) = channel();
        submit(&workers, move || done.send(()).unwrap()).unwrap();
        wait(&seen);
        while !workers.is_idle() {
            thread::yield_now();
        }
        assert!(workers.close().is_empty());
        workers.join();
        // Nobody but this test has the pool any more.
        while Arc::strong_count(&workers.pool) > 1 {
            thread::yield_now();
        }
    }

    #[test]
    fn a_thread_without_work_ends_and_work_that_comes_then_gets_another() {
        let workers = Workers::new(
            "test",
            Limits {
                threads: 2,
                queue: 8,
                idle: Duration::from_millis(1),
            },
        );
        for _ in 0..20 {
            let (done, seen) = channel();
            submit(&workers, move || done.send(()).unwrap()).unwrap();
            wait(&seen);
            while lock(&workers.pool.state).count > 0 {
                thread::yield_now();
            }
            assert!(lock(&workers.pool.state).threads.is_empty());
        }
    }

    #[test]
    fn the_thread_in_reserve_stays_while_all_others_are_at_work() {
        let idle = Duration::from_millis(1);
        let workers = Workers::new(
            "test",
            Limits {
                threads: 2,
                queue: 8,
                idle,
            },
        );
        let (begun, seen) = channel();
        let held = held(&workers, &begun);
        wait(&seen);
        for _ in 0..5 {
            let (done, seen) = channel();
            submit(&workers, move || done.send(()).unwrap()).unwrap();
            wait(&seen);
            // Longer than a thread is kept that has nothing to do.
            thread::sleep(10 * idle);
        }
        drop(held);
        while lock(&workers.pool.state).count > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn by_hand_nothing_runs_by_itself_and_no_more_at_a_time_than_threads() {
        let workers = Workers::by_hand(Limits {
            threads: 1,
            queue: 1,
            idle: LONG,
        });
        submit(&workers, || ()).unwrap();
        submit(&workers, || ()).unwrap();
        assert_eq!(submit(&workers, || ()), Err(Refusal::Full));
        let job = workers.take().unwrap();
        assert!(workers.take().is_none(), "the one thread is taken");
        workers.run(job);
        assert!(!workers.is_idle());
        let job = workers.take().expect("the other one");
        workers.run(job);
        assert!(workers.is_idle());
    }
}
