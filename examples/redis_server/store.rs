//! What is stored: keys and values in memory, shared by all pollers.
//!
//! Many small tables, each under a lock of its own, so that pollers seldom wait for one another. A
//! command over several keys locks all of their tables before it looks at one, so nobody sees half
//! of it; always in the same order, so nobody waits in a circle.
//!
//! Bounded by memory only, as Redis is with its defaults.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hashbrown::HashTable;

/// Enough that two of some dozen pollers seldom meet; a set of them fits into a word.
const SHARDS: usize = 64;

pub(crate) struct Store {
    hasher: ahash::RandomState,
    shards: [Shard; SHARDS],
}

/// Each on cache lines of its own: else pollers would wait for each other's lines where they do not
/// for each other's locks.
#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<Table>);

impl Shard {
    /// A panic cannot leave a table half changed, so one that was locked during it is good.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key and its hash, which finds both the shard and the place in its table.
pub(crate) struct Key<'a> {
    bytes: &'a [u8],
    hash: u64,
}

impl Key<'_> {
    /// By bits that a table makes little use of: it takes its place from the lowest, and what it
    /// compares before a key from the highest seven.
    fn shard(&self) -> usize {
        (self.hash >> 48) as usize % SHARDS
    }
}

impl Store {
    pub(crate) fn new() -> Store {
        Store {
            // Random, so that nobody can prepare keys that all have the same hash.
            hasher: ahash::RandomState::new(),
            shards: std::array::from_fn(|_| Shard::default()),
        }
    }

    pub(crate) fn key<'a>(&self, bytes: &'a [u8]) -> Key<'a> {
        let hash = self.hasher.hash_one(bytes);
        Key { bytes, hash }
    }

    /// Locks the table of one key.
    pub(crate) fn lock(&self, key: &Key<'_>) -> MutexGuard<'_, Table> {
        self.shards[key.shard()].lock()
    }

    /// Locks the tables of several keys.
    pub(crate) fn lock_several<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Locked<'_> {
        let set = keys.fold(0, |set, key| set | 1 << self.key(key).shard());
        self.lock_set(set)
    }

    pub(crate) fn lock_all(&self) -> Locked<'_> {
        self.lock_set(u64::MAX)
    }

    fn lock_set(&self, set: u64) -> Locked<'_> {
        Locked {
            store: self,
            tables: std::array::from_fn(|at| (set >> at & 1 == 1).then(|| self.shards[at].lock())),
        }
    }
}

/// Some or all tables, locked. Keys of other tables are not there.
pub(crate) struct Locked<'a> {
    store: &'a Store,
    tables: [Option<MutexGuard<'a, Table>>; SHARDS],
}

impl Locked<'_> {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Bytes> {
        let key = self.store.key(key);
        self.tables[key.shard()].as_ref()?.get(&key)
    }

    pub(crate) fn set(&mut self, key: &[u8], value: Bytes) -> Option<Bytes> {
        let key = self.store.key(key);
        self.tables[key.shard()].as_mut()?.set(&key, value)
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Bytes> {
        let key = self.store.key(key);
        self.tables[key.shard()].as_mut()?.remove(&key)
    }

    pub(crate) fn len(&self) -> usize {
        self.tables
            .iter()
            .flatten()
            .map(|table| table.0.len())
            .sum()
    }

    pub(crate) fn clear(&mut self) {
        for table in self.tables.iter_mut().flatten() {
            table.0 = HashTable::new();
        }
    }
}

#[derive(Default)]
pub(crate) struct Table(HashTable<Entry>);

struct Entry {
    /// Kept, so that a table that grows need not hash all its keys again.
    hash: u64,
    key: Box<[u8]>,
    value: Bytes,
}

impl Table {
    pub(crate) fn get(&self, key: &Key<'_>) -> Option<&Bytes> {
        let entry = self.0.find(key.hash, |entry| *entry.key == *key.bytes);
        entry.map(|entry| &entry.value)
    }

    /// Returns the value that was there: to be dropped, if it is large, after the lock.
    pub(crate) fn set(&mut self, key: &Key<'_>, value: Bytes) -> Option<Bytes> {
        let same = |entry: &Entry| *entry.key == *key.bytes;
        if let Some(entry) = self.0.find_mut(key.hash, same) {
            return Some(std::mem::replace(&mut entry.value, value));
        }
        let entry = Entry {
            hash: key.hash,
            key: key.bytes.into(),
            value,
        };
        self.0.insert_unique(key.hash, entry, |entry| entry.hash);
        None
    }

    pub(crate) fn remove(&mut self, key: &Key<'_>) -> Option<Bytes> {
        let same = |entry: &Entry| *entry.key == *key.bytes;
        let found = self.0.find_entry(key.hash, same).ok()?;
        Some(found.remove().0.value)
    }
}
