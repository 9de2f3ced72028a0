//! Datagrams on the simulated network.
//!
//! What is sent over UDP goes under way, is lost, doubled, late or overtaken as often as the seed
//! says, and comes to whoever is bound where it arrives. What is sent over a Unix socket is there at
//! once, or refused while its receiver holds as much as it may, as on a kernel.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::faults::Fault;
use super::network::{Happening, Network, Number, Place, Process, errno, nanos, simulate};
use super::selector::Watched;
use super::trace::{What, excerpt};
use crate::sys::{
    DatagramAddr, DatagramBind, DatagramOption, Endpoint, Interest, Outgoing, SocketOption,
    retry_interrupted,
};

/// What a kernel usually holds for a socket that does not receive.
const ROOM: usize = 200 << 10;

/// How many of them a Unix socket holds.
const UNIX_MAX: usize = 11;

/// The longest over UDP.
const LONGEST: usize = 65_507;

/// The first port that is given to who asks for any.
const FREE_PORT: u16 = 50_000;

/// What one datagram counts in the room besides its bytes.
const OVERHEAD: usize = 256;

/// A socket for datagrams.
pub(super) struct Bound {
    pub(super) local: DatagramAddr,
    process: Process,
    shared: bool,
    /// Of those that one program has bound to one address, so that they share what comes there.
    group: u32,
    connected: Option<DatagramAddr>,
    arrived: VecDeque<Parcel>,
    /// How much room those take.
    held: usize,
    /// What became of datagrams sent before.
    errors: VecDeque<i32>,
    groups: Vec<IpAddr>,
    broadcasts: bool,
    /// A send has been refused: nothing more is taken before this time.
    full_until: Option<u64>,
    was_full: bool,
    /// When the last of what was sent and is not overtaken arrives.
    last_at: u64,
    /// In somebody's hands: what it sends stays here.
    by_hand: Option<Vec<Parcel>>,
    pub(super) watched: Watched,
    is_open: bool,
    has_file: bool,
}

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) from: DatagramAddr,
    pub(crate) to: DatagramAddr,
    pub(crate) bytes: Vec<u8>,
}

/// As a [`DatagramSocket`](crate::sys::DatagramSocket) uses it.
impl Number {
    /// `after` is one that was bound to the same address for another poller.
    pub(in crate::sys) fn bind_datagram(
        addr: &DatagramAddr,
        how: &DatagramBind,
        after: bool,
        process: Process,
    ) -> io::Result<(Number, DatagramAddr)> {
        simulate(|network| network.bind_datagram(addr, how, after, process))?
    }

    pub(in crate::sys) fn receive_datagram(
        self,
        place: &mut [u8],
    ) -> io::Result<(usize, DatagramAddr, Option<IpAddr>)> {
        retry_interrupted(|| simulate(|network| network.receive_datagram(self, place))?)
    }

    pub(in crate::sys) fn send_datagram(self, datagram: &Outgoing<'_>) -> io::Result<()> {
        retry_interrupted(|| simulate(|network| network.send_datagram(self, datagram))?)
    }

    pub(in crate::sys) fn set_datagram_option(self, option: &DatagramOption) -> io::Result<()> {
        simulate(|network| network.set_datagram_option(self, option))?
    }
}

impl Network {
    fn bound(&mut self, number: Number) -> io::Result<&mut Bound> {
        match number.place() {
            Place::Datagram(place) => Ok(&mut self.bound[place]),
            _ => Err(errno(libc::EOPNOTSUPP)),
        }
    }

    // ---- binding --------------------------------------------------------------------------------

    fn bind_datagram(
        &mut self,
        addr: &DatagramAddr,
        how: &DatagramBind,
        after: bool,
        process: Process,
    ) -> io::Result<(Number, DatagramAddr)> {
        if !self.is_simulated() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this system is simulated, and its simulation is over, or another thread's",
            ));
        }
        how.socket.check_datagrams(&endpoint_of(addr))?;
        let is_full = self
            .program(process)
            .is_some_and(|program| program.open >= program.descriptors_max);
        if is_full {
            return Err(errno(libc::EMFILE));
        }
        let group = if after { self.serial } else { self.serial + 1 };
        self.serial = group;
        let taken = |addr: &DatagramAddr| {
            self.bound.iter().any(|bound| {
                let both = bound.shared && how.shared || after && bound.group == group;
                bound.is_open && collide(&bound.local, addr) && !both
            })
        };
        let mut local = addr.clone();
        match &mut local {
            DatagramAddr::Udp(addr) if addr.port() == 0 => {
                let ip = addr.ip();
                let free = (FREE_PORT..=u16::MAX)
                    .map(|port| SocketAddr::new(ip, port))
                    .find(|addr| !taken(&DatagramAddr::Udp(*addr)));
                *addr = free.ok_or_else(|| errno(libc::EADDRINUSE))?;
            }
            DatagramAddr::Abstract(name) if name.is_empty() => {
                *name = format!("{group:05x}").into_bytes();
            }
            addr if taken(addr) => return Err(errno(libc::EADDRINUSE)),
            _ => {}
        }
        // A dead one's leftover is replaced.
        for dead in self.bound.iter_mut().filter(|bound| bound.local == local) {
            dead.has_file = false;
        }
        if let Some(program) = self.program(process) {
            program.open += 1;
        }
        let number = self.place_bound(Bound {
            connected: how.connect.clone(),
            shared: how.shared,
            has_file: matches!(local, DatagramAddr::Unix(_)),
            ..Bound::new(local.clone(), process, group)
        });
        Ok((number, local))
    }

    /// One whose peers are somebody's hands.
    pub(super) fn bind_by_hand(&mut self, local: DatagramAddr) -> Number {
        self.serial += 1;
        self.place_bound(Bound {
            by_hand: Some(Vec::new()),
            ..Bound::new(local, Process::NONE, self.serial)
        })
    }

    fn place_bound(&mut self, bound: Bound) -> Number {
        // Places are not used again: a run has few of them, and what is under way to one that has
        // gone must not come to the next.
        self.bound.push(bound);
        Number::datagram(self.bound.len() - 1)
    }

    pub(super) fn close_datagram(&mut self, place: usize) {
        let bound = &mut self.bound[place];
        bound.is_open = false;
        bound.watched = Watched::default();
        bound.arrived = VecDeque::new();
        let process = bound.process;
        if let Some(program) = self.program(process) {
            program.open -= 1;
        }
    }

    pub(super) fn remove_datagram_file(&mut self, place: usize) {
        self.bound[place].has_file = false;
    }

    pub(super) fn datagram_files(&self) -> impl Iterator<Item = String> + '_ {
        let there = self.bound.iter().filter(|bound| bound.has_file);
        there.map(|bound| bound.local.to_string())
    }

    fn set_datagram_option(&mut self, number: Number, option: &DatagramOption) -> io::Result<()> {
        let note = format!("{option}");
        let bound = self.bound(number)?;
        if bound.local.udp().is_none() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a Unix socket has none of these options",
            ));
        }
        match option {
            DatagramOption::Join(group, _) | DatagramOption::Leave(group, _)
                if !group.is_multicast() =>
            {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{option}: not a multicast address"),
                ));
            }
            DatagramOption::Join(group, _) if bound.groups.contains(group) => {
                return Err(errno(libc::EADDRINUSE));
            }
            DatagramOption::Join(group, _) => bound.groups.push(*group),
            DatagramOption::Leave(group, _) => {
                let before = bound.groups.len();
                bound.groups.retain(|joined| joined != group);
                if bound.groups.len() == before {
                    return Err(errno(libc::EADDRNOTAVAIL));
                }
            }
            DatagramOption::Broadcast(on) => bound.broadcasts = *on,
            _ => {}
        }
        self.note_of(number, || note);
        Ok(())
    }

    /// Nothing here has options: it is only looked whether such a socket would.
    pub(super) fn check_datagram_option(
        &self,
        place: usize,
        option: &SocketOption,
    ) -> io::Result<()> {
        option.check_datagrams(&endpoint_of(&self.bound[place].local))
    }

    pub(super) fn datagram_endpoint(&self, place: usize) -> Endpoint {
        endpoint_of(&self.bound[place].local)
    }

    // ---- what a socket does ---------------------------------------------------------------------

    fn receive_datagram(
        &mut self,
        number: Number,
        place: &mut [u8],
    ) -> io::Result<(usize, DatagramAddr, Option<IpAddr>)> {
        let by_hand = self.bound(number)?.by_hand.is_some();
        if !by_hand && self.happens(Fault::Interrupt) {
            return Err(errno(libc::EINTR));
        }
        let bound = self.bound(number)?;
        if let Some(error) = bound.errors.pop_front() {
            return Err(errno(error));
        }
        let Some(parcel) = bound.arrived.pop_front() else {
            return Err(errno(libc::EAGAIN));
        };
        bound.held -= parcel.bytes.len() + OVERHEAD;
        let is_any = bound.local.ip().is_some_and(|ip| ip.is_unspecified());
        let local = bound.local.clone();
        let len = parcel.bytes.len().min(place.len());
        place[..len].copy_from_slice(&parcel.bytes[..len]);
        self.note_of(number, || format!("receives {}", parcel.show()));
        self.tell_senders(&local);
        let to = parcel.to.ip().filter(|ip| is_any && !ip.is_multicast());
        Ok((parcel.bytes.len(), parcel.from, to))
    }

    /// Who is connected to a Unix socket may send again.
    fn tell_senders(&mut self, local: &DatagramAddr) {
        if local.udp().is_some() {
            return;
        }
        let waits: Vec<usize> = (0..self.bound.len())
            .filter(|place| {
                let bound = &self.bound[*place];
                bound.is_open && bound.connected.as_ref() == Some(local)
            })
            .collect();
        waits
            .into_iter()
            .for_each(|place| self.touch_datagram(place));
    }

    fn send_datagram(&mut self, number: Number, datagram: &Outgoing<'_>) -> io::Result<()> {
        let now = self.nanos();
        let bound = self.bound(number)?;
        let to = match (datagram.to, &bound.connected) {
            (Some(to), _) => to.clone(),
            (None, Some(to)) => to.clone(),
            (None, None) => return Err(errno(libc::EDESTADDRREQ)),
        };
        // As for a system call, which is told the address in its own form.
        to.sock_addr(bound.local.family())?;
        let by_hand = bound.by_hand.is_some();
        let local = bound.local.clone();
        let parcel = Parcel {
            from: from_of(&local, &to, datagram.from.map(|from| from.ip)),
            to,
            bytes: datagram.bytes.to_vec(),
        };
        if let Some(sent) = &mut bound.by_hand {
            sent.push(parcel);
            return Ok(());
        }
        if bound.full_until.is_some_and(|until| until > now) {
            return Err(errno(libc::EAGAIN));
        }
        bound.full_until = None;
        if bound.connected.is_some()
            && local.udp().is_some()
            && let Some(error) = bound.errors.pop_front()
        {
            return Err(errno(error));
        }
        if local.udp().is_some() && parcel.bytes.len() > LONGEST {
            return Err(errno(libc::EMSGSIZE));
        }
        let is_broadcast = parcel.to.ip() == Some(Ipv4Addr::BROADCAST.into());
        if is_broadcast && !bound.broadcasts {
            return Err(errno(libc::EACCES));
        }
        if !by_hand {
            self.hinder(number)?;
        }
        self.note_of(number, || format!("sends {}", parcel.show()));
        match parcel.to {
            DatagramAddr::Udp(_) => {
                self.dispatch_datagram(number, parcel);
                Ok(())
            }
            _ => self.hand_over(parcel),
        }
    }

    /// What a kernel may have against a send.
    fn hinder(&mut self, number: Number) -> io::Result<()> {
        if self.happens(Fault::Interrupt) {
            return Err(errno(libc::EINTR));
        }
        if self.happens(Fault::NoMemory) {
            return Err(errno(libc::ENOBUFS));
        }
        let was_full = std::mem::take(&mut self.bound(number)?.was_full);
        if !was_full && self.happens(Fault::SmallBuffers) {
            let until = self.nanos() + nanos(self.random.duration(Duration::from_millis(20)));
            let bound = self.bound(number)?;
            bound.full_until = Some(until);
            bound.was_full = true;
            if let Place::Datagram(place) = number.place() {
                self.put_datagram(until, Happening::Room(place));
            }
            return Err(errno(libc::EAGAIN));
        }
        Ok(())
    }

    /// Puts a datagram of UDP under way.
    fn dispatch_datagram(&mut self, from: Number, parcel: Parcel) {
        if self.happens(Fault::LoseDatagram) {
            return self.note_of(from, || "... which is lost".to_owned());
        }
        let copies = if self.happens(Fault::DuplicateDatagram) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let mut delay = 0;
            if self.happens(Fault::Delay) {
                delay = nanos(self.random.duration(Duration::from_millis(50)));
            }
            // Behind what was sent before it, unless it is overtaken.
            let Place::Datagram(place) = from.place() else {
                return;
            };
            let mut arrives = self.nanos() + delay;
            if self.happens(Fault::ReorderDatagrams) {
                arrives += nanos(self.random.duration(Duration::from_millis(100)));
            } else {
                arrives = arrives.max(self.bound[place].last_at);
                self.bound[place].last_at = arrives;
            }
            let what = Happening::Datagram {
                from,
                parcel: Box::new(parcel.clone()),
            };
            if arrives <= self.nanos() {
                self.happen_datagram(what);
            } else {
                self.put_datagram(arrives, what);
            }
        }
    }

    /// What concerns datagrams happens.
    pub(super) fn happen_datagram(&mut self, what: Happening) {
        match what {
            Happening::Datagram { from, parcel } => self.arrive_datagram(from, *parcel),
            Happening::Room(place) => self.touch_datagram(place),
            _ => {}
        }
    }

    fn arrive_datagram(&mut self, sender: Number, parcel: Parcel) {
        let (Some(to), Some(from)) = (parcel.to.udp(), parcel.from.udp()) else {
            return;
        };
        let hears = |bound: &Bound| {
            bound.is_open
                && bound.by_hand.is_none()
                && bound
                    .local
                    .udp()
                    .is_some_and(|local| reaches(local, to, &bound.groups))
                && bound
                    .connected
                    .as_ref()
                    .is_none_or(|peer| peer.udp() == Some(from))
        };
        let mut found: Vec<usize> = (0..self.bound.len())
            .filter(|place| hears(&self.bound[*place]))
            .collect();
        let is_for_all = to.ip().is_multicast() || to.ip() == Ipv4Addr::BROADCAST;
        if !is_for_all && !found.is_empty() {
            // One that is connected before one that is not, one bound to the address before one
            // bound to all; of several the sender's own.
            let rank = |place: &usize| {
                let bound = &self.bound[*place];
                let is_any = bound.local.ip().is_some_and(|ip| ip.is_unspecified());
                (bound.connected.is_some(), !is_any)
            };
            let best = found.iter().map(rank).max();
            found.retain(|place| Some(rank(place)) == best);
            found = vec![found[spread(from, to, found.len())]];
        }
        if found.is_empty() {
            return self.refuse_datagram(sender, to);
        }
        for place in found {
            let bound = &mut self.bound[place];
            let takes = parcel.bytes.len() + OVERHEAD;
            if bound.held + takes > ROOM {
                let note = format!("a datagram is lost: the buffer of {to} is full");
                self.record(|| What::Note(note));
                continue;
            }
            bound.held += takes;
            bound.arrived.push_back(parcel.clone());
            self.touch_datagram(place);
        }
    }

    /// Nobody is there: a socket that is connected is told.
    fn refuse_datagram(&mut self, sender: Number, to: SocketAddr) {
        let Place::Datagram(place) = sender.place() else {
            return;
        };
        let bound = &mut self.bound[place];
        let is_told = bound.is_open
            && bound.errors.is_empty()
            && bound
                .connected
                .as_ref()
                .is_some_and(|peer| peer.udp() == Some(to));
        if is_told {
            bound.errors.push_back(libc::ECONNREFUSED);
            self.touch_datagram(place);
        }
    }

    /// Puts a datagram of a Unix socket where it is to go.
    fn hand_over(&mut self, parcel: Parcel) -> io::Result<()> {
        let is_there = |bound: &Bound| {
            let has_name = bound.has_file || matches!(bound.local, DatagramAddr::Abstract(_));
            bound.is_open && has_name && bound.local == parcel.to
        };
        let Some(place) = self.bound.iter().position(is_there) else {
            let leftover = self
                .bound
                .iter()
                .any(|bound| bound.has_file && bound.local == parcel.to);
            return Err(errno(if leftover {
                libc::ECONNREFUSED
            } else {
                libc::ENOENT
            }));
        };
        let bound = &mut self.bound[place];
        if bound.arrived.len() >= UNIX_MAX {
            return Err(errno(libc::EAGAIN));
        }
        bound.held += parcel.bytes.len() + OVERHEAD;
        bound.arrived.push_back(parcel);
        self.touch_datagram(place);
        Ok(())
    }

    // ---- what a socket can see ------------------------------------------------------------------

    pub(super) fn datagram_readiness(&self, place: usize) -> Interest {
        let bound = &self.bound[place];
        let mut ready = Interest::NONE;
        if !bound.arrived.is_empty() || !bound.errors.is_empty() {
            ready = ready | Interest::READ;
        }
        let is_full = bound.full_until.is_some_and(|until| until > self.nanos())
            || bound.connected.as_ref().is_some_and(|to| {
                let peer = self
                    .bound
                    .iter()
                    .find(|peer| peer.is_open && peer.local == *to);
                to.udp().is_none() && peer.is_some_and(|peer| peer.arrived.len() >= UNIX_MAX)
            });
        if !is_full {
            ready = ready | Interest::WRITE;
        }
        ready
    }

    fn note_of(&mut self, number: Number, text: impl FnOnce() -> String) {
        if let Place::Datagram(place) = number.place() {
            let local = self.bound[place].local.clone();
            self.record(|| What::Note(format!("{local} {}", text())));
        }
    }

    // ---- in somebody's hands --------------------------------------------------------------------

    pub(super) fn give_datagram(&mut self, number: Number, parcel: Parcel) {
        if let Place::Datagram(place) = number.place() {
            let bound = &mut self.bound[place];
            if bound.is_open {
                bound.held += parcel.bytes.len() + OVERHEAD;
                bound.arrived.push_back(parcel);
                self.touch_datagram(place);
            }
        }
    }

    pub(super) fn take_sent(&mut self, number: Number) -> Vec<Parcel> {
        let bound = self.bound(number).ok();
        let sent = bound.and_then(|bound| bound.by_hand.as_mut());
        sent.map(std::mem::take).unwrap_or_default()
    }
}

impl Bound {
    fn new(local: DatagramAddr, process: Process, group: u32) -> Bound {
        Bound {
            local,
            process,
            shared: false,
            group,
            connected: None,
            arrived: VecDeque::new(),
            held: 0,
            errors: VecDeque::new(),
            groups: Vec::new(),
            broadcasts: false,
            full_until: None,
            was_full: false,
            last_at: 0,
            by_hand: None,
            watched: Watched::default(),
            is_open: true,
            has_file: false,
        }
    }
}

impl Parcel {
    fn show(&self) -> String {
        let (len, bytes) = (self.bytes.len(), excerpt(&self.bytes));
        let Parcel { from, to, .. } = self;
        format!(
            "{len} bytes from {from} to {to} {:?}",
            bytes.escape_ascii().to_string()
        )
    }
}

/// The peer of a socket that was connected to `addr`: IPv4 as such, and this machine where no other
/// is named.
pub(in crate::sys) fn as_kernels_tell(addr: &DatagramAddr) -> DatagramAddr {
    let Some(udp) = addr.udp() else {
        return addr.clone();
    };
    let ip = match udp.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    DatagramAddr::Udp(SocketAddr::new(ip, udp.port()))
}

/// Where a datagram is seen to come from.
fn from_of(local: &DatagramAddr, to: &DatagramAddr, from: Option<IpAddr>) -> DatagramAddr {
    match local.udp() {
        Some(addr) if addr.ip().is_unspecified() => {
            let ip = from.unwrap_or(match to.ip() {
                Some(IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
                _ => Ipv4Addr::LOCALHOST.into(),
            });
            DatagramAddr::Udp(SocketAddr::new(ip, addr.port()))
        }
        _ => local.clone(),
    }
}

/// Whether what is sent to `to` comes to a socket that is bound to `local`.
fn reaches(local: SocketAddr, to: SocketAddr, groups: &[IpAddr]) -> bool {
    let is_any = local.ip().is_unspecified() && (local.is_ipv6() || to.is_ipv4());
    local.port() == to.port()
        && match to.ip() {
            ip if ip.is_multicast() => groups.contains(&ip) && (is_any || local.ip() == ip),
            ip => is_any || local.ip() == ip,
        }
}

/// Which of several sockets a sender's datagrams come to: always the same.
fn spread(from: SocketAddr, to: SocketAddr, count: usize) -> usize {
    let bytes = format!("{from} {to}").into_bytes();
    // FNV-1a: the same on every machine.
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 16) as usize % count
}

/// Whether one socket alone can be bound to the two.
fn collide(here: &DatagramAddr, there: &DatagramAddr) -> bool {
    match (here.udp(), there.udp()) {
        (Some(here), Some(there)) => {
            here.port() == there.port()
                && (here.ip() == there.ip()
                    || here.ip().is_unspecified()
                    || there.ip().is_unspecified())
        }
        _ => here == there && *here != DatagramAddr::Unnamed,
    }
}

fn endpoint_of(addr: &DatagramAddr) -> Endpoint {
    match addr {
        DatagramAddr::Udp(addr) => Endpoint::Tcp(*addr),
        DatagramAddr::Unix(path) => Endpoint::Unix(path.clone()),
        DatagramAddr::Abstract(_) | DatagramAddr::Unnamed => Endpoint::Unix(Default::default()),
    }
}
