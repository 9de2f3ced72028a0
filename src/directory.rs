//! Names and groups of the actors of one system. Whoever has gone is in neither.

use std::any::{Any, TypeId, type_name};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::actor::Actor;
use crate::addr::{Addr, Recipient};
use crate::gone::{HasEnd, Monitor, MonitorId, Target, Who};
use crate::handle::Handle;
use crate::registry::ActorId;
use crate::sync::lock;

/// Why an actor was not given a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// Another actor has it, and lives.
    Taken(ActorId),
    /// The actor has gone.
    Gone,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Taken(by) => write!(f, "register: the name is taken by actor {by}"),
            NameError::Gone => f.write_str("register: the actor has gone"),
        }
    }
}

impl Error for NameError {}

/// A name or a group is of another type than it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongType {
    what: String,
    is: &'static str,
    asked: &'static str,
}

impl fmt::Display for WrongType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WrongType { what, is, asked } = self;
        write!(f, "{what} is of type {is}, and not {asked}")
    }
}

impl Error for WrongType {}

/// Who has which name, and who is in which group.
#[derive(Default)]
pub(crate) struct Directory(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    names: BTreeMap<String, Entry>,
    groups: BTreeMap<String, Group>,
}

struct Entry {
    id: MonitorId,
    of: TypeId,
    type_name: &'static str,
    target: Target,
    /// The [`Addr`] or [`Recipient`].
    address: Box<dyn Any + Send + Sync>,
}

struct Group {
    of: TypeId,
    type_name: &'static str,
    /// In the order in which they joined.
    members: BTreeMap<MonitorId, Entry>,
    /// The place of each in `members`.
    places: BTreeMap<Who, MonitorId>,
}

impl Entry {
    fn new<T: HasEnd + Send + Sync + 'static, Of: 'static>(address: T) -> Entry {
        Entry {
            id: MonitorId::next(),
            of: TypeId::of::<Of>(),
            type_name: type_name::<Of>(),
            target: address.target(),
            address: Box::new(address),
        }
    }

    fn address<T: Clone + 'static>(&self) -> Option<T> {
        self.address.downcast_ref().cloned()
    }

    fn is_gone(&self) -> bool {
        !self.target.post.door().is_here(self.target.key)
    }

    /// Has this entry taken out when its actor ends; `out` is given the entries.
    fn monitor(
        id: MonitorId,
        target: &Target,
        directory: &Arc<Directory>,
        out: impl FnOnce(&mut Entries) -> Option<Entry> + Send + 'static,
    ) {
        let directory = Arc::downgrade(directory);
        let monitor = Monitor::new(id, target.id(), move |_| {
            if let Some(directory) = directory.upgrade() {
                // Dropped when the lock is free again: the last address may hold a mailbox.
                let gone = out(&mut lock(&directory.0));
                drop(gone);
            }
        });
        target.monitor(monitor);
    }
}

impl Entries {
    /// Takes a name away, if it still is that of this entry.
    fn free(&mut self, name: &str, id: MonitorId) -> Option<Entry> {
        if self.names.get(name)?.id == id {
            return self.names.remove(name);
        }
        None
    }

    fn leave(&mut self, group: &str, id: MonitorId) -> Option<Entry> {
        let found = self.groups.get_mut(group)?;
        let member = found.members.remove(&id)?;
        found.places.remove(&member.target.who());
        if found.members.is_empty() {
            self.groups.remove(group);
        }
        Some(member)
    }
}

impl Handle {
    /// Gives an actor a name, by which the others of its system find it: [`lookup`](Handle::lookup).
    /// It is free again when the actor has gone. An actor may have several names. Callable from any
    /// thread and inside callbacks; costs a lock, so it is nothing to be done per message.
    ///
    /// ```no_run
    /// # use greenroom::*;
    /// # struct Hub; impl Actor for Hub { type Message = u32; }
    /// # fn f(system: &System) -> Result<(), Box<dyn std::error::Error>> {
    /// let handle = system.handle();
    /// handle.register("hub", &system.spawn(|| Hub))?;
    ///
    /// // Anywhere else, also in an actor, by `ctx.system()`:
    /// if let Some(hub) = handle.lookup::<Hub>("hub")? {
    ///     hub.send(1)?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When another actor that lives has this name, and when this one has gone.
    pub fn register<A: Actor>(
        &self,
        name: impl Into<String>,
        addr: &Addr<A>,
    ) -> Result<(), NameError> {
        let name = name.into();
        let entry = Entry::new::<_, A>(addr.clone());
        let (id, target) = (entry.id, addr.target());
        if entry.is_gone() {
            return Err(NameError::Gone);
        }
        let directory = &self.shared.directory;
        let mut entries = lock(&directory.0);
        if let Some(holder) = entries.names.get(&name)
            && !holder.is_gone()
        {
            return if holder.target.who() == target.who() {
                Ok(())
            } else {
                Err(NameError::Taken(holder.target.id()))
            };
        }
        let before = entries.names.insert(name.clone(), entry);
        drop(entries);
        drop(before);
        Entry::monitor(id, &target, directory, move |entries| {
            entries.free(&name, id)
        });
        Ok(())
    }

    /// Takes a name from whoever has it; `false` if nobody had.
    pub fn unregister(&self, name: &str) -> bool {
        let entry = lock(&self.shared.directory.0).names.remove(name);
        if let Some(entry) = &entry {
            entry.target.demonitor(entry.id);
        }
        entry.is_some_and(|entry| !entry.is_gone())
    }

    /// The actor of this name; `None` if there is none.
    ///
    /// # Errors
    ///
    /// When the actor of this name is of another type.
    pub fn lookup<A: Actor>(&self, name: &str) -> Result<Option<Addr<A>>, WrongType> {
        let entries = lock(&self.shared.directory.0);
        let Some(entry) = entries.names.get(name).filter(|entry| !entry.is_gone()) else {
            return Ok(None);
        };
        if entry.of != TypeId::of::<A>() {
            return Err(WrongType {
                what: format!("lookup: the actor {name:?}"),
                is: entry.type_name,
                asked: type_name::<A>(),
            });
        }
        Ok(entry.address())
    }

    /// All names that are kept, in alphabetical order: to be looked at, in a console or a log. That of
    /// an actor that has just gone may still be among them.
    pub fn names(&self) -> Vec<String> {
        lock(&self.shared.directory.0)
            .names
            .keys()
            .cloned()
            .collect()
    }

    /// The names of all groups, in alphabetical order.
    pub fn groups(&self) -> Vec<String> {
        lock(&self.shared.directory.0)
            .groups
            .keys()
            .cloned()
            .collect()
    }

    /// Puts an actor into a group, which is made with its first member and goes with its last. It
    /// leaves when it has gone. Joining twice is joining once.
    ///
    /// A group is a list of addresses, for whoever chooses among them; to push to many use
    /// [`Members`](crate::Members).
    ///
    /// ```no_run
    /// # use greenroom::*;
    /// struct Worker;
    ///
    /// impl Actor for Worker {
    ///     type Message = String;
    ///
    ///     fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         Ok(ctx.system().join_group::<String>("workers", ctx.addr())?)
    ///     }
    ///     // ...
    /// }
    ///
    /// # fn f(handle: &Handle, turn: usize) -> Result<(), Box<dyn std::error::Error>> {
    /// // Whoever has work for one of them:
    /// let workers = handle.members::<String>("workers")?;
    /// if let Some(worker) = workers.get(turn % workers.len().max(1)) {
    ///     worker.send("work".to_owned())?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When the group is one of actors that take another message.
    pub fn join_group<M: Send + 'static>(
        &self,
        group: impl Into<String>,
        member: impl Into<Recipient<M>>,
    ) -> Result<(), WrongType> {
        let (name, member) = (group.into(), member.into());
        let entry = Entry::new::<_, M>(member.clone());
        let (id, target) = (entry.id, member.target());
        if entry.is_gone() {
            return Ok(());
        }
        let directory = &self.shared.directory;
        let mut entries = lock(&directory.0);
        let before = match entries.groups.get(&name) {
            Some(group) if group.has_gone() => entries.groups.remove(&name),
            _ => None,
        };
        let group = entries
            .groups
            .entry(name.clone())
            .or_insert_with(|| Group::new::<M>());
        group.expect::<M>("join_group", &name)?;
        if group.places.contains_key(&target.who()) {
            return Ok(());
        }
        group.places.insert(target.who(), id);
        group.members.insert(id, entry);
        drop(entries);
        drop(before);
        Entry::monitor(id, &target, directory, move |entries| {
            entries.leave(&name, id)
        });
        Ok(())
    }

    /// Takes an actor out of a group; `false` if it was not in.
    pub fn leave_group(&self, group: &str, member: &impl HasEnd) -> bool {
        let who = member.target().who();
        let mut entries = lock(&self.shared.directory.0);
        let found = entries.groups.get(group);
        let Some(&id) = found.and_then(|group| group.places.get(&who)) else {
            return false;
        };
        let entry = entries.leave(group, id);
        drop(entries);
        if let Some(entry) = &entry {
            entry.target.demonitor(id);
        }
        entry.is_some()
    }

    /// The members of a group in the order in which they joined; none where there is no such group.
    ///
    /// # Errors
    ///
    /// When its members take another message.
    pub fn members<M: Send + 'static>(&self, group: &str) -> Result<Vec<Recipient<M>>, WrongType> {
        let entries = lock(&self.shared.directory.0);
        let found = entries.groups.get(group);
        let Some(found) = found.filter(|found| !found.has_gone()) else {
            return Ok(Vec::new());
        };
        found.expect::<M>("members", group)?;
        let members = found.members.values().filter(|entry| !entry.is_gone());
        Ok(members.filter_map(Entry::address).collect())
    }
}

impl Group {
    fn new<M: 'static>() -> Group {
        Group {
            of: TypeId::of::<M>(),
            type_name: type_name::<M>(),
            members: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    /// Whether nobody who is in it lives. It is taken away when the last one's end is told.
    fn has_gone(&self) -> bool {
        self.members.values().all(Entry::is_gone)
    }

    fn expect<M: 'static>(&self, operation: &str, name: &str) -> Result<(), WrongType> {
        if self.of == TypeId::of::<M>() {
            return Ok(());
        }
        Err(WrongType {
            what: format!("{operation}: the group {name:?}"),
            is: self.type_name,
            asked: type_name::<M>(),
        })
    }
}
