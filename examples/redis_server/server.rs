//! What all connections share, and what is done from time to time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use greenroom::{Actor, Addr, Context, Endpoint, Handle, Outcome, Peer, TimerKey};

use super::client::Client;
use super::store::{Garbage, SHARDS, Store, unix_ms};
use super::topics::Topics;

/// How often keys whose time is over are looked for, which nobody has asked for meanwhile.
const SWEEP: Duration = Duration::from_millis(100);

/// How long that may take before everybody else's turn comes.
const SWEEP_MAX: Duration = Duration::from_millis(1);

/// Keys that are taken out of one table under one lock.
const SWEPT_AT_ONCE: usize = 64;

/// More than so many keys to be freed at once are freed on another thread.
const FREED_HERE: usize = 1024;

pub(crate) struct Server {
    pub(crate) store: Store,
    pub(crate) topics: Topics,
    pub(crate) clients: Clients,
    /// In milliseconds since 1970.
    pub(crate) started: i64,
    /// When the first client came: from then on their times are counted.
    first: OnceLock<Instant>,
    sweeper: OnceLock<Addr<Sweeper>>,
    /// The sweeper has been told that there is something to do, or goes on.
    sweeps: AtomicBool,
    /// Where it listens.
    pub(crate) endpoint: OnceLock<Endpoint>,
    /// One for each poller, which alone writes it.
    counts: Box<[Count]>,
    pub(crate) system: Handle,
}

/// On cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicU64);

impl Server {
    pub(crate) fn new(system: Handle) -> Server {
        Server {
            store: Store::new(),
            topics: Topics::default(),
            clients: Clients::default(),
            started: unix_ms(),
            first: OnceLock::new(),
            sweeper: OnceLock::new(),
            sweeps: AtomicBool::new(false),
            endpoint: OnceLock::new(),
            counts: (0..system.pollers()).map(|_| Count::default()).collect(),
            system,
        }
    }

    /// Starts what a server does by itself.
    pub(crate) fn start(self: &Arc<Server>) {
        let server = self.clone();
        let sweeper = self.system.spawn(move || Sweeper::new(server));
        let _ = self.sweeper.set(sweeper);
    }

    /// Seconds since the first client came.
    pub(crate) fn seconds(&self, now: Instant) -> i64 {
        let first = self.first.get_or_init(|| now);
        now.saturating_duration_since(*first).as_secs() as i64
    }

    /// A key has been given a deadline.
    pub(crate) fn sweep(&self) {
        if !self.sweeps.load(Ordering::Relaxed)
            && !self.sweeps.swap(true, Ordering::SeqCst)
            && let Some(sweeper) = self.sweeper.get()
        {
            // There is one message at a time, so there is room; or the server stops.
            let _ = sweeper.send(());
        }
    }

    pub(crate) fn count_command(&self, poller: usize) {
        let Count(count) = &self.counts[poller];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn commands(&self) -> u64 {
        let counts = self.counts.iter();
        counts
            .map(|Count(count)| count.load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn reset_commands(&self) {
        for Count(count) in &self.counts {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Frees what may take its time, where that holds nobody up.
    pub(crate) fn free(&self, garbage: Vec<Garbage>) {
        let keys = |garbage: &Garbage| match garbage {
            Garbage::Value(_) => 0,
            Garbage::Keys(tables) => tables.iter().map(|table| table.len()).sum(),
        };
        if garbage.iter().map(keys).sum::<usize>() > FREED_HERE {
            // Refused where too much work waits: then it comes back in the error and is freed here.
            let _ = self.system.offload(move || drop(garbage));
        }
    }
}

/// By number.
type Cards = BTreeMap<u64, (Addr<Client>, Arc<Card>)>;

/// Who is connected.
#[derive(Default)]
pub(crate) struct Clients {
    last_id: AtomicU64,
    all: Mutex<Cards>,
}

/// What others may know of a client. Its own poller alone writes it, but for what has a lock.
pub(crate) struct Card {
    pub(crate) id: u64,
    pub(crate) peer: Peer,
    /// As [`Server::seconds`] counts.
    pub(crate) since: AtomicI64,
    pub(crate) active: AtomicI64,
    pub(crate) names: Mutex<Names>,
    /// The last command: see [`super::commands::name_of`].
    pub(crate) command: AtomicU16,
    pub(crate) db: AtomicU16,
    pub(crate) is_resp3: AtomicU16,
    pub(crate) channels: AtomicU32,
    pub(crate) patterns: AtomicU32,
    /// Commands of a transaction that wait for EXEC, or -1.
    pub(crate) queued: AtomicI64,
    pub(crate) watched: AtomicU32,
}

/// What clients call themselves.
#[derive(Clone, Default)]
pub(crate) struct Names {
    pub(crate) client: Bytes,
    pub(crate) library: Bytes,
    pub(crate) version: Bytes,
}

impl Card {
    pub(crate) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As Redis tells the kind of a client by a letter.
    pub(crate) fn is_subscriber(&self) -> bool {
        let channels = self.channels.load(Ordering::Relaxed);
        channels + self.patterns.load(Ordering::Relaxed) > 0
    }
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, Cards> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn card(&self, peer: Peer) -> Card {
        Card {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            peer,
            since: AtomicI64::new(0),
            active: AtomicI64::new(0),
            names: Mutex::default(),
            command: AtomicU16::new(u16::MAX),
            db: AtomicU16::new(0),
            is_resp3: AtomicU16::new(0),
            channels: AtomicU32::new(0),
            patterns: AtomicU32::new(0),
            queued: AtomicI64::new(-1),
            watched: AtomicU32::new(0),
        }
    }

    pub(crate) fn add(&self, addr: Addr<Client>, card: &Arc<Card>) {
        self.lock().insert(card.id, (addr, card.clone()));
    }

    pub(crate) fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// All, those that have been there longest first.
    pub(crate) fn all(&self) -> Vec<(Addr<Client>, Arc<Card>)> {
        self.lock().values().cloned().collect()
    }
}

/// Takes keys out whose time is over, though nobody asks for them. It rests while none has one.
pub(crate) struct Sweeper {
    server: Arc<Server>,
    /// The shard whose turn is next, and how many more are to be gone through in this round.
    next: usize,
    left: usize,
    /// Whether a key was met in this round whose time is still to come.
    any: bool,
}

impl Sweeper {
    fn new(server: Arc<Server>) -> Sweeper {
        Sweeper {
            server,
            next: 0,
            left: 0,
            any: false,
        }
    }

    /// Ends a round: rests, or waits for the next one.
    fn pause(&mut self, ctx: &mut Context<'_, Self>) {
        if !self.any {
            self.server.sweeps.store(false, Ordering::SeqCst);
            // Whoever gave a key a deadline meanwhile, behind this round, thought that it went on.
            if !self.server.store.has_deadlines() || self.server.sweeps.swap(true, Ordering::SeqCst)
            {
                return;
            }
        }
        ctx.set_timer(SWEEP);
    }
}

impl Actor for Sweeper {
    type Message = ();

    fn message(&mut self, _: (), ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.set_timer(SWEEP);
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        let (begun, now) = (Instant::now(), unix_ms());
        if self.left == 0 {
            (self.left, self.any) = (SHARDS, false);
        }
        while self.left > 0 {
            if begun.elapsed() > SWEEP_MAX {
                ctx.set_timer(SWEEP_MAX);
                return Ok(());
            }
            let swept = self.server.store.sweep(self.next, now, SWEPT_AT_ONCE);
            self.any |= swept.stays;
            if swept.gone < SWEPT_AT_ONCE {
                self.next = (self.next + 1) % SHARDS;
                self.left -= 1;
            }
        }
        self.pause(ctx);
        Ok(())
    }
}
