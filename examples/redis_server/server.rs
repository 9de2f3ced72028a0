//! What all connections share, and what is done from time to time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU16, AtomicU32, AtomicU64, Ordering};
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
    /// The seconds since then, to a tenth.
    pub(crate) now: AtomicI64,
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
            now: AtomicI64::new(0),
            endpoint: OnceLock::new(),
            counts: (0..system.pollers()).map(|_| Count::default()).collect(),
            system,
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

/// Who is connected.
#[derive(Default)]
pub(crate) struct Clients {
    last_id: AtomicU64,
    all: Mutex<BTreeMap<u64, (Addr<Client>, Arc<Card>)>>,
}

/// What others may know of a client. Its own poller alone writes it, but for what has a lock.
pub(crate) struct Card {
    pub(crate) id: u64,
    pub(crate) peer: Peer,
    /// Seconds since the server's start.
    pub(crate) since: i64,
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
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (Addr<Client>, Arc<Card>)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn card(&self, peer: Peer, now: i64) -> Card {
        Card {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            peer,
            since: now,
            active: AtomicI64::new(now),
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

/// Takes keys out whose time is over, though nobody asks for them.
pub(crate) struct Sweeper {
    server: Arc<Server>,
    /// The shard whose turn is next.
    next: usize,
    /// Set while a round is not over.
    goes_on: Option<TimerKey>,
    left: usize,
}

impl Sweeper {
    pub(crate) fn new(server: Arc<Server>) -> Sweeper {
        Sweeper {
            server,
            next: 0,
            goes_on: None,
            left: 0,
        }
    }
}

impl Actor for Sweeper {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.set_interval(SWEEP);
        Ok(())
    }

    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        let (begun, now) = (Instant::now(), unix_ms());
        if self.goes_on == Some(key) {
            self.goes_on = None;
        } else {
            let since = (now - self.server.started) / 1000;
            self.server.now.store(since, Ordering::Relaxed);
            self.left = SHARDS;
        }
        while self.left > 0 {
            if begun.elapsed() > SWEEP_MAX {
                if self.goes_on.is_none() {
                    self.goes_on = Some(ctx.set_timer(SWEEP_MAX));
                }
                break;
            }
            if self.server.store.sweep(self.next, now, SWEPT_AT_ONCE) < SWEPT_AT_ONCE {
                self.next = (self.next + 1) % SHARDS;
                self.left -= 1;
            }
        }
        Ok(())
    }
}
