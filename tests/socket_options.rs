//! Options of sockets, each read back from the kernel: those of a listener on what it accepts, and
//! those that an actor sets while it runs.

mod util;

use std::io;
use std::mem::ManuallyDrop;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use greenroom::testing::{Faults, Simulation};
use greenroom::*;
use util::*;

const TCP: libc::c_int = libc::IPPROTO_TCP;
const SOCKET: libc::c_int = libc::SOL_SOCKET;

// ---- looking into the kernel --------------------------------------------------------------------

/// The value of an option, as bytes.
fn get_bytes(fd: RawFd, level: libc::c_int, name: libc::c_int) -> Vec<u8> {
    let mut value = [0_u8; 64];
    let mut len = value.len() as libc::socklen_t;
    // SAFETY: the buffer is writable for its length, and both outlive the call.
    let result =
        unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut len) };
    assert_eq!(result, 0, "getsockopt: {}", io::Error::last_os_error());
    value[..len as usize].to_vec()
}

fn get(fd: RawFd, level: libc::c_int, name: libc::c_int) -> i32 {
    let value = get_bytes(fd, level, name);
    i32::from_ne_bytes(value[..4].try_into().unwrap())
}

/// All descriptors of this process that are stream sockets over IP.
fn sockets() -> Vec<RawFd> {
    let names = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = names.filter_map(|name| name.ok()?.file_name().to_str()?.parse().ok());
    numbers.collect()
}

/// Borrowed as std has it, to be asked for its addresses.
fn as_std(fd: RawFd) -> ManuallyDrop<TcpStream> {
    // SAFETY: never dropped, so never closed; a number that is no socket any more is an error of
    // the calls.
    ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(fd) })
}

/// The server's descriptor of a connection whose client is in this process, too.
#[track_caller]
fn server_of(client: &TcpStream) -> RawFd {
    let client = client.local_addr().unwrap();
    let is_server = |fd: &RawFd| as_std(*fd).peer_addr().ok() == Some(client);
    sockets().into_iter().find(is_server).expect("it is here")
}

/// The descriptors of a listener.
fn listening_at(listener: &Listener) -> Vec<RawFd> {
    let at = tcp_addr(listener);
    let is_one = |fd: &RawFd| {
        as_std(*fd).local_addr().ok() == Some(at) && get(*fd, SOCKET, libc::SO_ACCEPTCONN) == 1
    };
    sockets().into_iter().filter(is_one).collect()
}

fn is_root() -> bool {
    // SAFETY: a plain call.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        eprintln!("skipped: this needs root");
    }
    is_root
}

fn has_ipv6() -> bool {
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has_ipv6 {
        eprintln!("skipped: no IPv6 loopback here");
    }
    has_ipv6
}

// ---- a server -----------------------------------------------------------------------------------

type Failed = (SocketOption, io::ErrorKind, String);
type Job = Box<dyn FnOnce(&mut Context<'_, Setter>) + Send>;

/// An actor that does as it is told, and reports which options failed.
struct Setter {
    opened: Sender<Addr<Setter>>,
    failed: Sender<Failed>,
}

impl Actor for Setter {
    type Message = Job;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let _ = self.opened.send(ctx.addr());
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }

    fn message(&mut self, job: Job, ctx: &mut Context<'_, Self>) -> Outcome {
        job(ctx);
        Ok(())
    }

    fn option_failed(
        &mut self,
        option: SocketOption,
        error: io::Error,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        let _ = self.failed.send((option, error.kind(), error.to_string()));
        ctx.write(b"!");
        Ok(())
    }
}

struct Server {
    system: System,
    listener: Listener,
    opened: Receiver<Addr<Setter>>,
    failed: Receiver<Failed>,
}

impl Server {
    fn new(endpoint: &str, options: SocketOptions) -> Server {
        Server::listen(builder(1).build().unwrap(), endpoint, options).unwrap()
    }

    fn listen(system: System, endpoint: &str, options: SocketOptions) -> io::Result<Server> {
        let (failing, failed) = channel();
        let (opening, opened) = channel();
        let options = ListenOptions::new().socket(options);
        let listener = system.listen_with(endpoint, options, move |_| Setter {
            opened: opening.clone(),
            failed: failing.clone(),
        })?;
        Ok(Server {
            system,
            listener,
            opened,
            failed,
        })
    }

    /// A connection: its client, and its actor, which has been opened.
    fn pair(&self) -> (TcpStream, Addr<Setter>) {
        let client = connect(&self.listener);
        (client, next(&self.opened))
    }
}

/// Has the actor set these options, and waits until that has been done.
fn set(actor: &Addr<Setter>, options: impl IntoIterator<Item = SocketOption>) {
    let options: Vec<_> = options.into_iter().collect();
    let set: Job = Box::new(|ctx| {
        options
            .into_iter()
            .for_each(|option| ctx.set_option(option))
    });
    actor.send(set).unwrap();
    let (done, is_done) = channel();
    let done: Job = Box::new(move |_| done.send(()).unwrap());
    actor.send(done).unwrap();
    next(&is_done);
}

fn sixty_ten_three() -> Keepalive {
    Keepalive::after(Duration::from_millis(59_001))
        .every(Duration::from_secs(10))
        .times(3)
}

#[track_caller]
fn assert_keepalive(fd: RawFd) {
    assert_eq!(get(fd, SOCKET, libc::SO_KEEPALIVE), 1);
    assert_eq!(get(fd, TCP, libc::TCP_KEEPIDLE), 60, "rounded up");
    assert_eq!(get(fd, TCP, libc::TCP_KEEPINTVL), 10);
    assert_eq!(get(fd, TCP, libc::TCP_KEEPCNT), 3);
}

// ---- a listener's -------------------------------------------------------------------------------

#[test]
fn without_an_option_no_delay_is_on_and_the_rest_is_the_kernels() {
    let server = Server::new("127.0.0.1:0", SocketOptions::new());
    let (client, _) = server.pair();
    let fd = server_of(&client);
    assert_eq!(get(fd, TCP, libc::TCP_NODELAY), 1);
    assert_eq!(get(fd, SOCKET, libc::SO_KEEPALIVE), 0);
    assert_eq!(get(fd, TCP, libc::TCP_USER_TIMEOUT), 0);
    assert_eq!(get(fd, libc::IPPROTO_IP, libc::IP_TOS), 0);
    let [listening] = listening_at(&server.listener)[..] else {
        panic!("one socket listens");
    };
    assert_eq!(get(listening, SOCKET, libc::SO_REUSEADDR), 1);
}

#[test]
fn what_a_listener_accepts_has_its_options() {
    let options = SocketOptions::new()
        .nodelay(false)
        .keepalive(sixty_ten_three())
        .user_timeout(Duration::from_micros(12_344_001))
        .send_buffer(20_000)
        .receive_buffer(30_000)
        .quickack(false)
        .tos(0x10);
    let server = Server::new("127.0.0.1:0", options);
    let (client, _) = server.pair();
    let fd = server_of(&client);
    assert_eq!(get(fd, TCP, libc::TCP_NODELAY), 0);
    assert_keepalive(fd);
    assert_eq!(get(fd, TCP, libc::TCP_USER_TIMEOUT), 12_345, "milliseconds");
    // Linux doubles them.
    assert_eq!(get(fd, SOCKET, libc::SO_SNDBUF), 40_000);
    assert_eq!(get(fd, SOCKET, libc::SO_RCVBUF), 60_000);
    assert_eq!(get(fd, TCP, libc::TCP_QUICKACK), 0);
    assert_eq!(get(fd, libc::IPPROTO_IP, libc::IP_TOS), 0x10);
    assert_eq!(server.system.stats().options_failed, 0);
}

#[test]
fn quickack_is_set_on_each_connection_both_ways() {
    for on in [true, false] {
        let server = Server::new("127.0.0.1:0", SocketOptions::new().quickack(on));
        for _ in 0..2 {
            let (client, _) = server.pair();
            assert_eq!(
                get(server_of(&client), TCP, libc::TCP_QUICKACK),
                i32::from(on)
            );
        }
    }
}

#[test]
fn a_listener_defers_accepts_and_opens_fast() {
    let options = SocketOptions::new()
        .defer_accept(Duration::from_secs(5))
        .fast_open(16);
    let server = Server::new("127.0.0.1:0", options);
    let [fd] = listening_at(&server.listener)[..] else {
        panic!("one socket listens");
    };
    // The kernel rounds up to its next retransmission.
    assert!(get(fd, TCP, libc::TCP_DEFER_ACCEPT) >= 5);
    assert_eq!(get(fd, TCP, libc::TCP_FASTOPEN), 16);
    // Nobody is accepted before a byte has come.
    let mut silent = connect(&server.listener);
    let mut speaking = connect(&server.listener);
    io::Write::write_all(&mut speaking, b"x").unwrap();
    assert_eq!(read(&speaking, 1), b"x");
    assert_eq!(server.system.stats().accepted, 1);
    io::Write::write_all(&mut silent, b"y").unwrap();
    assert_eq!(read(&silent, 1), b"y");
    assert_eq!(server.system.stats().accepted, 2);
}

#[test]
fn over_ipv6_the_type_of_service_is_a_traffic_class_too() {
    if !has_ipv6() {
        return;
    }
    let server = Server::new("[::1]:0", SocketOptions::new().tos(0x20));
    let (client, actor) = server.pair();
    let fd = server_of(&client);
    assert_eq!(get(fd, libc::IPPROTO_IPV6, libc::IPV6_TCLASS), 0x20);
    set(&actor, [SocketOption::Tos(0x40)]);
    assert_eq!(get(fd, libc::IPPROTO_IPV6, libc::IPV6_TCLASS), 0x40);
    assert_eq!(get(fd, libc::IPPROTO_IP, libc::IP_TOS), 0x40);
}

#[test]
fn an_ipv6_listener_takes_ipv4_or_not() {
    if !has_ipv6() {
        return;
    }
    for only in [false, true] {
        let server = Server::new("[::]:0", SocketOptions::new().only_v6(only));
        let port = tcp_addr(&server.listener).port();
        let over_v4 = TcpStream::connect(("127.0.0.1", port));
        assert_eq!(over_v4.is_err(), only, "{over_v4:?}");
        TcpStream::connect(("::1", port)).unwrap();
    }
}

#[test]
fn the_backlog_is_the_one_asked_for() {
    // Where TCP_INFO has it of a socket that listens: `tcpi_sacked`.
    const AT: usize = 28;
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let most: u32 = most.trim().parse().unwrap();
    for (options, backlog) in [
        (ListenOptions::new(), 4096),
        (ListenOptions::new().backlog(0), 0),
        (ListenOptions::new().backlog(7), 7),
    ] {
        let system = builder(1).build().unwrap();
        let (listener, _opened) = util::listen(&system, "127.0.0.1:0", options, |probe| probe);
        let [fd] = listening_at(&listener)[..] else {
            panic!("one socket listens");
        };
        let info = get_bytes(fd, TCP, libc::TCP_INFO);
        let told = u32::from_ne_bytes(info[AT..AT + 4].try_into().unwrap());
        assert_eq!(told, most.min(backlog));
    }
}

#[test]
fn what_is_set_twice_counts_as_it_was_set_last() {
    let system = builder(1).build().unwrap();
    let options = ListenOptions::new()
        .nodelay(false)
        .send_buffer(50_000)
        .socket(SocketOptions::new().send_buffer(20_000).tos(8).tos(16))
        .nodelay(true);
    let (listener, opened) = util::listen(&system, "127.0.0.1:0", options, |probe| probe);
    let client = connect(&listener);
    next(&opened);
    let fd = server_of(&client);
    assert_eq!(get(fd, SOCKET, libc::SO_SNDBUF), 40_000);
    assert_eq!(get(fd, libc::IPPROTO_IP, libc::IP_TOS), 16);
    assert_eq!(get(fd, TCP, libc::TCP_NODELAY), 1);
}

#[test]
fn connections_of_a_unix_socket_have_their_buffers() {
    let dir = TempDir::new();
    let endpoint = format!("unix:{}", dir.path().join("x.sock").display());
    let options = SocketOptions::new()
        .send_buffer(20_000)
        .receive_buffer(30_000);
    let server = Server::new(&endpoint, options);
    let _client = UnixStream::connect(dir.path().join("x.sock")).unwrap();
    next(&server.opened);
    let is_one = |fd: &RawFd| {
        // SAFETY: borrowed for this call alone.
        let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
        let name = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        name.is_ok_and(|name| name.to_string_lossy().starts_with("socket:"))
            && get(fd.as_raw_fd(), SOCKET, libc::SO_DOMAIN) == libc::AF_UNIX
            && get(fd.as_raw_fd(), SOCKET, libc::SO_SNDBUF) == 40_000
            && get(fd.as_raw_fd(), SOCKET, libc::SO_RCVBUF) == 60_000
            && get(fd.as_raw_fd(), SOCKET, libc::SO_ACCEPTCONN) == 0
    };
    assert_eq!(sockets().iter().filter(|fd| is_one(fd)).count(), 1);
}

#[test]
fn sockets_of_a_group_prefer_the_processors_of_their_pollers() {
    let allowed = std::thread::available_parallelism().unwrap().get();
    let system = builder(allowed).pin_each().build().unwrap();
    let options = ListenOptions::new()
        .balance(Balance::PerPoller)
        .by_processor();
    let (listener, opened) = util::listen(&system, "127.0.0.1:0", options, |probe| probe);
    let mut preferred: Vec<_> = listening_at(&listener)
        .iter()
        .map(|fd| get(*fd, SOCKET, libc::SO_INCOMING_CPU))
        .collect();
    preferred.sort_unstable();
    preferred.dedup();
    assert_eq!(preferred.len(), allowed, "{preferred:?}");
    assert!(preferred.iter().all(|processor| *processor >= 0));
    // And they accept.
    let _client = connect(&listener);
    next(&opened);
}

#[test]
fn by_processor_needs_a_socket_and_a_processor_for_each_poller() {
    let by_processor = ListenOptions::new().by_processor();
    for (builder, options, needs) in [
        (
            builder(1).pin_each(),
            by_processor.clone(),
            "Balance::PerPoller",
        ),
        (
            builder(1),
            by_processor.balance(Balance::PerPoller),
            "Builder::pin",
        ),
    ] {
        let system = builder.build().unwrap();
        let Err(error) = system.listen_with("127.0.0.1:0", options, |_| -> Probe { panic!() })
        else {
            panic!("it needs {needs}");
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(needs), "{error}");
    }
}

// ---- at run time --------------------------------------------------------------------------------

#[test]
fn an_actor_sets_options_of_its_own_connection_alone() {
    let server = Server::new("127.0.0.1:0", SocketOptions::new());
    let (client, actor) = server.pair();
    let (neighbour, _) = server.pair();
    set(
        &actor,
        [
            SocketOption::NoDelay(false),
            SocketOption::Keepalive(Some(sixty_ten_three())),
            SocketOption::UserTimeout(Duration::from_secs(7)),
            SocketOption::SendBuffer(20_000),
            SocketOption::ReceiveBuffer(30_000),
            SocketOption::QuickAck(false),
            SocketOption::Tos(0x08),
        ],
    );
    let fd = server_of(&client);
    assert_eq!(get(fd, TCP, libc::TCP_NODELAY), 0);
    assert_keepalive(fd);
    assert_eq!(get(fd, TCP, libc::TCP_USER_TIMEOUT), 7_000);
    assert_eq!(get(fd, SOCKET, libc::SO_SNDBUF), 40_000);
    assert_eq!(get(fd, SOCKET, libc::SO_RCVBUF), 60_000);
    assert_eq!(get(fd, TCP, libc::TCP_QUICKACK), 0);
    assert_eq!(get(fd, libc::IPPROTO_IP, libc::IP_TOS), 0x08);
    let beside = server_of(&neighbour);
    assert_eq!(get(beside, TCP, libc::TCP_NODELAY), 1);
    assert_eq!(get(beside, libc::IPPROTO_IP, libc::IP_TOS), 0);

    set(
        &actor,
        [
            SocketOption::NoDelay(true),
            SocketOption::Keepalive(None),
            SocketOption::UserTimeout(Duration::ZERO),
        ],
    );
    assert_eq!(get(fd, TCP, libc::TCP_NODELAY), 1);
    assert_eq!(get(fd, SOCKET, libc::SO_KEEPALIVE), 0);
    assert_eq!(get(fd, TCP, libc::TCP_USER_TIMEOUT), 0);
    assert_eq!(server.system.stats().options_failed, 0);
}

#[test]
fn an_option_that_fails_is_told_once_and_the_others_are_set() {
    let server = Server::new("127.0.0.1:0", SocketOptions::new());
    let (client, actor) = server.pair();
    let too_often = Keepalive::after(Duration::from_secs(1)).times(1000);
    let bad = [
        (SocketOption::OnlyV6(true), io::ErrorKind::Unsupported),
        (SocketOption::FastOpen(1), io::ErrorKind::Unsupported),
        (
            SocketOption::DeferAccept(Duration::from_secs(1)),
            io::ErrorKind::Unsupported,
        ),
        (
            SocketOption::Keepalive(Some(too_often)),
            io::ErrorKind::InvalidInput,
        ),
    ];
    let options = bad.iter().map(|(option, _)| option.clone());
    set(&actor, options.chain([SocketOption::Tos(0x10)]));
    for (option, kind) in bad {
        let (failed, why, text) = next(&server.failed);
        assert_eq!((&failed, why), (&option, kind), "{text}");
        assert!(text.contains(option.name()), "{text}");
        assert!(text.contains("IPv4 TCP socket"), "{text}");
    }
    // What the callback wrote has come: it was told without anything else happening.
    assert_eq!(read(&client, 4), b"!!!!");
    assert_eq!(
        get(server_of(&client), libc::IPPROTO_IP, libc::IP_TOS),
        0x10
    );
    assert!(server.failed.try_recv().is_err());
    assert_eq!(server.system.stats().options_failed, 4);
}

#[test]
fn a_device_that_is_not_there_is_told_by_its_name() {
    let server = Server::new("127.0.0.1:0", SocketOptions::new());
    let (_client, actor) = server.pair();
    // The kernel would cut the second, and the third, and take another device for it.
    for name in ["nodevice0", "a123456789012345", "lo\0"] {
        set(&actor, [SocketOption::Device(name.to_owned())]);
        let (_, _, text) = next(&server.failed);
        assert!(
            text.contains(&format!("SO_BINDTODEVICE={name:?}")),
            "{text}"
        );
    }
}

#[test]
fn options_of_who_ends_in_the_same_callback_trouble_nobody() {
    let server = Server::new("127.0.0.1:0", SocketOptions::new());
    let ends: [fn(&mut Context<'_, Setter>); 3] = [
        |ctx| ctx.close(),
        |ctx| ctx.abort(),
        |_| panic!("the actor's own"),
    ];
    for end in ends {
        let (_client, actor) = server.pair();
        let job: Job = Box::new(move |ctx| {
            ctx.set_option(SocketOption::OnlyV6(true));
            end(ctx);
        });
        actor.send(job).unwrap();
        wait_until("it has ended", || actor.is_gone());
    }
    // Whoever comes into the slot next has options of its own.
    let (client, actor) = server.pair();
    set(&actor, [SocketOption::Tos(0x10)]);
    assert_eq!(
        get(server_of(&client), libc::IPPROTO_IP, libc::IP_TOS),
        0x10
    );
    assert!(server.failed.try_recv().is_err());
}

#[test]
fn without_a_socket_there_is_no_option_to_set() {
    let system = builder(1).build().unwrap();
    let seen = util::spawn(&system, 0, |probe| probe);
    seen.tell(|ctx| {
        ctx.set_option(SocketOption::NoDelay(true));
        Ok(())
    });
    assert!(matches!(seen.closed(), CloseReason::Panicked(what) if what.contains("no socket")));
}

// ---- what does not fit --------------------------------------------------------------------------

#[track_caller]
fn refused(endpoint: &str, options: SocketOptions, option: &str, socket: &str) {
    let system = builder(1).build().unwrap();
    let Err(error) = Server::listen(system, endpoint, options) else {
        panic!("{option} on {socket} is refused");
    };
    assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
    let text = error.to_string();
    assert!(text.contains(option) && text.contains(socket), "{text}");
    assert!(text.contains(endpoint), "{text}");
}

#[test]
fn an_option_for_another_kind_of_socket_is_refused_by_name() {
    let dir = TempDir::new();
    let path = dir.path().join("x.sock");
    let unix = format!("unix:{}", path.display());
    let on = SocketOptions::new;
    for (options, name) in [
        (on().nodelay(true), "TCP_NODELAY"),
        (on().keepalive(sixty_ten_three()), "SO_KEEPALIVE"),
        (
            on().user_timeout(Duration::from_secs(1)),
            "TCP_USER_TIMEOUT",
        ),
        (on().quickack(true), "TCP_QUICKACK"),
        (
            on().defer_accept(Duration::from_secs(1)),
            "TCP_DEFER_ACCEPT",
        ),
        (on().fast_open(1), "TCP_FASTOPEN"),
        (on().tos(1), "IP_TOS"),
        (on().mark(1), "SO_MARK"),
        (on().device("lo"), "SO_BINDTODEVICE"),
        (on().only_v6(true), "IPV6_V6ONLY"),
        (on().transparent(true), "IP_TRANSPARENT"),
        (on().with(SocketOption::IncomingCpu(0)), "SO_INCOMING_CPU"),
    ] {
        refused(&unix, options, name, "Unix socket");
        assert!(!path.exists(), "{name}: nothing is left behind");
    }
    refused(
        "127.0.0.1:0",
        on().only_v6(true),
        "IPV6_V6ONLY",
        "IPv4 TCP socket",
    );
}

#[test]
fn in_a_simulation_options_fit_or_fail_as_in_a_server() {
    let mut simulation = Simulation::new(1);
    simulation.faults(Faults::harmless());
    let system = simulation.system(System::builder().pollers(1));
    let nodelay = SocketOptions::new().nodelay(true);
    let refused = Server::listen(
        simulation.system(System::builder()),
        "unix:/s",
        nodelay.clone(),
    );
    let error = refused.err().expect("no delay on a Unix socket");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");

    let (failing, failed) = channel();
    let (opening, opened) = channel();
    for (endpoint, options) in [("127.0.0.1:1", nodelay), ("unix:/s", SocketOptions::new())] {
        let (failed, opened) = (failing.clone(), opening.clone());
        let options = ListenOptions::new().socket(options);
        let make = move |_| Setter {
            opened: opened.clone(),
            failed: failed.clone(),
        };
        system.listen_with(endpoint, options, make).unwrap();
    }
    let mut clients = Vec::new();
    for endpoint in ["127.0.0.1:1", "unix:/s"] {
        clients.push(simulation.client(endpoint));
        simulation.run_for(Duration::from_secs(5));
        let actor = opened.try_recv().unwrap();
        let job: Job = Box::new(|ctx| ctx.set_option(SocketOption::NoDelay(false)));
        actor.send(job).unwrap();
        simulation.run_for(Duration::from_secs(5));
    }
    let (option, kind, text) = failed.try_recv().unwrap();
    assert_eq!(option, SocketOption::NoDelay(false));
    assert_eq!(kind, io::ErrorKind::Unsupported);
    assert!(text.contains("Unix socket"), "{text}");
    assert!(failed.try_recv().is_err(), "over TCP it is taken");
    assert_eq!(clients[0].received(), "");
    assert_eq!(clients[1].received(), "!");
    let trace = simulation.trace().to_string();
    assert!(trace.contains("sets TCP_NODELAY=false"), "{trace}");
}

#[test]
fn on_a_stage_options_are_those_of_tcp() {
    let (failing, failed) = channel();
    let (opened, _addrs) = channel();
    let mut stage = greenroom::testing::Stage::new(Setter {
        opened,
        failed: failing,
    });
    let job: Job = Box::new(|ctx| {
        ctx.set_option(SocketOption::NoDelay(false));
        ctx.set_option(SocketOption::OnlyV6(false));
    });
    stage.send(job);
    assert_eq!(failed.try_recv().unwrap().0, SocketOption::OnlyV6(false));
    assert!(failed.try_recv().is_err());
    assert_eq!(stage.output(), "!");
}

// ---- what needs root ----------------------------------------------------------------------------

#[test]
fn connections_are_marked() {
    if !is_root() {
        return;
    }
    let server = Server::new("127.0.0.1:0", SocketOptions::new().mark(0xffff_fff7));
    let (client, actor) = server.pair();
    let fd = server_of(&client);
    assert_eq!(get(fd, SOCKET, libc::SO_MARK), -9);
    set(&actor, [SocketOption::Mark(12)]);
    assert_eq!(get(fd, SOCKET, libc::SO_MARK), 12);
}

#[test]
fn connections_are_bound_to_a_device() {
    if !is_root() {
        return;
    }
    let server = Server::new("127.0.0.1:0", SocketOptions::new().device("lo"));
    let (client, actor) = server.pair();
    let fd = server_of(&client);
    assert_eq!(get_bytes(fd, SOCKET, libc::SO_BINDTODEVICE), b"lo\0");
    set(&actor, [SocketOption::Device(String::new())]);
    assert_eq!(get_bytes(fd, SOCKET, libc::SO_BINDTODEVICE), b"");
    set(&actor, [SocketOption::Device("lo".to_owned())]);
    assert_eq!(get_bytes(fd, SOCKET, libc::SO_BINDTODEVICE), b"lo\0");
}

#[test]
fn listeners_are_transparent() {
    if !is_root() {
        return;
    }
    let mut both = vec![("127.0.0.1:0", libc::IPPROTO_IP, libc::IP_TRANSPARENT)];
    if has_ipv6() {
        both.push(("[::1]:0", libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT));
    }
    for (endpoint, level, name) in both {
        let server = Server::new(endpoint, SocketOptions::new().transparent(true));
        let (client, actor) = server.pair();
        let fd = server_of(&client);
        assert_eq!(get(fd, level, name), 1);
        set(&actor, [SocketOption::Transparent(false)]);
        assert_eq!(get(fd, level, name), 0);
    }
}
