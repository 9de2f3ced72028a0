//! What the tests have in common: a server whose connections a test steers from outside, clients,
//! and waiting for events.
//!
//! Shared by all files of `tests/`. Whoever needs more may add a small item at the end; change
//! nothing that others use.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::fmt;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use greenroom::*;

#[path = "temp_dir.rs"]
mod temp_dir;
#[allow(unused_imports, reason = "as all of this")]
pub use temp_dir::TempDir;

/// After this a test that still waits has failed. Long, because it is only ever waited for by a
/// test that fails.
pub const TIMEOUT: Duration = Duration::from_secs(30);

// ---- waiting ------------------------------------------------------------------------------------

/// Waits for a condition that nobody reports: looks at it until it holds, or fails after
/// [`TIMEOUT`].
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// The next item of a channel, within [`TIMEOUT`].
#[track_caller]
pub fn next<T>(from: &Receiver<T>) -> T {
    from.recv_timeout(TIMEOUT).expect("an event was to come")
}

// ---- a server whose connections are steered from outside ----------------------------------------

/// What happened to a [`Probe`].
#[derive(Debug)]
pub enum Event {
    Opened(Addr<Probe>),
    /// The bytes that were shown, whatever was consumed of them, and whether they were the last.
    Readable(Vec<u8>, bool),
    ReadClosed,
    Timer(TimerKey),
    Drained,
    Written(u64),
    Room,
    Stopping,
    Closed(CloseReason),
    Dropped,
}

/// What a [`Probe`] does in a callback, sent to it as a message.
pub type Job = Box<dyn FnOnce(&mut Context<'_, Probe>) -> Outcome + Send>;

type OnInput = Box<dyn FnMut(&mut Input<'_>, &mut Context<'_, Probe>) -> Outcome>;
type On = Box<dyn FnMut(&mut Context<'_, Probe>) -> Outcome>;
type OnWritten = Box<dyn FnMut(u64, &mut Context<'_, Probe>) -> Outcome>;
type OnTimer = Box<dyn FnMut(TimerKey, &mut Context<'_, Probe>) -> Outcome>;
type OnClosed = Box<dyn FnMut(&CloseReason, &mut Context<'_, Probe>)>;

/// An actor that reports all that happens to it and does what it is sent. What it does in the
/// callbacks is set one by one; by default it consumes all input, and otherwise does what [`Actor`]
/// does.
pub struct Probe {
    events: Sender<Event>,
    on_opened: Option<On>,
    on_readable: Option<OnInput>,
    on_read_closed: Option<On>,
    on_timer: Option<OnTimer>,
    on_drained: Option<On>,
    on_written: Option<OnWritten>,
    on_room: Option<On>,
    on_stopping: Option<On>,
    on_closed: Option<OnClosed>,
    on_drop: Option<Box<dyn FnMut()>>,
}

impl Probe {
    pub fn new(events: Sender<Event>) -> Probe {
        Probe {
            events,
            on_opened: None,
            on_readable: None,
            on_read_closed: None,
            on_timer: None,
            on_drained: None,
            on_written: None,
            on_room: None,
            on_stopping: None,
            on_closed: None,
            on_drop: None,
        }
    }

    pub fn on_opened(
        mut self,
        f: impl FnMut(&mut Context<'_, Probe>) -> Outcome + 'static,
    ) -> Probe {
        self.on_opened = Some(Box::new(f));
        self
    }

    pub fn on_readable(
        mut self,
        f: impl FnMut(&mut Input<'_>, &mut Context<'_, Probe>) -> Outcome + 'static,
    ) -> Probe {
        self.on_readable = Some(Box::new(f));
        self
    }

    pub fn on_read_closed(
        mut self,
        f: impl FnMut(&mut Context<'_, Probe>) -> Outcome + 'static,
    ) -> Probe {
        self.on_read_closed = Some(Box::new(f));
        self
    }

    pub fn on_timer(
        mut self,
        f: impl FnMut(TimerKey, &mut Context<'_, Probe>) -> Outcome + 'static,
    ) -> Probe {
        self.on_timer = Some(Box::new(f));
        self
    }

    pub fn on_drained(
        mut self,
        f: impl FnMut(&mut Context<'_, Probe>) -> Outcome + 'static,
    ) -> Probe {
        self.on_drained = Some(Box::new(f));
        self
    }

    pub fn on_written(
        mut self,
        f: impl FnMut(u64, &mut Context<'_, Probe>) -> Outcome + 'static,
    ) -> Probe {
        self.on_written = Some(Box::new(f));
        self
    }

    pub fn on_room(mut self, f: impl FnMut(&mut Context<'_, Probe>) -> Outcome + 'static) -> Probe {
        self.on_room = Some(Box::new(f));
        self
    }

    pub fn on_stopping(
        mut self,
        f: impl FnMut(&mut Context<'_, Probe>) -> Outcome + 'static,
    ) -> Probe {
        self.on_stopping = Some(Box::new(f));
        self
    }

    pub fn on_closed(
        mut self,
        f: impl FnMut(&CloseReason, &mut Context<'_, Probe>) + 'static,
    ) -> Probe {
        self.on_closed = Some(Box::new(f));
        self
    }

    pub fn on_drop(mut self, f: impl FnMut() + 'static) -> Probe {
        self.on_drop = Some(Box::new(f));
        self
    }

    fn note(&self, event: Event) {
        // A test that has seen enough drops its end.
        let _ = self.events.send(event);
    }
}

impl Actor for Probe {
    type Message = Job;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.note(Event::Opened(ctx.addr()));
        self.on_opened.as_mut().map_or(Ok(()), |f| f(ctx))
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.note(Event::Readable(input.bytes().to_vec(), input.at_end()));
        match &mut self.on_readable {
            Some(f) => f(input, ctx),
            None => {
                input.take_all();
                Ok(())
            }
        }
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.note(Event::ReadClosed);
        match &mut self.on_read_closed {
            Some(f) => f(ctx),
            None => {
                ctx.close();
                Ok(())
            }
        }
    }

    fn message(&mut self, job: Job, ctx: &mut Context<'_, Self>) -> Outcome {
        job(ctx)
    }

    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.note(Event::Timer(key));
        self.on_timer.as_mut().map_or(Ok(()), |f| f(key, ctx))
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.note(Event::Drained);
        self.on_drained.as_mut().map_or(Ok(()), |f| f(ctx))
    }

    fn written(&mut self, token: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        self.note(Event::Written(token));
        self.on_written.as_mut().map_or(Ok(()), |f| f(token, ctx))
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.note(Event::Room);
        self.on_room.as_mut().map_or(Ok(()), |f| f(ctx))
    }

    fn stopping(&mut self, _deadline: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        self.note(Event::Stopping);
        match &mut self.on_stopping {
            Some(f) => f(ctx),
            None => {
                if ctx.has_socket() {
                    ctx.close();
                }
                Ok(())
            }
        }
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        self.note(Event::Closed(copy_of(reason)));
        if let Some(f) = &mut self.on_closed {
            f(reason, ctx);
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.note(Event::Dropped);
        if let Some(f) = &mut self.on_drop {
            f();
        }
    }
}

/// A reason is told by reference and not `Clone`, for the sake of the errors in it.
pub fn copy_of(reason: &CloseReason) -> CloseReason {
    match reason {
        CloseReason::PeerClosed => CloseReason::PeerClosed,
        CloseReason::Finished => CloseReason::Finished,
        CloseReason::Aborted => CloseReason::Aborted,
        CloseReason::Reset => CloseReason::Reset,
        CloseReason::Io(error) => CloseReason::Io(io::Error::new(error.kind(), error.to_string())),
        CloseReason::Error(error) => CloseReason::Error(error.to_string().into()),
        CloseReason::Panicked(what) => CloseReason::Panicked(what.clone()),
        CloseReason::Idle(after) => CloseReason::Idle(*after),
        CloseReason::StuckReader { queued, after } => CloseReason::StuckReader {
            queued: *queued,
            after: *after,
        },
        CloseReason::SlowReader { queued, limit } => CloseReason::SlowReader {
            queued: *queued,
            limit: *limit,
        },
        CloseReason::OutputBudget { queued, limit } => CloseReason::OutputBudget {
            queued: *queued,
            limit: *limit,
        },
        CloseReason::SlowSender { kept, after } => CloseReason::SlowSender {
            kept: *kept,
            after: *after,
        },
        CloseReason::InputTooLong { len, limit } => CloseReason::InputTooLong {
            len: *len,
            limit: *limit,
        },
        CloseReason::Stopped => CloseReason::Stopped,
        CloseReason::Detached => CloseReason::Detached,
        CloseReason::Silent(after) => CloseReason::Silent(*after),
        CloseReason::InputRate { kept, least, after } => CloseReason::InputRate {
            kept: *kept,
            least: *least,
            after: *after,
        },
        CloseReason::OutputRate {
            taken,
            least,
            after,
        } => CloseReason::OutputRate {
            taken: *taken,
            least: *least,
            after: *after,
        },
        CloseReason::NotFlushed { queued, after } => CloseReason::NotFlushed {
            queued: *queued,
            after: *after,
        },
        CloseReason::Tls(error) => CloseReason::Tls(error.clone()),
        other => panic!("a reason that this does not know: {other:?}"),
    }
}

/// One probe, as the test sees it: its address, and what happens to it.
pub struct Seen {
    pub addr: Addr<Probe>,
    pub events: Receiver<Event>,
}

impl Seen {
    /// The next event, within [`TIMEOUT`].
    #[track_caller]
    pub fn next(&self) -> Event {
        next(&self.events)
    }

    /// Passes over events until one that `wanted` takes, within [`TIMEOUT`] in all.
    #[track_caller]
    pub fn until<T>(&self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left);
            if let Some(found) = wanted(event.expect("an event of another kind was to come")) {
                return found;
            }
        }
    }

    /// Waits for the end and returns its reason.
    #[track_caller]
    pub fn closed(&self) -> CloseReason {
        self.until(|event| match event {
            Event::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    /// Waits until the actor has been dropped: all its events, in order.
    #[track_caller]
    pub fn to_the_end(&self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            match self.next() {
                Event::Dropped => return events,
                event => events.push(event),
            }
        }
    }

    /// Waits for `len` bytes shown to an actor that consumes all, and returns them.
    #[track_caller]
    pub fn read(&self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            if let Event::Readable(more, _) = self.next() {
                bytes.extend(more);
            }
        }
        bytes
    }

    /// Asks the actor to do something, and does not wait for it.
    #[track_caller]
    pub fn tell(&self, job: impl FnOnce(&mut Context<'_, Probe>) -> Outcome + Send + 'static) {
        self.addr
            .send(Box::new(job))
            .expect("the actor takes a message");
    }

    /// Runs `job` in a callback of the actor and returns what it returns. What the job asks of its
    /// context has been carried out only when the actor does the next one.
    #[track_caller]
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Context<'_, Probe>) -> T + Send + 'static,
    ) -> T {
        let (done, result) = channel();
        self.tell(move |ctx| {
            let _ = done.send(job(ctx));
            Ok(())
        });
        next(&result)
    }
}

/// A system with one listener whose connections are [`Probe`]s.
pub struct Stage {
    pub system: System,
    pub listener: Listener,
    opened: Receiver<Receiver<Event>>,
}

impl Stage {
    /// One poller, default options, plain probes.
    pub fn new() -> Stage {
        Stage::with(ConnectionOptions::new(), |probe| probe)
    }

    /// One poller; `prepare` is called for each new probe, on its poller.
    pub fn with(
        options: ConnectionOptions,
        prepare: impl Fn(Probe) -> Probe + Send + Sync + 'static,
    ) -> Stage {
        Stage::listen(
            builder(1),
            "127.0.0.1:0",
            ListenOptions::new().connection(options),
            prepare,
        )
    }

    /// With everything to choose.
    pub fn listen(
        builder: Builder,
        endpoint: &str,
        options: ListenOptions,
        prepare: impl Fn(Probe) -> Probe + Send + Sync + 'static,
    ) -> Stage {
        let system = builder.build().expect("the system starts");
        let (listener, opened) = listen(&system, endpoint, options, prepare);
        Stage {
            system,
            listener,
            opened,
        }
    }

    /// A new client.
    #[track_caller]
    pub fn client(&self) -> TcpStream {
        connect(&self.listener)
    }

    /// The probe of the next connection that was accepted and not asked for yet, once it is opened.
    #[track_caller]
    pub fn accepted(&self) -> Seen {
        seen(next(&self.opened))
    }

    /// A new client and the probe at the other end.
    #[track_caller]
    pub fn pair(&self) -> (TcpStream, Seen) {
        let client = self.client();
        (client, self.accepted())
    }

    /// Whether every actor that was opened has been closed, and no socket is left.
    pub fn is_over(&self) -> bool {
        let stats = self.system.stats();
        stats.opened == stats.closed && stats.connections == 0
    }
}

/// Lets `system` listen with probes; the channel yields the events of each connection as its actor
/// is made.
pub fn listen(
    system: &System,
    endpoint: &str,
    options: ListenOptions,
    prepare: impl Fn(Probe) -> Probe + Send + Sync + 'static,
) -> (Listener, Receiver<Receiver<Event>>) {
    let (made, opened) = channel();
    let make = move |_peer| {
        let (events, receiver) = channel();
        let _ = made.send(receiver);
        prepare(Probe::new(events))
    };
    (
        system
            .listen_with(endpoint, options, make)
            .expect("the system listens"),
        opened,
    )
}

/// A probe without a socket on the poller of this number, once it is opened.
#[track_caller]
pub fn spawn(
    system: &System,
    poller: usize,
    prepare: impl FnOnce(Probe) -> Probe + Send + 'static,
) -> Seen {
    let (events, receiver) = channel();
    system.spawn_on(poller, move || prepare(Probe::new(events)));
    seen(receiver)
}

#[track_caller]
fn seen(events: Receiver<Event>) -> Seen {
    match next(&events) {
        Event::Opened(addr) => Seen { addr, events },
        other => panic!("`opened` comes first, not {other:?}"),
    }
}

/// A builder of a system with this many pollers, named unlike those of any other system of this
/// process, so that a test finds its own threads.
pub fn builder(pollers: usize) -> Builder {
    static SYSTEMS: AtomicUsize = AtomicUsize::new(0);
    System::builder()
        .pollers(pollers)
        .name(format!("sys{}", SYSTEMS.fetch_add(1, Ordering::Relaxed)))
}

/// Returns when all that was sent to a poller before has been delivered, and carried out.
pub fn settle(system: &System) {
    for poller in 0..system.handle().pollers() {
        let probe = spawn(system, poller, |probe| probe);
        // A timer fires in a later turn than the one it was set in, when every mailbox of that one
        // has been looked at; messages alone may go to and fro within one turn. Twice: what the
        // first turn made is carried out before the second.
        for _ in 0..2 {
            probe.run(|ctx| ctx.set_timer(Duration::ZERO));
            probe.until(|event| matches!(event, Event::Timer(_)).then_some(()));
        }
        probe.addr.close();
        probe.to_the_end();
    }
}

// ---- clients ------------------------------------------------------------------------------------

/// Where a TCP listener listens.
#[track_caller]
pub fn tcp_addr(listener: &Listener) -> SocketAddr {
    match listener.local_addr() {
        Endpoint::Tcp(addr) => *addr,
        other => panic!("{other} is not a TCP address"),
    }
}

/// A client that fails rather than waits for ever.
#[track_caller]
pub fn connect(listener: &Listener) -> TcpStream {
    patient(TcpStream::connect(tcp_addr(listener)).expect("the listener accepts"))
}

/// A client whose kernel takes about `bytes` that it has not read, and sends as little at a time.
#[track_caller]
pub fn connect_small(listener: &Listener, bytes: i32) -> TcpStream {
    let socket = socket();
    set_buffer(&socket, libc::SO_RCVBUF, bytes);
    set_buffer(&socket, libc::SO_SNDBUF, bytes);
    connect_socket(socket, tcp_addr(listener))
}

/// An IPv4 socket that is not connected yet: std makes only ones that are.
pub fn socket() -> OwnedFd {
    socket_of(libc::AF_INET, libc::SOCK_STREAM)
}

/// A socket of any kind.
pub fn socket_of(family: libc::c_int, kind: libc::c_int) -> OwnedFd {
    // SAFETY: a plain system call; what it returns is owned by nobody else.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "socket: {}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

/// An IPv4 address as the kernel wants it.
#[track_caller]
fn sockaddr(addr: SocketAddr) -> (libc::sockaddr_in, libc::socklen_t) {
    let SocketAddr::V4(addr) = addr else {
        panic!("an IPv4 address is wanted")
    };
    let addr = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: addr.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(addr.ip().octets()),
        },
        sin_zero: [0; 8],
    };
    (addr, size_of::<libc::sockaddr_in>() as libc::socklen_t)
}

/// Gives such a socket an address of ours; without SO_REUSEADDR, which std sets.
#[track_caller]
pub fn bind_socket(socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    let (addr, len) = sockaddr(to);
    // SAFETY: `addr` is an IPv4 address of that length and outlives the call.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Connects such a socket.
#[track_caller]
pub fn connect_socket(socket: OwnedFd, to: SocketAddr) -> TcpStream {
    let (addr, len) = sockaddr(to);
    // SAFETY: `addr` is an IPv4 address of that length and outlives the call.
    let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const addr).cast(), len) };
    assert_eq!(result, 0, "connect: {}", io::Error::last_os_error());
    patient(socket.into())
}

/// Sets SO_RCVBUF or SO_SNDBUF.
pub fn set_buffer(socket: &impl AsRawFd, option: libc::c_int, bytes: i32) {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value is valid for its length and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const bytes).cast(),
            len,
        )
    };
    assert_eq!(result, 0, "setsockopt: {}", io::Error::last_os_error());
}

/// Closes a client so that the server sees a reset.
pub fn reset(client: TcpStream) {
    let now = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let len = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the value is valid for its length and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            client.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const now).cast(),
            len,
        )
    };
    assert_eq!(result, 0, "setsockopt: {}", io::Error::last_os_error());
}

fn patient(client: TcpStream) -> TcpStream {
    client
        .set_read_timeout(Some(TIMEOUT))
        .expect("a timeout can be set");
    client
        .set_write_timeout(Some(TIMEOUT))
        .expect("a timeout can be set");
    client.set_nodelay(true).expect("nodelay can be set");
    client
}

/// Reads exactly `len` bytes.
#[track_caller]
pub fn read(mut client: impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    client.read_exact(&mut bytes).expect("so many bytes come");
    bytes
}

/// Reads to the end of the stream.
#[track_caller]
pub fn read_to_end(mut client: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    client
        .read_to_end(&mut bytes)
        .expect("the stream ends in order");
    bytes
}

/// How many segments with data a client has received so far (TCP_INFO).
pub fn segments_received(client: &TcpStream) -> u32 {
    // `tcpi_data_segs_in`, which libc's struct does not reach to.
    const AT: usize = 152;
    let mut info = [0_u8; 256];
    let mut len = info.len() as libc::socklen_t;
    // SAFETY: the buffer is writable for its length, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            client.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    assert_eq!(result, 0, "getsockopt: {}", io::Error::last_os_error());
    assert!(len as usize >= AT + 4, "the kernel is too old to tell");
    u32::from_ne_bytes(info[AT..AT + 4].try_into().expect("four bytes"))
}

/// Half-closes a client.
#[track_caller]
pub fn half_close(client: &TcpStream) {
    client
        .shutdown(Shutdown::Write)
        .expect("the client can half-close");
}

/// Bytes that tell where they belong: no two places within some thousand look alike.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// `assert_eq!` for long contents, which does not print them.
#[track_caller]
pub fn assert_same(left: &[u8], right: &[u8]) {
    let differ = left
        .iter()
        .zip(right)
        .position(|(left, right)| left != right);
    assert!(
        left == right,
        "{} and {} bytes; they differ first at {differ:?}",
        left.len(),
        right.len()
    );
}

// ---- the process --------------------------------------------------------------------------------

/// Runs `test` in a process of its own, with at most `descriptors`. Call it from the test `name`
/// with nothing else around.
pub fn in_child(name: &str, descriptors: usize, test: impl FnOnce()) {
    const CHILD: &str = "GREENROOM_TEST_CHILD";
    if std::env::var_os(CHILD).is_some_and(|child| child == name) {
        return test();
    }
    let this = std::env::current_exe().expect("the test knows its program");
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -n \"$0\" && exec \"$@\"",
            &descriptors.to_string(),
        ])
        .arg(this)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, name)
        .output()
        .expect("a child starts");
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(
        output.status.success(),
        "{}: {}\n{}\n{}",
        name,
        output.status,
        text[0],
        text[1]
    );
    assert!(
        text[0].contains("1 passed"),
        "the child ran no test of the name {name}: {}",
        text[0]
    );
}

/// How many descriptors the process has open.
pub fn descriptors() -> usize {
    // One of them is that of the directory itself.
    std::fs::read_dir("/proc/self/fd")
        .expect("/proc is there")
        .count()
        - 1
}

/// The processor time that the poller threads of `system` have taken, and how many of them there
/// are.
pub fn poller_time(name: &str) -> (Duration, usize) {
    let (mut time, mut threads) = (Duration::ZERO, 0);
    for task in std::fs::read_dir("/proc/self/task")
        .expect("/proc is there")
        .flatten()
    {
        let file = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if file("comm")
            .trim_end()
            .rsplit_once('-')
            .is_some_and(|(prefix, _)| prefix == name)
        {
            let nanos = file("schedstat")
                .split(' ')
                .next()
                .and_then(|nanos| nanos.parse().ok());
            time += Duration::from_nanos(nanos.unwrap_or(0));
            threads += 1;
        }
    }
    (time, threads)
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// A poller that stands still in a callback, until this is dropped.
pub struct Held(#[allow(dead_code, reason = "its drop is what the callback waits for")] Sender<()>);

/// Holds the poller of `probe` in a callback.
#[track_caller]
pub fn hold(probe: &Seen) -> Held {
    let (entered, is_held) = channel();
    let (release, released) = channel::<()>();
    probe.tell(move |_| {
        let _ = entered.send(());
        let _ = released.recv_timeout(TIMEOUT);
        Ok(())
    });
    next(&is_held);
    Held(release)
}

/// Sends a message, again if need be until there is room; `false` when the actor has gone.
#[track_caller]
pub fn send_patiently<A: Actor>(to: &Addr<A>, message: A::Message) -> bool {
    let (mut message, mut sent) = (Some(message), true);
    wait_until("the mailbox has room", || {
        match to.send(message.take().expect("it came back")) {
            Ok(()) => true,
            Err(error) => {
                sent = error.is_full();
                message = Some(error.into_message());
                !sent
            }
        }
    });
    sent
}

/// Fails if the pollers of the system of this name take processor time while nothing happens: while
/// a clock of another system ticks a hundred times. A poller that spins takes all of it, but for
/// what other processes take of its core.
#[track_caller]
pub fn assert_quiet(name: &str) {
    assert!(poller_time(name).1 > 0, "there is a system named {name}");
    Clock::new().assert_quiet(|| poller_time(name).0);
}

/// An actor of a system of its own that ticks every 3 ms: something to wait for while nothing
/// happens elsewhere.
pub struct Clock {
    _system: System,
    ticks: Seen,
}

impl Clock {
    pub fn new() -> Clock {
        let system = builder(1).build().expect("the clock's system starts");
        let ticks = spawn(&system, 0, |probe| {
            probe.on_opened(|ctx| {
                ctx.set_interval(Duration::from_millis(3));
                Ok(())
            })
        });
        Clock {
            _system: system,
            ticks,
        }
    }

    /// Waits for the next tick.
    pub fn tick(&self) {
        self.ticks.next();
    }

    /// Fails if what `time` tells grows by a noticeable part of the time in which the clock ticks a
    /// hundred times.
    #[track_caller]
    pub fn assert_quiet(&self, time: impl Fn() -> Duration) {
        // What has happened so far, and ten ticks in which what is under way may end.
        while self.ticks.events.try_recv().is_ok() {}
        for _ in 0..10 {
            self.ticks.next();
        }
        let (before, begun) = (time(), Instant::now());
        for _ in 0..100 {
            self.ticks.next();
        }
        let (took, of) = (time() - before, begun.elapsed());
        assert!(
            took < of / 10,
            "{took:?} were taken of {of:?} in which nothing happened"
        );
    }
}

/// The processor time of this process. Needs no descriptor.
pub fn process_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the struct is valid for the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "clock_gettime: {}", io::Error::last_os_error());
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The same descriptor with a number of 300 or more, out of the way of a lower limit.
pub fn far_away(fd: OwnedFd) -> OwnedFd {
    // SAFETY: a plain system call; what it returns is owned by nobody else.
    unsafe {
        let far = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 300);
        assert!(far >= 300, "fcntl: {}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(far)
    }
}

/// Sets the limit of descriptors of this process; those that are open stay. For a child (see
/// [`in_child`]) alone.
pub fn lower_descriptor_limit(descriptors: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the struct is valid for both calls.
    let result = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = descriptors;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    assert_eq!(result, 0, "setrlimit: {}", io::Error::last_os_error());
}

/// An error that panics when it is dropped.
#[derive(Debug)]
pub struct Grudge;

impl fmt::Display for Grudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a grudge")
    }
}

impl std::error::Error for Grudge {}

impl Drop for Grudge {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "the error panics when dropped");
    }
}

/// An actor that takes whatever comes and says nothing.
pub struct Silent;

impl Actor for Silent {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        input.take_all();
        Ok(())
    }
}

/// Connects from this address of the loopback network, 127.0.0.0/8.
#[track_caller]
pub fn connect_from(from: std::net::Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket();
    bind_socket(&socket, SocketAddr::new(from.into(), 0)).expect("an address of the loopback");
    connect_socket(socket, to)
}

/// From here on all that this process logs, for a child (see [`in_child`]) alone.
pub fn log_lines() -> std::sync::Arc<std::sync::Mutex<Vec<String>>> {
    struct Lines(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

    impl log::Log for Lines {
        fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            let line = format!("{} {}", record.level(), record.args());
            self.0.lock().expect("nobody panics with it").push(line);
        }

        fn flush(&self) {}
    }

    let lines = std::sync::Arc::default();
    let logger = Lines(std::sync::Arc::clone(&lines));
    log::set_boxed_logger(Box::new(logger)).expect("the first logger of this process");
    log::set_max_level(log::LevelFilter::Info);
    lines
}
