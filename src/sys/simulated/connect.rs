//! Listening, connecting and accepting.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::faults::Fault;
use super::network::{
    CLIENT, Connection, Fate, Happening, Network, Number, Place, Process, ROOM, SERVER, errno,
    nanos, simulate,
};
use super::selector::Watched;
use super::trace::{OfConnection, What};
use crate::sys::{BindOptions, Endpoint, LookupError, Peer, Role, Turn};

/// How often a connect is made that is lost on its way, or finds the backlog full.
const TRIES: u32 = 6;

/// From one to the next.
const AGAIN: Duration = Duration::from_secs(1);

/// The first port that is given to who asks for any.
const FREE_PORT: u16 = 40_000;

/// Peers of one address, told apart by their ports from [`PEER_PORT`] on.
const PEERS_PER_ADDRESS: u32 = 28_000;
const PEER_PORT: u16 = 32_768;

pub(super) struct Listener {
    pub(super) endpoint: Endpoint,
    process: Process,
    group: Option<Turn>,
    backlog_max: usize,
    /// Places of connections.
    pub(super) backlog: VecDeque<u32>,
    pub(super) watched: Watched,
    is_open: bool,
    /// The path of a Unix socket is there, and leads to it.
    has_file: bool,
}

/// As a [`ListenSocket`](crate::sys::ListenSocket) uses it.
impl Number {
    pub(in crate::sys) fn listen(
        endpoint: &Endpoint,
        options: &BindOptions,
        process: Process,
    ) -> io::Result<Number> {
        simulate(|network| network.listen(endpoint, options, process))?
    }

    /// Removes the file of a Unix socket.
    pub(in crate::sys) fn remove_file(self) {
        let _ = simulate(|network| match self.place() {
            Place::Listener(place) => network.listeners[place].has_file = false,
            Place::Datagram(place) => network.remove_datagram_file(place),
            Place::End { .. } => {}
        });
    }

    pub(in crate::sys) fn accept(self) -> io::Result<(Number, Peer)> {
        simulate(|network| network.accept(self))?
    }

    /// As [`Socket::connected`](crate::sys::Socket::connected).
    pub(in crate::sys) fn connected(self) -> io::Result<Option<Peer>> {
        simulate(|network| network.connected(self))?
    }
}

impl Network {
    fn listen(
        &mut self,
        endpoint: &Endpoint,
        options: &BindOptions,
        process: Process,
    ) -> io::Result<Number> {
        if !self.is_simulated() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this system is simulated, and its simulation is over, or another thread's",
            ));
        }
        options.socket.check(endpoint, Role::Listener)?;
        let taken = |endpoint: &Endpoint| {
            self.listeners.iter().any(|listener| {
                let shared = listener.group.is_some()
                    && options.group == Some(Turn::Further)
                    && listener.process == process;
                listener.is_open && collide(&listener.endpoint, endpoint) && !shared
            })
        };
        let mut endpoint = endpoint.clone();
        if let Endpoint::Tcp(addr) = endpoint
            && addr.port() == 0
        {
            let free = (FREE_PORT..=u16::MAX)
                .map(|port| Endpoint::Tcp(SocketAddr::new(addr.ip(), port)))
                .find(|endpoint| !taken(endpoint));
            endpoint = free.ok_or_else(|| errno(libc::EADDRINUSE))?;
        } else if taken(&endpoint) {
            return Err(errno(libc::EADDRINUSE));
        }
        // A dead server's leftover is replaced.
        let before = self.listeners.iter_mut();
        for dead in before.filter(|listener| listener.endpoint == endpoint) {
            dead.has_file = false;
        }
        self.listeners.push(Listener {
            has_file: matches!(endpoint, Endpoint::Unix(_)),
            endpoint,
            process,
            group: options.group,
            backlog_max: options.backlog.max(1) as usize,
            backlog: VecDeque::new(),
            watched: Watched::default(),
            is_open: true,
        });
        Ok(Number::listener(self.listeners.len() - 1))
    }

    fn accept(&mut self, number: Number) -> io::Result<(Number, Peer)> {
        let Place::Listener(place) = number.place() else {
            return Err(errno(libc::EINVAL));
        };
        if self.happens(Fault::Interrupt) {
            return Err(errno(libc::EINTR));
        }
        let Some(&at) = self.listeners[place].backlog.front() else {
            return Err(errno(libc::EAGAIN));
        };
        let process = self.listeners[place].process;
        if self.is_out_of_descriptors(process) {
            self.record(|| What::AcceptFails("no descriptor is left"));
            return Err(errno(libc::EMFILE));
        }
        self.listeners[place].backlog.pop_front();
        let at = at as usize;
        if self.happens(Fault::Refuse) {
            self.record_of(at, || OfConnection::Fails("lost before it is accepted"));
            self.give_up(at);
            return Err(errno(libc::ECONNABORTED));
        }
        self.take_descriptor(at, SERVER, process);
        self.record_of(at, || OfConnection::Accepted);
        let peer = match self.address_of(at, CLIENT) {
            Endpoint::Tcp(addr) => Peer::Tcp(addr),
            Endpoint::Unix(_) => Peer::Unix,
        };
        Ok((Number::end(at, SERVER), peer))
    }

    /// A descriptor of the program that is no socket's; the network that it is of.
    pub(in crate::sys) fn take_spare(&mut self, process: Process) -> io::Result<u64> {
        let program = self.program(process).ok_or_else(|| errno(libc::EBADF))?;
        if program.open >= program.descriptors_max {
            return Err(errno(libc::EMFILE));
        }
        program.open += 1;
        Ok(self.id())
    }

    pub(in crate::sys) fn give_spare(&mut self, process: Process, network: u64) {
        if network == self.id()
            && let Some(program) = self.program(process)
        {
            program.open -= 1;
        }
    }

    fn is_out_of_descriptors(&mut self, process: Process) -> bool {
        let program = self.program(process);
        program.is_some_and(|program| program.open >= program.descriptors_max)
            || self.happens(Fault::Exhaust)
    }

    /// The address of an end. That of a client is no other connection's, unless it was chosen.
    pub(super) fn address_of(&self, at: usize, side: usize) -> Endpoint {
        let connection = &self.connections[at];
        let server = match &connection.to {
            Some(to) => to,
            None => &self.listeners[connection.listener as usize].endpoint,
        };
        let address = connection.serial / PEERS_PER_ADDRESS;
        let port = PEER_PORT + (connection.serial % PEERS_PER_ADDRESS) as u16;
        match (server, &connection.from) {
            _ if side == SERVER => server.clone(),
            (Endpoint::Tcp(_), Some(from)) => {
                let port = if from.port() == 0 { port } else { from.port() };
                Endpoint::Tcp((from.ip(), port).into())
            }
            (Endpoint::Tcp(SocketAddr::V4(_)), None) => {
                let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + address);
                Endpoint::Tcp((ip, port).into())
            }
            (Endpoint::Tcp(SocketAddr::V6(_)), None) => {
                let ip = Ipv6Addr::from((0xfd00 << 112) + 1 + u128::from(address));
                Endpoint::Tcp((ip, port).into())
            }
            (Endpoint::Unix(_), _) => Endpoint::Unix(PathBuf::new()),
        }
    }

    /// An end that nobody has accepted: its client is reset.
    fn give_up(&mut self, at: usize) {
        let number = Number::end(at, SERVER);
        self.abort(number);
        self.close(number);
    }

    /// The Unix sockets whose files are there.
    pub(crate) fn files(&self) -> Vec<String> {
        let there = self.listeners.iter().filter(|listener| listener.has_file);
        there
            .map(|listener| listener.endpoint.to_string())
            .chain(self.datagram_files())
            .collect()
    }

    pub(super) fn close_listener(&mut self, place: usize) {
        let listener = &mut self.listeners[place];
        listener.is_open = false;
        listener.watched = Watched::default();
        for at in std::mem::take(&mut listener.backlog) {
            self.give_up(at as usize);
        }
    }

    // ---- the client's side ----------------------------------------------------------------------

    fn place(&mut self) -> usize {
        let at = match self.free.pop() {
            Some(at) => at as usize,
            None => {
                self.connections.push(Connection::default());
                self.connections.len() - 1
            }
        };
        self.serial += 1;
        self.connections[at].serial = self.serial;
        at
    }

    /// A connection whose client end is in somebody's hands: both ends are there at once, nothing
    /// goes wrong on the way, and there is room for whatever is sent.
    pub(super) fn pair(&mut self) -> [Number; 2] {
        let at = self.place();
        let connection = &mut self.connections[at];
        connection.is_calm = true;
        connection.answered = Some(Ok(()));
        for side in [CLIENT, SERVER] {
            connection.ends[side].is_held = true;
            connection.pipes[side].room = usize::MAX;
        }
        [CLIENT, SERVER].map(|side| Number::end(at, side))
    }

    /// Begins to connect as a program does, unless it has no descriptor left.
    pub(in crate::sys) fn begin_connect(
        &mut self,
        to: &Endpoint,
        local: Option<SocketAddr>,
        process: Process,
    ) -> io::Result<Number> {
        if self.is_out_of_descriptors(process) {
            self.record(|| What::Note(format!("no descriptor is left to connect to {to}")));
            return Err(errno(libc::EMFILE));
        }
        let number = self.connect(to, process);
        let (at, _) = number.as_end();
        self.connections[at].from = local.map(Box::new);
        Ok(number)
    }

    /// What has come of the connect that this is the client's end of.
    fn connected(&self, number: Number) -> io::Result<Option<Peer>> {
        let (at, side) = number.as_end();
        let connection = &self.connections[at];
        match connection.answered {
            // It was reset after the answer, or before: on its side a kernel knows no difference.
            _ if connection.ends[side].is_reset => Err(errno(libc::ECONNRESET)),
            None => Ok(None),
            Some(Err(why)) => Err(why.into()),
            Some(Ok(())) => Ok(Some(match self.address_of(at, SERVER) {
                Endpoint::Tcp(addr) => Peer::Tcp(addr),
                Endpoint::Unix(_) => Peer::Unix,
            })),
        }
    }

    /// Begins to connect, and returns the client's end.
    pub(super) fn connect(&mut self, to: &Endpoint, process: Process) -> Number {
        let at = self.place();
        for side in [CLIENT, SERVER] {
            let is_small = self.happens(Fault::SmallBuffers);
            let pipe = &mut self.connections[at].pipes[side];
            pipe.is_small = is_small;
            pipe.room = if is_small {
                1 + self.random.below(100) as usize
            } else {
                ROOM
            };
        }
        if self.happens(Fault::Delay) {
            let delay = self.random.duration(Duration::from_millis(50));
            let delay_us = delay.as_micros() as u32;
            self.connections[at].delay_us = delay_us;
            // A few bytes for each way there and back would take minutes for what nobody calls
            // slow: whatever the way is, some KiB a second get through.
            let pipes = &mut self.connections[at].pipes;
            for pipe in pipes.iter_mut().filter(|pipe| pipe.is_small) {
                pipe.room += delay_us as usize / 100;
            }
        }
        for (fault, fate) in [(Fault::Reset, Fate::Reset), (Fault::Die, Fate::Dies)] {
            if self.happens(fault) {
                self.doom(at, fate);
            }
        }
        self.connections[at].ends[CLIENT].is_held = true;
        self.take_descriptor(at, CLIENT, process);
        self.record_of(at, || OfConnection::Connects(to.to_string()));
        let arrives = self.nanos() + self.delay(at);
        let to = Box::new(to.clone());
        self.put(at, arrives, Happening::Connect { tries: 1, to });
        Number::end(at, CLIENT)
    }

    /// The client's end is one of this address.
    pub(crate) fn set_source(&mut self, client: Number, from: IpAddr) {
        let (at, _) = client.as_end();
        self.connections[at].from = Some(Box::new((from, 0).into()));
    }

    pub(super) fn arrive_connect(&mut self, at: usize, tries: u32, to: Box<Endpoint>) {
        if self.connections[at].ends[CLIENT].is_reset {
            // Its kernel has forgotten it: nobody completes the handshake.
            return self.answer(at, Some(io::ErrorKind::ConnectionReset));
        }
        let found = self.listener_at(&to);
        let is_full = found.is_some_and(|place| {
            let listener = &self.listeners[place];
            listener.backlog.len() >= listener.backlog_max
        });
        // Not the last: all that a client is to notice of it is the time.
        let is_lost = tries < TRIES && self.happens(Fault::LostConnect);
        if is_full || is_lost {
            if tries == TRIES {
                return self.answer(at, Some(io::ErrorKind::TimedOut));
            }
            let arrives = self.nanos() + nanos(AGAIN);
            let tries = tries + 1;
            return self.put(at, arrives, Happening::Connect { tries, to });
        }
        let Some(place) = found else {
            return self.answer(at, Some(io::ErrorKind::ConnectionRefused));
        };
        if self.happens(Fault::Refuse) {
            return self.answer(at, Some(io::ErrorKind::ConnectionRefused));
        }
        let connection = &mut self.connections[at];
        connection.listener = place as u32;
        connection.to = (*to != self.listeners[place].endpoint).then_some(to);
        connection.ends[SERVER].is_held = true;
        self.listeners[place].backlog.push_back(at as u32);
        self.touch_listener(place);
        self.answer(at, None);
    }

    fn answer(&mut self, at: usize, refused: Option<io::ErrorKind>) {
        let arrives = self.nanos() + self.delay(at);
        // What the server sends comes after its answer.
        let pipe = &mut self.connections[at].pipes[SERVER];
        pipe.last_at = pipe.last_at.max(arrives);
        self.put(at, arrives, Happening::Answer { refused });
    }

    pub(super) fn arrive_answer(&mut self, at: usize, refused: Option<io::ErrorKind>) {
        match refused {
            None => self.record_of(at, || OfConnection::Connected),
            Some(io::ErrorKind::TimedOut) => {
                self.record_of(at, || OfConnection::Refused("timed out"));
            }
            Some(io::ErrorKind::ConnectionReset) => {
                self.record_of(at, || OfConnection::Refused("reset"));
            }
            Some(_) => self.record_of(at, || OfConnection::Refused("refused")),
        }
        self.connections[at].answered = Some(refused.map_or(Ok(()), Err));
        self.touch(at, CLIENT);
        let early = std::mem::take(&mut self.connections[at].early);
        if refused.is_none() {
            for what in early {
                self.dispatch(at, CLIENT, what);
            }
        }
    }

    /// From here on a name leads to these addresses.
    pub(crate) fn set_name(&mut self, host: &str, addrs: Vec<IpAddr>) {
        self.names.insert(host.to_ascii_lowercase(), addrs);
    }

    pub(in crate::sys) fn look_up(&mut self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        if self.happens(Fault::Lookup) {
            self.record(|| What::Note(format!("{host} cannot be looked up now")));
            let error = io::Error::other("no name server answers");
            let is_unknown = false;
            return Err(LookupError { is_unknown, error });
        }
        match self.names.get(&host.to_ascii_lowercase()) {
            Some(addrs) if !addrs.is_empty() => Ok(addrs.clone()),
            _ => Err(LookupError {
                is_unknown: true,
                error: io::Error::new(io::ErrorKind::NotFound, "the simulation has no such name"),
            }),
        }
    }

    /// Who listens there; of several that share an address any.
    fn listener_at(&mut self, to: &Endpoint) -> Option<usize> {
        let listens = |listener: &Listener| {
            let is_found = listener.has_file || matches!(listener.endpoint, Endpoint::Tcp(_));
            listener.is_open && is_found && collide(&listener.endpoint, to)
        };
        let found: Vec<usize> = (0..self.listeners.len())
            .filter(|place| listens(&self.listeners[*place]))
            .collect();
        match found.as_slice() {
            [] => None,
            [only] => Some(*only),
            several => Some(*self.random.pick(several)),
        }
    }
}

/// Whether one socket alone can be bound to the two.
fn collide(here: &Endpoint, there: &Endpoint) -> bool {
    match (here, there) {
        (Endpoint::Tcp(here), Endpoint::Tcp(there)) => {
            here.port() == there.port()
                && (here.ip() == there.ip()
                    || here.ip().is_unspecified()
                    || there.ip().is_unspecified())
        }
        _ => here == there,
    }
}
