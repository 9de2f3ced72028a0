//! What is stored: keys and values in memory, shared by all pollers.
//!
//! Many small tables, each under a lock of its own, so that pollers seldom wait for one another. A
//! command over several keys, or a transaction, locks all of their tables before it looks at one,
//! so nobody sees half of it; always in the same order, so nobody waits in a circle. The keys of
//! all databases share the locks: which one holds a key has to do with its name only.
//!
//! Bounded by memory only, as Redis is with its defaults.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hashbrown::HashTable;

/// As many as Redis has by default.
pub(crate) const DATABASES: usize = 16;

/// Enough that two of some dozen pollers seldom meet; a set of them fits into a word.
pub(crate) const SHARDS: usize = 64;

/// The deadline of a key that does not expire.
pub(crate) const NEVER: i64 = i64::MAX;

/// Values of so many bytes are freed after the locks are: that can be a system call.
const LARGE: usize = 64 << 10;

/// Milliseconds since 1970, as deadlines are kept.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// The time of one command, or of one transaction: read when it is first asked for, and the same
/// from then on, so that a key does not expire half way through.
#[derive(Default)]
pub(crate) struct Clock(Cell<Option<i64>>);

impl Clock {
    pub(crate) fn now(&self) -> i64 {
        self.0.get().unwrap_or_else(|| {
            let now = unix_ms();
            self.0.set(Some(now));
            now
        })
    }
}

pub(crate) struct Store {
    hasher: ahash::RandomState,
    shards: [Shard; SHARDS],
}

/// Each on cache lines of its own: else pollers would wait for each other's lines where they do not
/// for each other's locks.
#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<Tables>);

impl Shard {
    /// A panic cannot leave a table half changed, so one that was locked during it is good.
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a key in the order in which [`Data::scan`] walks them: by shard, then by hash.
fn position(hash: u64) -> u64 {
    hash.rotate_left(10)
}

/// By bits that a table makes little use of: it takes a key's place from the lowest, and what it
/// compares before a key from the highest seven.
fn shard_of(hash: u64) -> usize {
    (position(hash) >> 58) as usize
}

/// A key, its database, and its hash, which finds both the shard and the place in its table.
#[derive(Clone, Copy)]
pub(crate) struct Key<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) db: usize,
    hash: u64,
}

impl Store {
    pub(crate) fn new() -> Store {
        Store {
            // Random, so that nobody can prepare keys that all have the same hash.
            hasher: ahash::RandomState::new(),
            shards: std::array::from_fn(|_| Shard::default()),
        }
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Any place for [`Data::near`].
    pub(crate) fn random(&self) -> u64 {
        ahash::RandomState::new().hash_one(())
    }

    /// The shard of a key, as a set to be joined with others.
    pub(crate) fn shard_set(&self, key: &[u8]) -> u64 {
        1 << shard_of(self.hash(key))
    }

    /// For a command, or a transaction, on this database: with nothing locked so far.
    #[inline]
    pub(crate) fn data(&self, db: usize) -> Data<'_> {
        Data {
            store: self,
            db,
            clock: Clock::default(),
            locked: Locked::None,
            first: None,
            has_set_deadline: false,
            garbage: Vec::new(),
        }
    }

    /// Takes up to `most` keys out of one shard whose time is over.
    pub(crate) fn sweep(&self, shard: usize, now: i64, most: usize) -> Swept {
        let mut garbage = Vec::new();
        let mut tables = self.shards[shard].lock();
        for db in 0..DATABASES {
            while garbage.len() < most
                && let Some(&(deadline, hash)) = tables.dbs[db].deadlines.first()
                && deadline <= now
            {
                garbage.push(tables.expire(db, deadline, hash));
            }
        }
        let stays = tables.has_deadlines();
        drop(tables);
        let gone = garbage.len();
        Swept { gone, stays }
    }

    /// Whether there is a key with a deadline.
    pub(crate) fn has_deadlines(&self) -> bool {
        self.shards.iter().any(|shard| shard.lock().has_deadlines())
    }

    /// Nobody is told of these keys any more.
    pub(crate) fn unwatch(&self, watched: &Watched) {
        for (db, key) in &watched.keys {
            let mut tables = self.shards[shard_of(self.hash(key))].lock();
            tables.unwatch(*db, key, &watched.touched);
        }
    }
}

/// What [`Store::sweep`] found.
pub(crate) struct Swept {
    /// How many keys it took out.
    pub(crate) gone: usize,
    /// Whether others have deadlines.
    pub(crate) stays: bool,
}

/// The keys that a client watches, and whether one of them has been touched since.
#[derive(Default)]
pub(crate) struct Watched {
    pub(crate) keys: Vec<(usize, Bytes)>,
    touched: Arc<AtomicBool>,
}

impl Watched {
    /// Certain only while the shards of all keys are locked.
    pub(crate) fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }
}

/// What the lock of a shard protects.
#[derive(Default)]
struct Tables {
    dbs: [Table; DATABASES],
    watchers: HashMap<(usize, Bytes), Watchers, ahash::RandomState>,
    counts: Counts,
}

/// The hash of a key, and who is to be told when it changes.
type Watchers = (u64, Vec<Arc<AtomicBool>>);

/// What has happened to the keys of a shard.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) expired: u64,
}

#[derive(Default)]
struct Table {
    entries: HashTable<Entry>,
    /// The [`position`]s of all keys. They do not move when the table grows, so a walk by them
    /// misses none and meets none twice.
    order: BTreeSet<u64>,
    /// Deadlines and hashes of the keys that have one.
    deadlines: BTreeSet<(i64, u64)>,
}

pub(crate) struct Entry {
    /// Kept, so that a table that grows need not hash all its keys again.
    hash: u64,
    pub(crate) key: Box<[u8]>,
    pub(crate) value: Bytes,
    pub(crate) deadline: i64,
}

impl Table {
    #[inline]
    fn find(&self, key: &Key<'_>) -> Option<usize> {
        let same = |entry: &Entry| *entry.key == *key.bytes;
        self.entries.find_bucket_index(key.hash, same)
    }

    fn entry(&self, bucket: usize) -> Option<&Entry> {
        self.entries.get_bucket(bucket)
    }

    fn insert(&mut self, key: &Key<'_>, value: Bytes, deadline: i64) {
        self.order.insert(position(key.hash));
        if deadline != NEVER {
            self.deadlines.insert((deadline, key.hash));
        }
        let entry = Entry {
            hash: key.hash,
            key: key.bytes.into(),
            value,
            deadline,
        };
        self.entries
            .insert_unique(key.hash, entry, |entry| entry.hash);
    }

    fn remove(&mut self, bucket: usize) -> Option<Entry> {
        let (entry, _) = self.entries.get_bucket_entry(bucket).ok()?.remove();
        let hash = entry.hash;
        if entry.deadline != NEVER {
            self.deadlines.remove(&(entry.deadline, hash));
        }
        // Two keys of one hash are next to impossible, and all the same not wrong.
        if self
            .entries
            .find(hash, |other| other.hash == hash)
            .is_none()
        {
            self.order.remove(&position(hash));
        }
        Some(entry)
    }

    fn set_deadline(&mut self, bucket: usize, deadline: i64) {
        let Some(entry) = self.entries.get_bucket_mut(bucket) else {
            return;
        };
        if entry.deadline != NEVER {
            self.deadlines.remove(&(entry.deadline, entry.hash));
        }
        entry.deadline = deadline;
        if deadline != NEVER {
            self.deadlines.insert((deadline, entry.hash));
        }
    }
}

impl Tables {
    fn has_deadlines(&self) -> bool {
        self.dbs.iter().any(|table| !table.deadlines.is_empty())
    }

    #[inline]
    fn touch(&self, db: usize, key: &[u8]) {
        if !self.watchers.is_empty() {
            self.touch_watched_key(db, key);
        }
    }

    #[cold]
    fn touch_watched_key(&self, db: usize, key: &[u8]) {
        let key = (db, Bytes::copy_from_slice(key));
        if let Some((_, watchers)) = self.watchers.get(&key) {
            tell(watchers);
        }
    }

    fn unwatch(&mut self, db: usize, key: &Bytes, touched: &Arc<AtomicBool>) {
        let key = (db, key.clone());
        if let Some((_, watchers)) = self.watchers.get_mut(&key) {
            watchers.retain(|watcher| !Arc::ptr_eq(watcher, touched));
            if watchers.is_empty() {
                self.watchers.remove(&key);
            }
        }
    }

    /// Takes a key out whose time is over.
    fn expire(&mut self, db: usize, deadline: i64, hash: u64) -> Option<Entry> {
        let table = &mut self.dbs[db];
        let same = |entry: &Entry| entry.hash == hash && entry.deadline == deadline;
        let entry = match table.entries.find_bucket_index(hash, same) {
            Some(bucket) => table.remove(bucket)?,
            None => {
                table.deadlines.remove(&(deadline, hash));
                return None;
            }
        };
        self.counts.expired += 1;
        self.touch(db, &entry.key);
        Some(entry)
    }
}

enum Locked<'a> {
    None,
    One(usize, MutexGuard<'a, Tables>),
    Several(Box<[Option<MutexGuard<'a, Tables>>; SHARDS]>),
}

/// What a value is written with.
pub(crate) enum Ttl {
    Never,
    Keep,
    /// In milliseconds since 1970.
    Until(i64),
}

/// The keys that a command, or a transaction, has locked, as it sees them: those whose time is over
/// are not there.
pub(crate) struct Data<'a> {
    store: &'a Store,
    /// The database in use.
    pub(crate) db: usize,
    pub(crate) clock: Clock,
    locked: Locked<'a>,
    /// The hash of the one key that was locked.
    first: Option<u64>,
    /// What is better freed without the locks.
    pub(crate) garbage: Vec<Garbage>,
    /// Whether a key was given a deadline.
    pub(crate) has_set_deadline: bool,
}

/// What takes its time to be freed.
#[allow(dead_code, reason = "it is there to be dropped")]
pub(crate) enum Garbage {
    Value(Bytes),
    Keys(Vec<HashTable<Entry>>),
}

impl<'a> Data<'a> {
    /// Locks one key. Once at most, as the next.
    #[inline]
    pub(crate) fn lock_one(&mut self, key: &[u8]) {
        let hash = self.store.hash(key);
        let shard = shard_of(hash);
        self.first = Some(hash);
        self.locked = Locked::One(shard, self.store.shards[shard].lock());
    }

    /// Locks several keys: see [`Store::shard_set`].
    pub(crate) fn lock_set(&mut self, set: u64) {
        let shards = &self.store.shards;
        let lock = |at: usize| (set >> at & 1 == 1).then(|| shards[at].lock());
        self.locked = Locked::Several(Box::new(std::array::from_fn(lock)));
    }

    #[inline]
    pub(crate) fn key<'k>(&self, bytes: &'k [u8]) -> Key<'k> {
        self.key_in(self.db, bytes)
    }

    pub(crate) fn key_in<'k>(&self, db: usize, bytes: &'k [u8]) -> Key<'k> {
        let hash = self.store.hash(bytes);
        Key { bytes, db, hash }
    }

    /// The first key of a command, which has been hashed already if it is the only one.
    #[inline]
    pub(crate) fn first_key<'k>(&self, bytes: &'k [u8]) -> Key<'k> {
        let hash = self.first.unwrap_or_else(|| self.store.hash(bytes));
        Key {
            bytes,
            db: self.db,
            hash,
        }
    }

    #[inline]
    fn shard(&mut self, shard: usize) -> &mut Tables {
        let tables = match &mut self.locked {
            Locked::One(at, tables) if *at == shard => Some(tables),
            Locked::Several(all) => all[shard].as_mut(),
            _ => None,
        };
        tables.expect("the shards of a command's keys are locked before it runs")
    }

    #[inline]
    fn tables(&mut self, key: &Key<'_>) -> &mut Tables {
        self.shard(shard_of(key.hash))
    }

    /// Where the key is, if it is there and its time is not over.
    #[inline]
    fn find(&mut self, key: &Key<'_>) -> Option<usize> {
        let table = &self.tables(key).dbs[key.db];
        let bucket = table.find(key)?;
        let deadline = table.entry(bucket)?.deadline;
        if deadline != NEVER && deadline <= self.clock.now() {
            let entry = self.tables(key).expire(key.db, deadline, key.hash);
            self.discard(entry);
            return None;
        }
        Some(bucket)
    }

    #[inline]
    pub(crate) fn get(&mut self, key: &Key<'_>) -> Option<&Entry> {
        let bucket = self.find(key)?;
        self.tables(key).dbs[key.db].entry(bucket)
    }

    /// The same, counted as a hit or a miss.
    #[inline]
    pub(crate) fn read(&mut self, key: &Key<'_>) -> Option<&Entry> {
        let bucket = self.find(key);
        let tables = self.tables(key);
        match bucket {
            Some(_) => tables.counts.hits += 1,
            None => tables.counts.misses += 1,
        }
        tables.dbs[key.db].entry(bucket?)
    }

    pub(crate) fn set(&mut self, key: &Key<'_>, value: Bytes, ttl: Ttl) {
        // One whose time is over need not be taken out first: it gets a new one.
        let bucket = match ttl {
            Ttl::Keep => self.find(key),
            _ => self.tables(key).dbs[key.db].find(key),
        };
        let deadline = match ttl {
            Ttl::Never | Ttl::Keep => NEVER,
            Ttl::Until(deadline) => deadline,
        };
        self.has_set_deadline |= deadline != NEVER;
        let tables = self.tables(key);
        let table = &mut tables.dbs[key.db];
        let mut before = None;
        match bucket {
            Some(bucket) => {
                if let Some(entry) = table.entries.get_bucket_mut(bucket) {
                    before = Some(std::mem::replace(&mut entry.value, value));
                    if entry.deadline != deadline && !matches!(ttl, Ttl::Keep) {
                        table.set_deadline(bucket, deadline);
                    }
                }
            }
            None => table.insert(key, value, deadline),
        }
        tables.touch(key.db, key.bytes);
        if let Some(value) = before
            && value.len() >= LARGE
        {
            self.garbage.push(Garbage::Value(value));
        }
    }

    /// Changes a value where it lies; its deadline stays.
    pub(crate) fn edit(&mut self, key: &Key<'_>, change: impl FnOnce(&mut Bytes)) {
        let Some(bucket) = self.find(key) else { return };
        let tables = self.tables(key);
        if let Some(entry) = tables.dbs[key.db].entries.get_bucket_mut(bucket) {
            change(&mut entry.value);
            tables.touch(key.db, key.bytes);
        }
    }

    pub(crate) fn set_deadline(&mut self, key: &Key<'_>, deadline: i64) {
        self.has_set_deadline |= deadline != NEVER;
        if let Some(bucket) = self.find(key) {
            let tables = self.tables(key);
            tables.dbs[key.db].set_deadline(bucket, deadline);
            tables.touch(key.db, key.bytes);
        }
    }

    pub(crate) fn remove(&mut self, key: &Key<'_>) -> Option<Entry> {
        let bucket = self.find(key)?;
        let tables = self.tables(key);
        let entry = tables.dbs[key.db].remove(bucket);
        tables.touch(key.db, key.bytes);
        entry
    }

    /// To be freed when the locks are.
    pub(crate) fn discard(&mut self, entry: Option<Entry>) {
        if let Some(entry) = entry
            && entry.value.len() >= LARGE
        {
            self.garbage.push(Garbage::Value(entry.value));
        }
    }

    /// Has `watched` be told when this key changes.
    pub(crate) fn watch(&mut self, key: &[u8], watched: &mut Watched) {
        // One whose time is over is none already: that it goes is no change.
        let key = self.key(key);
        self.find(&key);
        let name = (key.db, Bytes::copy_from_slice(key.bytes));
        if watched.keys.contains(&name) {
            return;
        }
        let watchers = self.tables(&key).watchers.entry(name.clone());
        let (_, watchers) = watchers.or_insert((key.hash, Vec::new()));
        watchers.push(watched.touched.clone());
        watched.keys.push(name);
    }

    /// Whether all is as it was when `watched` began. A key whose time is over by now has changed,
    /// though nobody may have noticed yet.
    pub(crate) fn is_unchanged(&mut self, watched: &Watched) -> bool {
        for (db, key) in &watched.keys {
            let key = self.key_in(*db, key);
            self.find(&key);
        }
        !watched.is_touched()
    }

    /// As [`Store::unwatch`], of keys that are locked already.
    pub(crate) fn unwatch(&mut self, watched: &Watched) {
        for (db, name) in &watched.keys {
            let key = self.key_in(*db, name);
            self.tables(&key).unwatch(*db, name, &watched.touched);
        }
    }
}

/// What needs all shards locked.
impl Data<'_> {
    fn each(&mut self) -> impl Iterator<Item = &mut Tables> {
        let all = match &mut self.locked {
            Locked::Several(all) => all.as_mut_slice(),
            _ => &mut [],
        };
        all.iter_mut().flatten().map(|tables| &mut **tables)
    }

    /// How many keys a database has, and how many of them have a deadline.
    pub(crate) fn len(&mut self, db: usize) -> (usize, usize) {
        self.each().fold((0, 0), |(keys, expiring), tables| {
            let table = &tables.dbs[db];
            (keys + table.entries.len(), expiring + table.deadlines.len())
        })
    }

    pub(crate) fn counts(&mut self) -> Counts {
        self.each().fold(Counts::default(), |sum, tables| Counts {
            hits: sum.hits + tables.counts.hits,
            misses: sum.misses + tables.counts.misses,
            expired: sum.expired + tables.counts.expired,
        })
    }

    pub(crate) fn reset_counts(&mut self) {
        for tables in self.each() {
            tables.counts = Counts::default();
        }
    }

    pub(crate) fn clear(&mut self, dbs: std::ops::Range<usize>) {
        let mut gone = Vec::new();
        for tables in self.each() {
            for db in dbs.clone() {
                let table = std::mem::take(&mut tables.dbs[db]);
                tables.touch_watched(db, &[&table]);
                gone.push(table.entries);
            }
        }
        self.garbage.push(Garbage::Keys(gone));
    }

    pub(crate) fn swap(&mut self, one: usize, other: usize) {
        for tables in self.each() {
            tables.dbs.swap(one, other);
            for db in [one, other] {
                tables.touch_watched(db, &[&tables.dbs[one], &tables.dbs[other]]);
            }
        }
    }

    /// Shows keys of the database in use from a place on, some `count` of them, and returns the
    /// place behind the last one, or 0 at the end. A key that is there from the first call to the
    /// last is shown exactly once, whatever happens to the others meanwhile.
    pub(crate) fn scan(&mut self, from: u64, count: usize, mut show: impl FnMut(&Entry)) -> u64 {
        let (db, now) = (self.db, self.clock.now());
        let mut left = count;
        for tables in self.each().skip((from >> 58) as usize) {
            let table = &tables.dbs[db];
            for &position in table.order.range(from..) {
                if left == 0 {
                    return position;
                }
                left -= 1;
                let hash = position.rotate_right(10);
                let same = table
                    .entries
                    .iter_hash(hash)
                    .filter(|entry| entry.hash == hash);
                same.filter(|entry| entry.deadline > now)
                    .for_each(&mut show);
            }
        }
        0
    }

    /// The key at a place, or the next one behind it, as long as one can be found.
    pub(crate) fn near(&mut self, place: u64) -> Option<Bytes> {
        let mut found = None;
        for from in [place, 0] {
            let mut from = from;
            while found.is_none() {
                from = self.scan(from, 16, |entry| {
                    found.get_or_insert_with(|| Bytes::copy_from_slice(&entry.key));
                });
                if from == 0 {
                    break;
                }
            }
        }
        found
    }
}

impl Tables {
    /// Tells those who watch a key of this database that is in one of the tables.
    fn touch_watched(&self, db: usize, tables: &[&Table]) {
        for ((of, bytes), (hash, watchers)) in &self.watchers {
            let (db, hash) = (db, *hash);
            let key = Key { bytes, db, hash };
            if *of == db && tables.iter().any(|table| table.find(&key).is_some()) {
                tell(watchers);
            }
        }
    }
}

fn tell(watchers: &[Arc<AtomicBool>]) {
    for touched in watchers {
        touched.store(true, Ordering::Release);
    }
}
