//! Network servers in which every connection is an actor.
//!
//! A connection is a plain struct with `&mut self` callbacks ([`Actor`]). Each poller thread hosts
//! very many of them and calls them one at a time when bytes, a timer or a message has come; any
//! thread reaches one by its [`Addr`].
//!
//! Start at [`System`] for a program, [`Actor`] for the callbacks and their order, [`Context`] for
//! what an actor may ask for, [`Members`] and [`Broadcaster`] for pushing to many, [`testing`] for
//! a test of an actor without a socket.
//!
//! # Defaults
//!
//! A server with no option set survives slow and stuck readers, senders that never finish a frame,
//! floods of messages and of connects, and ten times more clients than descriptors.
//!
//! | option | default | why this much | what happens there |
//! |---|---|---|---|
//! | [`Builder::pollers`] | one for each processor | more would take turns on them | |
//! | [`Builder::mailbox_bound`] | 16,384 messages, for each actor type on each poller | some milliseconds of work, 1 MiB at 64 bytes each | [`SendError`] gives the message back; [`Context::wait_for_room`] |
//! | [`Builder::output_budget`] | 1 GiB of output that sockets have refused, on each poller | 256 connections at their own budget | those with the most end: [`CloseReason::OutputBudget`] |
//! | [`Builder::read_buffer`] | 64 KiB for each poller | a stream at full speed comes in few calls, and they are through an actor in some ten microseconds | the rest is read in the next turn |
//! | [`Builder::pin`] | no poller is pinned | beside anything else on its processor a pinned poller waits while another one idles | |
//! | [`Builder::busy_poll`] | none: a poller without work sleeps | to spin costs a processor | |
//! | [`Builder::selector`] | epoll on Linux, kqueue on the BSDs and macOS, else poll(2); `GREENROOM_SELECTOR` names another | a wait costs by what is ready, not by what is watched | |
//! | [`Builder::workers`] | 16 threads, made when there is work; 1,024 further pieces of it may wait | enough to keep a disk or a resolver busy; some milliseconds of work each, a second or so together | [`NotTaken`] gives the closures back |
//! | [`Handle::run_on`] | as many closures may wait for a poller as [`Builder::mailbox_bound`] says | as messages | [`NotTaken`] gives the closure back |
//! | [`Restart::at_most`] | 5 restarts within 60 s | a fault that comes once in a while is no reason to go, one that comes at once each time is | the actor ends with the reason of the last failure |
//! | [`Restart::backoff`] | 10 ms, then twice as long each time, up to 5 s | what a failure was caused by is often over soon | |
//! | one actor's share of a mailbox | all of the first half, and of the second as much as is free | a flood to one leaves room to its neighbours | the same |
//! | [`ListenOptions::backlog`] | 4,096 connects | the kernel's own limit on usual systems | the kernel lets clients try again |
//! | [`ListenOptions::max_connections`] | none but the process's descriptor limit | the machine's owner set that | [`ListenOptions::at_limit`]; out of descriptors as well: the listener says so once, and tries again after 10 ms, then after twice as long, up to 500 ms |
//! | [`Builder::max_connections`] | none but the process's descriptor limit | the same | [`ListenOptions::at_limit`] of each listener |
//! | [`ListenOptions::max_per_source`] | none | many clients may stand behind one address | the client is closed, with [`source_farewell`](ListenOptions::source_farewell) |
//! | [`ListenOptions::source_prefixes`] | IPv4 32 bits, IPv6 64 bits | what one host or one household has of its own | |
//! | [`ListenOptions::accept_rate`] | none | how much a start costs only its server knows | connects wait in the backlog until the next token |
//! | [`ListenOptions::accepts_per_turn`] | 64 connects | some 20 microseconds each: the poller's connections wait for little more than a millisecond | the rest is accepted in the next turns |
//! | [`ListenOptions::pollers`] | all | | |
//! | [`ListenOptions::at_limit`] | [`AtLimit::Wait`] | nobody is turned away who might be served a moment later | |
//! | [`ListenOptions::balance`] | [`Balance::LeastConnections`] | connections live long, an uneven start would never even out | |
//! | [`ListenOptions::proxy_protocol`] | none: no header is read | who has no proxy in front would believe anybody | |
//! | [`ProxyProtocol::deadline`] | 5 s, from the accept to the end of the header | a proxy sends it with its first packet, which may have to be sent again once or twice | the connection is closed and [counted](Stats::headers_refused) |
//! | [`ProxyProtocol::max_bytes`] | 4,096 bytes for version 2 | the addresses take 232 at most, the rest is for what a proxy adds | the same |
//! | [`SocketOptions::nodelay`] | on, for TCP | a turn's writes are joined already | |
//! | all other [`SocketOptions`] | as the system has them; SO_REUSEADDR is on for TCP listeners, and for a connect from a port that was chosen | it knows the path, and its owner set it; a restarted server gets its port back | |
//! | [`ConnectOptions::timeout`] | 10 s over the lookup and all addresses | three of TCP's own tries at one address; a user does not wait longer | [`ConnectErrorKind::TimedOut`] |
//! | [`ConnectOptions::local_addr`] | the kernel's choice | it knows the routes | [`ConnectErrorKind::LocalAddress`] |
//! | names looked up at a time | 8 threads, made when there is a name; 1,024 more may wait; the first 16 addresses are tried | a resolver that hangs holds up no work and no poller | [`ConnectErrorKind::TooManyLookups`] |
//! | [`ConnectionOptions::input_max`] | 1 MiB | a frame of a text protocol or a game, many times over | [`CloseReason::InputTooLong`] |
//! | [`ConnectionOptions::output_max`] | 4 MiB | a burst to a reader that is on its way | [`ConnectionOptions::slow_reader`] |
//! | [`ConnectionOptions::slow_reader`] | [`SlowReader::Close`] | a push service must not pay for one member's line | [`CloseReason::SlowReader`] |
//! | [`ConnectionOptions::watermarks`] | low 16 KiB, high 64 KiB | as much as the kernel usually takes at once; a quarter, so that refilling starts before it runs dry | [`Actor::drained`] |
//! | [`ConnectionOptions::stuck_timeout`] | 30 s | longer than a mobile connection's usual gap, shorter than TCP's own quarter of an hour | [`CloseReason::StuckReader`] |
//! | [`ConnectionOptions::incomplete_timeout`] | 60 s | one frame over a poor line; ends who sends a byte now and then to hold the place | [`CloseReason::SlowSender`] |
//! | [`ConnectionOptions::first_bytes_timeout`] | 60 s | as long as a frame may take; ends who connects and says nothing to hold the place | [`CloseReason::Silent`] |
//! | [`ConnectionOptions::least_input_rate`], [`least_output_rate`](ConnectionOptions::least_output_rate) | none | what is slow depends on the protocol and its users | [`CloseReason::InputRate`], [`CloseReason::OutputRate`] |
//! | [`ConnectionOptions::flush_timeout`] | 120 s; for a file, as long again for each 4 MiB taken | all of `output_max` at 35 KB a second, a poor mobile line | [`CloseReason::NotFlushed`] |
//! | [`ConnectionOptions::idle_timeout`] | none | waiting is what a push connection is for, and it costs some dozen bytes | [`CloseReason::Idle`] |
//! | [`ConnectionOptions::linger`] | 5 s, 64 MiB; 1 s, 64 KiB for a refused connection | a peer that got our end of stream answers within round trips; what it had under way fits twice over | the socket is closed |
//! | `ListenOptions::tls`, `ConnectOptions::tls` | none: connections are plain | a certificate is its owner's to bring | |
//! | ciphertext that waits for a socket | 64 KiB and a record, beside the [`ConnectionOptions::output_max`] that it stands for | what a socket usually takes at once | nothing more is encrypted until it has left |
//! | `tls::Server::handshake_deadline` | 10 s, from the accept to the end of the handshake | four round trips, with a packet or two lost and sent again | the connection is closed and [counted](Stats::handshakes_failed) |
//! | `tls::Server::handshakes_per_turn` | 8 steps of handshakes | some 100 microseconds each: the poller's other connections wait for about a millisecond | the rest go on in the next turns |
//! | `tls::ServerBuilder::session_tickets` | on; they hold for 12 hours, keys are made anew every 6 | a client that comes back costs less; nothing is kept for it | a full handshake |
//! | `tls::ServerBuilder::session_cache` | 1,024 sessions | seldom used where there are tickets | the oldest is forgotten |
//! | `tls::ClientBuilder::session_cache` | 256 servers, of each up to 8 tickets | more than one process talks to | the oldest is forgotten |
//! | `versions` of either | TLS 1.2 and 1.3 | what came before is broken | the handshake fails |
//! | certificates asked of clients, protocols of ALPN | none | only the server knows | |
//! | a file of certificates | 16 MiB | that of all public roots has some hundred KiB | `tls::ConfigError::TooLong` |
//! | [`Pool::size`] | none to 8 connections | none before one is needed; enough for a server whose answers take milliseconds | calls wait for one in turn |
//! | [`Pool::idle_limit`] | 60 s | what is in between often forgets a connection after some minutes | those beyond the smallest number close |
//! | the answer to a pool's [`Exchange::greeting`] | 10 s | as a connect may take | as a connect that came to nothing |
//! | [`Pool`]s, after a connect that came to nothing | 50 ms, then twice as long each time, up to 5 s | calls that wait have deadlines of seconds | |
//! | [`Pool::max_waiting`] | 1,024 calls | more than are answered within their deadlines by 8 connections | [`CallError::Full`] |
//! | [`Reconnect::backoff`] | up to 100 ms before the first try after a failure, then up to twice as long each time, up to 30 s; drawn anew each time | a server that is restarted is there again within a second; thousands that lost it do not come at once, and for one that is away for long each costs it little | |
//! | [`Reconnect::settled_after`] | 10 s | who is refused behind the handshake, at a login or by a balancer without a backend, is so within seconds | the time before the next try goes on growing |
//! | [`Reconnect::attempts`] | no limit | a server that is away comes back | |
//! | [`AdoptOptions::connection`] | those of [`ConnectionOptions`] | an adopted socket is a connection like any other | |
//! | [`AdoptOptions::datagrams`] | those of [`DatagramOptions`] | an adopted socket is one like any other | |
//! | [`AdoptOptions::unread`], [`AdoptOptions::unwritten`] | none | a socket from elsewhere brings what is said | |
//! | [`DatagramOptions::per_poller`] | on, for UDP on Linux | all processors take part, and a sender stays with its poller | |
//! | [`DatagramOptions::shared`] | off | a port in use is to be noticed | the bind fails |
//! | [`DatagramOptions::datagram_max`] | 64 KiB | no UDP datagram is longer; only pages that one reached take memory | [`Datagram::is_truncated`] |
//! | [`DatagramOptions::queue_max`] | 1 MiB, each datagram counted with 64 bytes more | a burst of some thousand answers while the network card is busy | the datagram is dropped and counted, `send_to` returns `false`; [`Actor::drained`] |
//! | [`DatagramOption`]s | as the system has them | its owner set them | |
//!
//! # Features
//!
//! None is on by default.
//!
//! - `http`: the module `http`, a small HTTP/1.1 server, by the crates `httparse` and `httpdate`. It
//!   has a table of its own with its defaults.
//! - `signals`: the module `signals`, by the crate `signal-hook`.
//! - `tls`: the module `tls`, by the crate `rustls` with `ring`; its defaults are in the table above.
//! - `websocket`: the module `websocket`, by the crates `httparse`, `sha1_smol`, `base64` and `getrandom`; its defaults are
//!   in the table of `websocket::Options`.
//!
//! # Panics
//!
//! A panic in a callback ends that actor alone, where panics unwind. With `panic = "abort"` it ends
//! the process.

#![deny(unsafe_code)]

// In reading order: what the user writes, what carries it, what it stands on.
pub mod activation;
mod actor;
mod addr;
mod adopt;
mod ask;
mod binding;
mod broadcaster;
mod connect;
mod context;
mod datagram;
mod directory;
mod entrance;
mod frames;
mod gone;
mod handle;
pub mod handover;
#[cfg(feature = "http")]
pub mod http;
mod input;
mod listen_from;
mod listener;
mod local;
mod offload;
mod origin;
mod pool;
pub mod protocol;
mod reconnect;
#[cfg(feature = "signals")]
pub mod signals;
mod supervise;
mod system;
pub mod testing;
mod tick;
#[cfg(feature = "websocket")]
pub mod websocket;

mod acceptor;
mod poller;

mod call;
mod command;
mod flags;
mod group;
mod hosts;
mod inbox;
mod limits;
mod registry;
mod watch;

// Four of these are also included by loom-tests, in a crate of their own: hence their `pub`, and a
// method or two that only the models call.
#[allow(unreachable_pub, dead_code)]
mod mailbox;
#[allow(unreachable_pub, dead_code)]
mod oneshot;
mod outbox;
mod output;
#[allow(unreachable_pub)]
mod presence;
mod proxy_protocol;
mod timers;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(not(feature = "tls"))]
#[path = "tls/absent.rs"]
mod tls;
#[allow(unreachable_pub)]
mod waker;
mod workers;

#[allow(unreachable_pub)]
mod sync;
mod sys;

pub use actor::{Actor, CloseReason, Outcome};
pub use addr::{Addr, HasMailbox, Recipient, SendError, SendErrorKind};
pub use adopt::{
    AdoptError, AdoptErrorKind, AdoptOptions, Adoptable, DetachError, Detached, DetachedError,
    Readiness,
};
pub use ask::{AskError, Reply};
pub use binding::DatagramSockets;
pub use broadcaster::{Broadcast, Broadcaster, Left, Members, Refused};
pub use connect::{
    ConnectError, ConnectErrorKind, ConnectOptions, Remote, RemoteError, RemoteErrorKind,
};
pub use context::{Context, FileRefused, Written};
pub use datagram::{Datagram, DatagramFailure, DatagramOptions};
pub use directory::{NameError, WrongType};
pub use entrance::Loads;
pub use gone::{Gone, HasEnd, MonitorKey};
pub use handle::Handle;
pub use input::{FrameError, Input, Prefix};
pub use listen_from::{ListenFromError, ListenSockets};
pub use listener::{Balance, ListenOptions, Listener};
pub use local::{Local, PollerContext};
pub use offload::{NotTaken, NotTakenKind, WorkError};
pub use origin::{AtLimit, ConnectionOptions, SlowReader};
pub use pool::{CallError, Exchange, Pool, PoolCounts, PoolMessage};
pub use proxy_protocol::ProxyProtocol;
pub use reconnect::{Down, Link, Reconnect, ReconnectMessage};
pub use registry::{ActorId, Stats};
pub use supervise::{Restart, Supervised};
pub use sys::{
    DatagramAddr, DatagramOption, Endpoint, Interest, Interface, Keepalive, Peer, SelectorKind,
    SocketOption, SocketOptions,
};
pub use system::{Builder, System};
pub use tick::Tick;
pub use timers::TimerKey;
pub use tls::{TlsError, TlsErrorKind};
