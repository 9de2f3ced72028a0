//! What the actors of one poller share without locks, and closures that are run there from outside.

use std::any::{Any, TypeId, type_name};
use std::cell::{Ref, RefCell, RefMut};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::actor::Actor;
use crate::addr::Addr;
use crate::call::{Call, Spawned};
use crate::command::Command;
use crate::context::Context;
use crate::handle::Handle;
use crate::mailbox::Admission;
use crate::offload::{NotTaken, NotTakenKind};

/// A value of one poller, shared by its actors: a cache, a pool, a counter. See
/// [`Builder::local`](crate::Builder::local).
///
/// It is no borrow of the context, so that this one can be used meanwhile, and an actor may keep it:
///
/// ```
/// # use greenroom::*;
/// # use std::collections::HashMap;
/// # struct Page;
/// #[derive(Default)]
/// struct Cache(HashMap<Vec<u8>, Vec<u8>>);
///
/// # impl Actor for Page {
/// # type Message = ();
/// fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
///     let cache = ctx.local_or(Cache::default);
///     while let Some(line) = input.line(80)? {
///         match cache.borrow().0.get(line) {
///             Some(page) => ctx.write(page),
///             None => ctx.write("none\n"),
///         };
///     }
///     Ok(())
/// }
/// # }
/// ```
pub struct Local<T: 'static>(Rc<RefCell<T>>);

impl<T> Local<T> {
    /// The value, to be looked at.
    ///
    /// # Panics
    ///
    /// While this callback has it borrowed to be changed. No other callback can.
    #[track_caller]
    pub fn borrow(&self) -> Ref<'_, T> {
        match self.0.try_borrow() {
            Ok(value) => value,
            Err(_) => borrowed::<T>(),
        }
    }

    /// The value, to be changed.
    ///
    /// # Panics
    ///
    /// While this callback has it borrowed already. No other callback can.
    #[track_caller]
    pub fn borrow_mut(&self) -> RefMut<'_, T> {
        match self.0.try_borrow_mut() {
            Ok(value) => value,
            Err(_) => borrowed::<T>(),
        }
    }
}

#[cold]
#[track_caller]
fn borrowed<T>() -> ! {
    panic!(
        "local: this callback has {} borrowed already",
        type_name::<T>()
    )
}

impl<T> Clone for Local<T> {
    fn clone(&self) -> Local<T> {
        Local(self.0.clone())
    }
}

impl<T> fmt::Debug for Local<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Local<{}>", type_name::<T>())
    }
}

type Maker = Arc<dyn Fn(usize) -> Box<dyn Any> + Send + Sync>;

/// How the values of each poller are made, by type.
#[derive(Clone, Default)]
pub(crate) struct Makers(Vec<(TypeId, Maker)>);

impl Makers {
    /// Of two for one type the second counts.
    pub(crate) fn add<T: 'static>(&mut self, make: impl Fn(usize) -> T + Send + Sync + 'static) {
        let of = TypeId::of::<T>();
        self.0.retain(|(known, _)| *known != of);
        let make = move |poller| Box::new(new_local(make(poller))) as Box<dyn Any>;
        self.0.push((of, Arc::new(make)));
    }

    fn of(&self, of: TypeId) -> Option<&Maker> {
        let found = self.0.iter().find(|(known, _)| *known == of);
        found.map(|(_, make)| make)
    }
}

impl fmt::Debug for Makers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Makers({})", self.0.len())
    }
}

fn new_local<T>(value: T) -> Local<T> {
    Local(Rc::new(RefCell::new(value)))
}

/// The values of one poller, in the order in which they were made. Few, so that they are found
/// sooner by a walk than by a hash.
#[derive(Default)]
pub(crate) struct Locals(Vec<(TypeId, Box<dyn Any>)>);

impl Locals {
    pub(crate) fn get<T: 'static>(&self) -> Option<Local<T>> {
        let of = TypeId::of::<T>();
        let (_, local) = self.0.iter().find(|(known, _)| *known == of)?;
        local.downcast_ref().cloned()
    }

    fn put<T: 'static>(&mut self, local: Box<dyn Any>) -> Option<Local<T>> {
        self.0.push((TypeId::of::<T>(), local));
        self.get()
    }

    /// Takes out the one that was made last, so that none outlives what it was made of.
    pub(crate) fn pop(&mut self) -> Option<Box<dyn Any>> {
        self.0.pop().map(|(_, local)| local)
    }
}

impl Call {
    #[track_caller]
    fn value<T: 'static>(&mut self) -> Local<T> {
        if let Some(local) = self.values.get() {
            return local;
        }
        let make = self.shared.makers.of(TypeId::of::<T>()).cloned();
        let local = make.map(|make| make(self.registry.door.poller as usize));
        match local.and_then(|local| self.values.put(local)) {
            Some(local) => local,
            None => panic!(
                "local: nothing says how {} is made: tell Builder::local, or use local_or",
                type_name::<T>()
            ),
        }
    }

    fn value_or<T: 'static>(&mut self, make: impl FnOnce() -> T) -> Local<T> {
        if let Some(local) = self.values.get() {
            return local;
        }
        if self.shared.makers.of(TypeId::of::<T>()).is_some() {
            return self.value();
        }
        let local = new_local(make());
        self.values.put::<T>(Box::new(local.clone()));
        local
    }
}

impl<A: Actor> Context<'_, A> {
    /// The value of this type that belongs to this poller, and that all its actors share. It is made
    /// when it is first asked for, by what [`Builder::local`](crate::Builder::local) was given, and
    /// dropped when the poller ends, after its actors, those made last first.
    ///
    /// # Panics
    ///
    /// When nothing says how it is made, and when that panics: then the next one tries again.
    #[track_caller]
    pub fn local<T: 'static>(&mut self) -> Local<T> {
        self.call().value()
    }

    /// The same for a type of which [`Builder::local`](crate::Builder::local) need not know: without
    /// that, `make` makes the value.
    pub fn local_or<T: 'static>(&mut self, make: impl FnOnce() -> T) -> Local<T> {
        self.call().value_or(make)
    }
}

/// What a closure that runs on a poller may use, see [`Handle::run_on`]. It is called between the
/// callbacks of that poller's actors, and like them it must not block.
pub struct PollerContext<'a> {
    call: &'a mut Call,
}

impl<'a> PollerContext<'a> {
    pub(crate) fn new(call: &'a mut Call) -> PollerContext<'a> {
        PollerContext { call }
    }

    /// The number of the poller, counted from 0.
    pub fn poller(&self) -> usize {
        self.call.registry.door.poller as usize
    }

    /// As [`Context::local`].
    ///
    /// # Panics
    ///
    /// As [`Context::local`].
    #[track_caller]
    pub fn local<T: 'static>(&mut self) -> Local<T> {
        self.call.value()
    }

    /// As [`Context::local_or`].
    pub fn local_or<T: 'static>(&mut self, make: impl FnOnce() -> T) -> Local<T> {
        self.call.value_or(make)
    }

    /// As [`Context::spawn`]: the actor need not be `Send`.
    pub fn spawn<B: Actor>(&mut self, actor: B) -> Addr<B> {
        let post = self.call.registry.post::<B>();
        let key = self.call.registry.door.reserve();
        self.call.spawned.push(Spawned::here(key, Box::new(actor)));
        Addr::new(post, key)
    }

    /// As [`Context::now`].
    pub fn now(&mut self) -> Instant {
        self.call.now()
    }

    /// As [`Context::system`].
    pub fn system(&self) -> Handle {
        Handle {
            shared: self.call.shared.clone(),
        }
    }
}

impl fmt::Debug for PollerContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollerContext")
            .field("poller", &self.poller())
            .finish_non_exhaustive()
    }
}

/// What is to be run on a poller.
pub(crate) type OnPoller = Box<dyn FnOnce(&mut PollerContext<'_>) + Send>;

impl Handle {
    /// Runs `f` on the poller of this number, between two callbacks of its actors: to look at or to
    /// change what they [share](Context::local), or to spawn an actor that is not `Send`. Callable
    /// from any thread, never blocks. What one thread has run on one poller runs in that order.
    ///
    /// `Ok` means that it is run exactly once, or that the system has ended first: then it is dropped
    /// and counted in [`Stats::dead_letters`](crate::Stats::dead_letters). A panic in it is contained
    /// and counted in [`Stats::panics`](crate::Stats::panics).
    ///
    /// ```no_run
    /// # use greenroom::*;
    /// # fn f(handle: &Handle) -> Result<(), Box<dyn std::error::Error>> {
    /// #[derive(Default)]
    /// struct Served(u64);
    ///
    /// let (count, counts) = std::sync::mpsc::channel();
    /// handle.run_on(0, move |poller| {
    ///     let served = poller.local_or(Served::default);
    ///     let _ = count.send(served.borrow().0);
    /// })?;
    /// println!("{} served by poller 0", counts.recv()?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The closure comes back when as many wait for this poller as messages may
    /// ([`Builder::mailbox_bound`](crate::Builder::mailbox_bound)), and when the system has ended.
    ///
    /// # Panics
    ///
    /// When there is no such poller, see [`Handle::pollers`].
    pub fn run_on<F>(&self, poller: usize, f: F) -> Result<(), NotTaken<F>>
    where
        F: FnOnce(&mut PollerContext<'_>) + Send + 'static,
    {
        let pollers = &self.shared.pollers;
        assert!(
            poller < pollers.len(),
            "run_on: there is no poller {poller}, the system has {}",
            pollers.len()
        );
        let kind = match pollers[poller].commands.admit() {
            Admission::Room { .. } => {
                pollers[poller].command(Command::Run(Box::new(f)));
                return Ok(());
            }
            Admission::Full => NotTakenKind::Full,
            Admission::Closed => NotTakenKind::Stopped,
        };
        Err(NotTaken::new("run_on", kind, f))
    }

    /// Runs a clone of `f` on every poller, as [`run_on`](Handle::run_on) does; returns the numbers
    /// of those that would not take it.
    #[must_use = "some pollers may not have taken it"]
    pub fn run_on_all<F>(&self, f: F) -> Vec<usize>
    where
        F: FnOnce(&mut PollerContext<'_>) + Clone + Send + 'static,
    {
        let refuses = |poller: &usize| self.run_on(*poller, f.clone()).is_err();
        (0..self.pollers()).filter(refuses).collect()
    }
}
