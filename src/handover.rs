//! Replacing a server by a new process without refusing one connection.
//!
//! The process that serves offers its listening sockets at the path of a Unix socket; the one that is
//! to replace it takes them, accepts on them, and confirms; only then the old one stops accepting, and
//! finishes with the connections that it has. The sockets themselves go from one to the other
//! (SCM_RIGHTS), all of a SO_REUSEPORT group, with whoever waits in their backlogs: at no moment is
//! there an address without a socket that listens, or a socket that is closed with somebody waiting.
//! Datagram sockets do not go over: the new process binds its own when the old one has closed its, and
//! what comes in between is lost, as datagrams may be. ([Socket activation](crate::activation) keeps
//! those, too.)
//!
//! ```no_run
//! use std::time::Duration;
//! use greenroom::handover::Handover;
//! use greenroom::*;
//! # struct Echo; impl Actor for Echo { type Message = (); }
//!
//! fn main() -> std::io::Result<()> {
//!     let system = System::builder().build()?;
//!     let path = "/run/echo.handover";
//!     let options = ListenOptions::new();
//!     // Whether this is the first, or replaces one that runs.
//!     let mut inherited = Handover::take(path, Duration::from_secs(10))?;
//!     let sockets = inherited.as_mut().and_then(|old| old.take("echo"));
//!     let listener = match sockets {
//!         Some(sockets) => system.listen_from(sockets, options, |_peer| Echo)?,
//!         None => system.listen_with("127.0.0.1:9000", options, |_peer| Echo)?,
//!     };
//!     let mut handover = match inherited {
//!         Some(inherited) => inherited.confirm()?,
//!         None => Handover::offer(path)?,
//!     };
//!     // From now on this one can be replaced.
//!     handover.add("echo", &listener);
//!     let handle = system.handle();
//!     std::thread::spawn(move || {
//!         if handover.wait().is_ok() {
//!             // Connections get a minute to finish; actors say in `stopping` what they make of it.
//!             handle.stop(Duration::from_secs(60));
//!         }
//!     });
//!     system.run()
//! }
//! ```
//!
//! # What happens when something fails
//!
//! | what | then |
//! |---|---|
//! | the new process dies, hangs or fails before it confirms | the old one goes on as before and waits for the next; connections that the new one had accepted are lost with it |
//! | the new one dies between its confirmation and its last word | the old one takes its sockets back and goes on; nobody who waits is reset |
//! | the old one dies before the new one has all sockets | [`take`](Handover::take) fails with [`HandoverError::Lost`]; trying again finds nobody, which is a first start |
//! | the old one dies later | the new one serves: [`confirm`](Inherited::confirm) is well without it |
//! | the old one is about to end by itself: stopped, its listeners closed | there is nothing to [take](Inherited::take): the new one listens anew, and has its offer from [`confirm`](Inherited::confirm) |
//! | the old one is stopped before the confirmation | the new one serves what is TCP; the file of a Unix socket has gone with the old one's listener, and nobody finds the new one: stop it when it has been replaced, not before |
//! | the old one gives up waiting, for the confirmation or the last word | it says so, and `confirm` fails with [`HandoverError::Refused`]: the new one is to end |
//! | another user's process asks, or offers | [`HandoverError::Permission`]; both sides look |
//! | the two speak different versions | [`HandoverError::Version`], and the old one goes on |
//! | several are started at once | one after the other: the second replaces the first |
//!
//! # Under systemd
//!
//! A handover needs nobody but the two processes. systemd has to be told which of them the service is
//! from then on (`NotifyAccess=all` in the unit, `MAINPID=` by sd_notify(3) from the new one), or it
//! takes the old one's end for that of the service and ends the new one with it. Where connects may
//! wait for as long as a start takes, let it hold the sockets instead:
//! [socket activation](crate::activation).

mod error;
mod sockets;
mod wire;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::ask::on_poller_thread;
use crate::handover::sockets::{Release, borrow};
use crate::handover::wire::{Frame, VERSION, Wire};
use crate::listen_from::ListenSockets;
use crate::listener::Listener;
use crate::sync::lock;
use crate::sys::descriptor;
use crate::sys::fd_passing;
use crate::sys::{BindOptions, Endpoint, ListenSocket, Socket, SocketOptions};
use crate::timers::deadline_after;

pub use error::HandoverError;

/// How long the other side may take for what it says at once: no more than a process that is being
/// scheduled.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a successor may take from the sockets to its confirmation, unless it is said otherwise.
const CONFIRM: Duration = Duration::from_secs(60);

/// How long an accept that failed is let be: it waits in the backlog meanwhile.
const AGAIN: Duration = Duration::from_millis(100);

/// How long it is looked whether there is a word that should have come before.
const GLANCE: Duration = Duration::from_millis(1);

/// Processes that may wait to take over.
const BACKLOG: i32 = 128;

/// An offer of listeners to the process that will replace this one. See the [module](self).
///
/// Dropping it ends the offer, and removes its file.
#[derive(Debug)]
pub struct Handover {
    path: PathBuf,
    control: Arc<Mutex<Control>>,
    listeners: BTreeMap<String, Listener>,
    confirm_within: Duration,
}

impl Handover {
    /// Offers at `path`: from here on [`take`](Handover::take) of another process of this user waits
    /// there, until [`wait`](Handover::wait) is called. The file is for this user alone; that of a
    /// dead process is replaced.
    ///
    /// Whoever has [taken](Handover::take) gets its offer from [`confirm`](Inherited::confirm)
    /// instead: it goes over as the sockets do.
    ///
    /// # Errors
    ///
    /// When another process offers there, or the path is not fit for a Unix socket.
    pub fn offer(path: impl AsRef<Path>) -> Result<Handover, HandoverError> {
        let path = path.as_ref();
        let bind = BindOptions {
            backlog: BACKLOG,
            group: None,
            socket: SocketOptions::new(),
            simulated: None,
        };
        let offer = || {
            let control = ListenSocket::bind(&Endpoint::from(path), &bind)?;
            // Who may connect is looked at for each; this keeps others from knocking.
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            Handover::new(path.to_owned(), control)
        };
        offer().map_err(HandoverError::Io)
    }

    fn new(path: PathBuf, control: ListenSocket) -> io::Result<Handover> {
        if let Some((fd, _)) = control.lend()? {
            // The one listening socket that somebody waits on.
            descriptor::set_nonblocking(fd.as_fd(), false)?;
        }
        Ok(Handover {
            path,
            control: Arc::new(Mutex::new(Control {
                socket: Some(control),
                is_busy: false,
                is_cancelled: false,
            })),
            listeners: BTreeMap::new(),
            confirm_within: CONFIRM,
        })
    }

    /// Adds a listener to what is offered, with all its sockets; `name` is what the successor asks for
    /// it by. One that is closed by then is left out.
    ///
    /// # Panics
    ///
    /// When there is one of this name; for a listener of a
    /// [simulated](crate::testing::Simulation) system, which no other process could take over.
    pub fn add(&mut self, name: impl Into<String>, listener: &Listener) {
        assert!(
            listener.shared.simulated.is_none(),
            "add: a simulated listener cannot be handed over"
        );
        let name = name.into();
        let before = self.listeners.insert(name, listener.clone());
        assert!(
            before.is_none(),
            "add: a listener of this name is offered already"
        );
    }

    /// How long a successor may take from getting the sockets to confirming: as long as it takes to
    /// start. Then it is refused. By default 60 seconds.
    #[must_use]
    pub fn confirm_within(mut self, within: Duration) -> Handover {
        self.confirm_within = within;
        self
    }

    /// What ends [`wait`](Handover::wait) from another thread.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            control: self.control.clone(),
        }
    }

    /// Blocks the calling thread until another process has taken over: it accepts on all sockets of
    /// all listeners that were [added](Handover::add), and this process on none of them any more. Its
    /// connections go on; the system is to be [stopped](crate::Handle::stop) with the time that they
    /// get.
    ///
    /// A successor that fails before that is logged, and the next is waited for.
    ///
    /// # Errors
    ///
    /// [`HandoverError::Cancelled`] by its [`canceller`](Handover::canceller), and
    /// [`HandoverError::Io`] when no descriptor is left to begin with.
    ///
    /// # Panics
    ///
    /// On a poller's thread, which must not block.
    pub fn wait(self) -> Result<Successor, HandoverError> {
        assert!(!on_poller_thread(), "wait: this would block a poller");
        let accepts = UnixListener::from(self.lend_control()?.0);
        let mut is_told = false;
        loop {
            let accepted = accepts.accept();
            if lock(&self.control).is_cancelled {
                return Err(HandoverError::Cancelled);
            }
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // No descriptor is left, as a rule: no reason not to be replaced later on.
                    if !std::mem::replace(&mut is_told, true) {
                        let path = self.path.display();
                        log::warn!("offered at {path}: accept: {error}; it tries again");
                    }
                    thread::sleep(AGAIN);
                    continue;
                }
            };
            is_told = false;
            lock(&self.control).is_busy = true;
            let handed_over = self.hand_over(Wire::new(stream));
            let is_cancelled = {
                let mut control = lock(&self.control);
                control.is_busy = false;
                control.is_cancelled
            };
            match handed_over {
                Ok(pid) => return Ok(Successor { pid }),
                Err(error) => {
                    let path = self.path.display();
                    log::warn!("offered at {path}: {error}; this process goes on");
                }
            }
            if is_cancelled {
                return Err(HandoverError::Cancelled);
            }
        }
    }

    /// A duplicate of the socket at the path, and where that is.
    fn lend_control(&self) -> Result<(OwnedFd, PathBuf), HandoverError> {
        let control = lock(&self.control);
        let socket = control.socket.as_ref().ok_or(HandoverError::Cancelled)?;
        let lent = socket.lend().map_err(HandoverError::Io)?;
        let (fd, path) = lent.ok_or(HandoverError::Cancelled)?;
        Ok((fd, path.unwrap_or_else(|| self.path.clone())))
    }

    /// The whole of it with one successor; its process id. After an error all is as before.
    fn hand_over(&self, wire: Wire) -> Result<u32, HandoverError> {
        let told = self.try_hand_over(&wire);
        if let Err(error) = &told {
            // An end without a word would be taken for this process's death.
            let refused = Frame::Refused(error.to_string());
            let _ = wire.send(&refused, &[], soon());
        }
        told
    }

    fn try_hand_over(&self, wire: &Wire) -> Result<u32, HandoverError> {
        permitted(wire)?;
        let (version, pid) = greeted(wire, soon())?;
        wire.send(&hello(), &[], soon())?;
        same_version(version)?;
        for (name, listener) in &self.listeners {
            let lent = borrow(listener)?;
            if lent.is_empty() {
                continue;
            }
            let file = lent.iter().find_map(|lent| lent.file.as_ref());
            let listener = Frame::Listener {
                name: name.clone(),
                file: file.map(|path| path.as_os_str().as_bytes().to_vec()),
                sockets: lent.len() as u32,
            };
            wire.send(&listener, &[], soon())?;
            let fds: Vec<_> = lent.iter().map(|lent| lent.fd.as_fd()).collect();
            wire.send_fds(&fds, soon())?;
        }
        let (fd, path) = self.lend_control()?;
        let offered = Frame::Control(path.as_os_str().as_bytes().to_vec());
        wire.send(&offered, &[fd.as_fd()], soon())?;
        drop(fd);
        wire.send(&Frame::End, &[], soon())?;

        let confirmed_by = deadline_after(Instant::now(), self.confirm_within);
        wire.expect(&Frame::Confirm, confirmed_by)?;
        let released = Release::of(&self.listeners, soon())?;
        wire.send(&Frame::Released, &[], soon())?;
        wire.expect(&Frame::Taken, soon())?;
        released.keep();
        // Nobody is to wait at the path for this process any more, nor to find the file gone.
        if let Some(mut socket) = lock(&self.control).socket.take() {
            socket.give_up_path();
        }
        Ok(pid)
    }

    /// Takes over from the process that offers at `path`; `None` where there is none: then this is a
    /// first start, and whoever was there before is dead.
    ///
    /// Waits for `timeout` at most until that process [hands over](Handover::wait) what it has. It
    /// goes on accepting until [`confirm`](Inherited::confirm).
    ///
    /// # Errors
    ///
    /// See [`HandoverError`]. Nothing has changed then for the process that offers.
    ///
    /// # Panics
    ///
    /// On a poller's thread, which must not block.
    pub fn take(
        path: impl AsRef<Path>,
        timeout: Duration,
    ) -> Result<Option<Inherited>, HandoverError> {
        assert!(!on_poller_thread(), "take: this would block a poller");
        let deadline = deadline_after(Instant::now(), timeout);
        let connect = || {
            let socket = Socket::connect(&Endpoint::from(path.as_ref()))?;
            let no_fd = |_| io::Error::from(ErrorKind::Unsupported);
            let stream = UnixStream::from(socket.into_fd().map_err(no_fd)?);
            stream.set_nonblocking(false)?;
            Ok::<_, io::Error>(stream)
        };
        let stream = match connect() {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => return Ok(None),
                // More wait there already than may.
                ErrorKind::WouldBlock => return Err(HandoverError::TimedOut),
                _ => return Err(HandoverError::Io(error)),
            },
        };
        let wire = Wire::new(stream);
        permitted(&wire)?;
        wire.send(&hello(), &[], deadline)?;
        let (version, pid) = greeted(&wire, deadline)?;
        same_version(version)?;
        let is_ours = Arc::new(AtomicBool::new(false));
        let mut listeners = BTreeMap::new();
        let mut control = None;
        loop {
            match wire.recv(deadline)? {
                (
                    Frame::Listener {
                        name,
                        file,
                        sockets,
                    },
                    _,
                ) => {
                    let sockets = receive_fds(&wire, sockets as usize, deadline)?;
                    let file =
                        file.map(|path| (PathBuf::from(OsStr::from_bytes(&path)), is_ours.clone()));
                    listeners.insert(name, ListenSockets { sockets, file });
                }
                (Frame::Control(path), fds) => {
                    let path = PathBuf::from(OsStr::from_bytes(&path));
                    control = fds.into_iter().next().map(|fd| (path, fd));
                }
                (Frame::End, _) => break,
                _ => return Err(HandoverError::Protocol),
            }
        }
        let (path, control) = control.ok_or(HandoverError::Protocol)?;
        Ok(Some(Inherited {
            wire,
            pid,
            listeners,
            path,
            control,
            is_ours,
        }))
    }
}

/// The socket at the path of an offer.
#[derive(Debug)]
struct Control {
    /// `None` when the offer has ended, or another process has it.
    socket: Option<ListenSocket>,
    /// Somebody is taking over.
    is_busy: bool,
    is_cancelled: bool,
}

impl Drop for Handover {
    /// Whoever could have cancelled it may still be there.
    fn drop(&mut self) {
        let ended = lock(&self.control).socket.take();
        drop(ended);
    }
}

/// Ends [`Handover::wait`] from another thread, for instance before the system is stopped for good.
#[derive(Debug, Clone)]
pub struct Canceller {
    control: Arc<Mutex<Control>>,
}

impl Canceller {
    /// Ends the offer and removes its file; [`Handover::wait`] returns
    /// [`HandoverError::Cancelled`]. Harmless when it has ended before, or another process has
    /// taken over. A handover that is under way goes on to its end.
    pub fn cancel(&self) {
        let mut control = lock(&self.control);
        control.is_cancelled = true;
        if control.is_busy {
            // The socket is another process's, too, which is to have it whole.
            return;
        }
        if let Some(socket) = control.socket.take()
            && let Ok(Some((fd, _))) = socket.lend()
        {
            // Not the close alone: whoever waits in an accept would go on waiting.
            let _ = fd_passing::end_accepts(fd.as_fd());
        }
    }
}

/// The process that has taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Successor {
    /// Its process id.
    pub pid: u32,
}

/// What a process has taken over from the one before, which goes on accepting until this is
/// [confirmed](Inherited::confirm). Dropping it leaves all as it was.
#[derive(Debug)]
pub struct Inherited {
    wire: Wire,
    pid: u32,
    listeners: BTreeMap<String, ListenSockets>,
    path: PathBuf,
    control: OwnedFd,
    is_ours: Arc<AtomicBool>,
}

impl Inherited {
    /// The names of the listeners that are not [taken](Inherited::take) yet.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.listeners.keys().map(|name| &**name)
    }

    /// Takes a listener by its name, for [`System::listen_from`](crate::System::listen_from), which
    /// may begin at once: until the confirmation both processes accept. `None` where the other one
    /// has none of this name, or none any more: listen anew.
    ///
    /// The file of a Unix socket is removed by the listener in the end, as if it had been bound here.
    pub fn take(&mut self, name: &str) -> Option<ListenSockets> {
        self.listeners.remove(name)
    }

    /// Takes a listener by where it listens.
    pub fn take_at(&mut self, endpoint: &Endpoint) -> Option<ListenSockets> {
        let found = self.listeners.iter().find_map(|(name, sockets)| {
            let local = sockets.local_addr().ok()?;
            (local == *endpoint).then(|| name.clone())
        })?;
        self.take(&found)
    }

    /// The process id of the one that is being replaced.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Says that this process accepts on all that it has taken, and waits until the other one does
    /// not any more. Returns this process's own offer at the same path.
    ///
    /// Also well when the other process has died meanwhile.
    ///
    /// # Errors
    ///
    /// [`HandoverError::Untaken`] when there are listeners that nobody has [taken](Inherited::take):
    /// those who wait on them would be reset. To do without one, take it and drop it.
    /// [`HandoverError::Refused`], [`HandoverError::TimedOut`] and
    /// [`HandoverError::Protocol`]: the other process goes on, and this one is to end.
    ///
    /// # Panics
    ///
    /// On a poller's thread, which must not block.
    pub fn confirm(self) -> Result<Handover, HandoverError> {
        assert!(!on_poller_thread(), "confirm: this would block a poller");
        if !self.listeners.is_empty() {
            return Err(HandoverError::Untaken(self.listeners.into_keys().collect()));
        }
        let confirmed = self
            .wire
            .send(&Frame::Confirm, &[], soon())
            .and_then(|()| self.wire.expect(&Frame::Released, soon()));
        match confirmed {
            Ok(()) => {
                // This process may have been stopped for so long that the other one serves again.
                self.not_refused(deadline_after(Instant::now(), GLANCE))?;
                match self.wire.send(&Frame::Taken, &[], soon()) {
                    Ok(()) | Err(HandoverError::Lost) => {}
                    Err(error) => return Err(error),
                }
            }
            // By its death, unless there is a word left that says otherwise.
            Err(HandoverError::Lost) => self.not_refused(soon())?,
            Err(error) => return Err(error),
        }
        self.is_ours.store(true, Ordering::Release);
        let take_over = || {
            let file = Some((&*self.path, self.is_ours.clone()));
            let control = ListenSocket::take_over(self.control, file, &SocketOptions::new())?;
            Handover::new(self.path.clone(), control)
        };
        take_over().map_err(HandoverError::Io)
    }

    /// Whether the other one has said by then that it goes on.
    fn not_refused(&self, deadline: Instant) -> Result<(), HandoverError> {
        match self.wire.recv(deadline) {
            Err(error @ HandoverError::Refused(_)) => Err(error),
            _ => Ok(()),
        }
    }
}

fn soon() -> Instant {
    deadline_after(Instant::now(), ANSWER)
}

/// Whether the process at the other end may be there.
fn permitted(wire: &Wire) -> Result<(), HandoverError> {
    let peer = fd_passing::peer_uid(wire.as_fd()).map_err(HandoverError::Io)?;
    let own = fd_passing::own_uid();
    if peer != own {
        return Err(HandoverError::Permission { peer, own });
    }
    Ok(())
}

fn hello() -> Frame {
    Frame::Hello {
        version: VERSION,
        pid: std::process::id(),
    }
}

/// The version that the other side speaks, and its process id.
fn greeted(wire: &Wire, deadline: Instant) -> Result<(u16, u32), HandoverError> {
    match wire.recv(deadline)? {
        (Frame::Hello { version, pid }, _) => Ok((version, pid)),
        _ => Err(HandoverError::Protocol),
    }
}

fn same_version(theirs: u16) -> Result<(), HandoverError> {
    if theirs != VERSION {
        return Err(HandoverError::Version {
            ours: VERSION,
            theirs,
        });
    }
    Ok(())
}

fn receive_fds(
    wire: &Wire,
    count: usize,
    deadline: Instant,
) -> Result<Vec<OwnedFd>, HandoverError> {
    let mut all = Vec::new();
    while all.len() < count {
        match wire.recv(deadline)? {
            (Frame::Fds, fds) if !fds.is_empty() => all.extend(fds),
            _ => return Err(HandoverError::Protocol),
        }
    }
    if all.len() > count {
        return Err(HandoverError::Protocol);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that is stopped behind its confirmation, until the other one has taken its sockets
    /// back.
    #[test]
    fn a_refusal_behind_the_release_is_heard() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs = Wire::new(theirs);
        let refused = Frame::Refused("too late".to_owned());
        for said in [Frame::Released, refused] {
            theirs.send(&said, &[], soon()).unwrap();
        }
        let is_ours = Arc::new(AtomicBool::new(false));
        let inherited = Inherited {
            wire: Wire::new(ours),
            pid: 1,
            listeners: BTreeMap::new(),
            path: PathBuf::from("/nowhere"),
            control: UnixStream::pair().unwrap().0.into(),
            is_ours: is_ours.clone(),
        };
        let error = inherited.confirm().unwrap_err();
        assert!(matches!(error, HandoverError::Refused(why) if why == "too late"));
        assert!(!is_ours.load(Ordering::Acquire));
    }
}
