//! Listening sockets, TCP and Unix, and what accepting may come to.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libc::{SO_REUSEADDR, SOL_SOCKET, c_int};

use super::addr::{Endpoint, Peer, SockAddr};
use super::datagram::{SPREADS, Turn};
use super::descriptor;
use super::options::{Role, SocketOptions};
use super::platform::{self, ENONET, SO_REUSEPORT_SPREAD};
use super::selector::Source;
use super::simulated::{Number, Process};
use super::socket::{self, End, Socket, set_option};
use super::unix_path::{UnixPath, remove_dead_socket};

/// How to listen.
#[derive(Clone, Debug)]
pub(crate) struct BindOptions {
    /// How many connections may wait to be accepted; the system has a limit of its own
    /// (`net.core.somaxconn`) and takes the smaller one.
    pub(crate) backlog: c_int,
    /// Which of the sockets that share its address it is, if several do: the system spreads
    /// connections over them. For the first to find somebody there is an error, as for one alone. TCP
    /// only.
    pub(crate) group: Option<Turn>,
    /// Set before it is bound: Linux hands most of them down to accepted sockets, and the window
    /// that is offered in a handshake depends on the buffers.
    pub(crate) socket: SocketOptions,
    /// The program on this thread's simulated network that listens; `None` for the real one.
    pub(crate) simulated: Option<Process>,
}

/// What an accept came to, each calling for a step of its own.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A connection.
    Connection(Socket, Peer),
    /// No connection waits: wait for readiness.
    Nothing,
    /// A connection was lost before it was accepted, or a signal came in between: accept again.
    Again,
    /// The process or the system has no descriptor or no memory left. The connection stays in the
    /// backlog and the listener readable, so it has to leave the selector and come back later: by
    /// itself it would spin.
    Exhausted(io::Error),
    /// The listener is of no use any more.
    Failed(io::Error),
}

/// A socket that listens, non-blocking and close-on-exec. Dropping it removes the file of a Unix
/// socket and closes it, which resets the connections that still wait in the backlog.
#[derive(Debug)]
pub(crate) struct ListenSocket {
    /// The file of a Unix socket. Declared first, because fields are dropped in order and it has to
    /// be removed while the socket is open: see `UnixPath`.
    path: Option<UnixPath>,
    end: End,
}

impl ListenSocket {
    /// Listens on `endpoint`.
    ///
    /// An IPv6 socket takes IPv4 connections as well if the system is set so
    /// (`net.ipv6.bindv6only`): administrators expect that setting to be heeded.
    ///
    /// The file of a Unix socket that nobody listens on any more is replaced, that of a live one
    /// never.
    ///
    /// # Errors
    ///
    /// They name the endpoint. `AddrInUse` if a server is there already, `AlreadyExists` if the
    /// path is that of another kind of file, `InvalidInput` if it is not fit for a Unix socket.
    pub(crate) fn bind(endpoint: &Endpoint, options: &BindOptions) -> io::Result<ListenSocket> {
        match (options.simulated, endpoint) {
            (Some(process), _) => Number::listen(endpoint, options, process).map(|number| {
                let is_unix = matches!(endpoint, Endpoint::Unix(_));
                let path = is_unix.then_some(UnixPath::Simulated(number));
                let end = End::simulated(number);
                ListenSocket { path, end }
            }),
            (None, Endpoint::Tcp(_)) => ListenSocket::bind_tcp(endpoint, options),
            (None, Endpoint::Unix(path)) => ListenSocket::bind_unix(endpoint, path, options),
        }
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot listen on {endpoint}: {error}"),
            )
        })
    }

    /// Listens on a TCP address.
    fn bind_tcp(endpoint: &Endpoint, options: &BindOptions) -> io::Result<ListenSocket> {
        let addr = SockAddr::of(endpoint)?;
        let fd = socket::open(addr.family())?;
        // Connections of the last run that are in TIME_WAIT must not keep a restarted server out.
        // Linux still refuses a second listener.
        set_option(fd.as_fd(), SOL_SOCKET, SO_REUSEADDR, 1 as c_int)?;
        let share = || set_option(fd.as_fd(), SOL_SOCKET, SO_REUSEPORT_SPREAD, 1 as c_int);
        // The first listens without it: else a server of the same user that listens there with a group
        // of its own, this one started twice for one, would have to share it, and nobody were told. Two
        // that start together may both be bound; it is listen(2) that refuses the second.
        let is_late = options.group == Some(Turn::First) && SPREADS;
        if options.group.is_some() && !is_late {
            share()?;
        }
        options.socket.apply(fd.as_fd(), Role::Listener)?;
        bind(&fd, &addr)?;
        listen(&fd, options.backlog)?;
        if is_late {
            share()?;
        }
        let (path, end) = (None, End::of(fd));
        Ok(ListenSocket { path, end })
    }

    /// Listens on the path of a Unix socket.
    fn bind_unix(
        endpoint: &Endpoint,
        path: &Path,
        options: &BindOptions,
    ) -> io::Result<ListenSocket> {
        let addr = SockAddr::of(endpoint)?;
        let fd = socket::open(addr.family())?;
        options.socket.apply(fd.as_fd(), Role::Listener)?;
        match bind(&fd, &addr) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_dead_socket(endpoint, path)?;
                bind(&fd, &addr)?;
            }
            result => result?,
        }
        // Owned from here on, so that the file goes again if listen fails.
        let path = Some(UnixPath::of(path)?);
        let listening = listen(&fd, options.backlog);
        let end = End::of(fd);
        let listener = ListenSocket { path, end };
        listening.map(|()| listener)
    }

    /// Takes one connection from the backlog.
    pub(crate) fn accept(&self) -> Accepted {
        let fd = match self.end.source() {
            Source::Fd(fd) => fd.as_raw_fd(),
            Source::Simulated(listener) => {
                return match listener.accept() {
                    Ok((end, peer)) => Accepted::Connection(Socket::simulated(end), peer),
                    Err(error) => classify(error),
                };
            }
        };
        let (fd, addr) = match platform::accept(fd) {
            Ok(accepted) => accepted,
            Err(error) => return classify(error),
        };
        match addr.to_peer() {
            Ok(peer) => Accepted::Connection(Socket::from(fd), peer),
            Err(error) => Accepted::Failed(error),
        }
    }

    /// The address that it listens on, with the port that the system chose.
    pub(crate) fn local_addr(&self) -> io::Result<Endpoint> {
        self.end.local_addr()
    }

    /// What a selector watches.
    pub(crate) fn source(&self) -> Source<'_> {
        self.end.source()
    }

    /// Takes over a socket that listens already, with the options that `options` say of it. `file` is
    /// that of a Unix socket, if it is to be removed in the end, and what says when that is ours to
    /// do.
    pub(crate) fn take_over(
        fd: OwnedFd,
        file: Option<(&Path, Arc<AtomicBool>)>,
        options: &SocketOptions,
    ) -> io::Result<ListenSocket> {
        descriptor::set_cloexec(fd.as_fd())?;
        descriptor::set_nonblocking(fd.as_fd(), true)?;
        descriptor::clear_linger(fd.as_fd());
        options.apply(fd.as_fd(), Role::Listener)?;
        // A file that has gone meanwhile need not be removed.
        let path = file.and_then(|(path, is_ours)| UnixPath::taken_over(path, is_ours).ok());
        let end = End::of(fd);
        Ok(ListenSocket { path, end })
    }

    /// A duplicate for another process, and the file that it will have to remove. `None` for a
    /// simulated socket.
    pub(crate) fn lend(&self) -> io::Result<Option<(OwnedFd, Option<PathBuf>)>> {
        let Source::Fd(fd) = self.end.source() else {
            return Ok(None);
        };
        let path = self.path.as_ref().and_then(UnixPath::path);
        Ok(Some((fd.try_clone_to_owned()?, path.map(Path::to_owned))))
    }

    /// From here on the file of a Unix socket is another process's to remove.
    pub(crate) fn give_up_path(&mut self) {
        if let Some(path) = &mut self.path {
            path.give_up();
        }
    }

    /// Removes the file of a Unix socket ahead of the close: nobody connects any more, and the
    /// backlog can be accepted to its end. Nothing to do for TCP.
    pub(crate) fn remove_path(&mut self) {
        self.path = None;
    }
}

/// One bind(2).
fn bind(fd: &OwnedFd, addr: &SockAddr) -> io::Result<()> {
    // SAFETY: the address is valid for its length and outlives the call.
    unsafe { syscall!(bind(fd.as_raw_fd(), addr.as_ptr(), addr.len())) }.map(drop)
}

/// One listen(2).
fn listen(fd: &OwnedFd, backlog: c_int) -> io::Result<()> {
    // SAFETY: takes no pointer.
    unsafe { syscall!(listen(fd.as_raw_fd(), backlog)) }.map(drop)
}

/// What the error of an accept calls for.
fn classify(error: io::Error) -> Accepted {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Accepted::Nothing,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
            Accepted::Exhausted(error)
        }
        Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO) => Accepted::Again,
        // Linux passes pending network errors of the new connection on as errors of accept;
        // accept(2) lists these to be treated alike, and mentions the last of them elsewhere.
        Some(
            libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | ENONET
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::ETIMEDOUT,
        ) => Accepted::Again,
        // EPERM, too: a filter refuses before the connection leaves the backlog, and would again.
        _ => Accepted::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::os::fd::BorrowedFd;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use std::path::PathBuf;

    use super::*;
    use crate::sys::Interest;
    use crate::sys::test_util::{TempDir, wait_for};

    impl AsFd for ListenSocket {
        fn as_fd(&self) -> BorrowedFd<'_> {
            match self.source() {
                Source::Fd(fd) => fd,
                Source::Simulated(_) => panic!("a simulated socket has no descriptor"),
            }
        }
    }

    const OPTIONS: BindOptions = BindOptions {
        backlog: 16,
        group: None,
        socket: SocketOptions::new(),
        simulated: None,
    };

    fn bind(endpoint: impl Into<Endpoint>) -> io::Result<ListenSocket> {
        ListenSocket::bind(&endpoint.into(), &OPTIONS)
    }

    fn bind_tcp(text: &str, options: &BindOptions) -> (ListenSocket, SocketAddr) {
        let listener = ListenSocket::bind(&text.parse().unwrap(), options).unwrap();
        let Endpoint::Tcp(addr) = listener.local_addr().unwrap() else {
            panic!("not a TCP listener");
        };
        (listener, addr)
    }

    fn accept(listener: &ListenSocket) -> (Socket, Peer) {
        wait_for(listener, Interest::READ);
        match listener.accept() {
            Accepted::Connection(socket, peer) => (socket, peer),
            other => panic!("{other:?}"),
        }
    }

    fn has_ipv6() -> bool {
        let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
        if !has_ipv6 {
            eprintln!("skipped: no IPv6 loopback here");
        }
        has_ipv6
    }

    /// A byte there and back.
    fn echo(socket: &Socket, client: &mut (impl Read + Write)) {
        client.write_all(b"x").unwrap();
        wait_for(socket, Interest::READ);
        let mut byte = [0; 1];
        assert_eq!(socket.recv(&mut byte).unwrap(), 1);
        assert_eq!(socket.send(&byte).unwrap(), 1);
        client.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn accepts_over_ipv4() {
        let (listener, addr) = bind_tcp("127.0.0.1:0", &OPTIONS);
        assert_ne!(addr.port(), 0);
        assert!(matches!(listener.accept(), Accepted::Nothing));
        let mut client = TcpStream::connect(addr).unwrap();
        let (socket, peer) = accept(&listener);
        assert_eq!(peer, Peer::Tcp(client.local_addr().unwrap()));
        assert_eq!(socket.peer().unwrap(), peer);
        assert_eq!(socket.local_addr().unwrap(), Endpoint::Tcp(addr));
        echo(&socket, &mut client);
        assert!(matches!(listener.accept(), Accepted::Nothing));
    }

    #[test]
    fn accepts_over_ipv6() {
        if !has_ipv6() {
            return;
        }
        let (listener, addr) = bind_tcp("[::1]:0", &OPTIONS);
        let mut client = TcpStream::connect(addr).unwrap();
        let (socket, peer) = accept(&listener);
        assert_eq!(peer, Peer::Tcp(client.local_addr().unwrap()));
        echo(&socket, &mut client);
    }

    #[test]
    fn an_ipv4_peer_of_an_ipv6_listener_is_shown_as_ipv4() {
        if !has_ipv6() {
            return;
        }
        let (listener, addr) = bind_tcp("[::]:0", &OPTIONS);
        let Ok(client) = TcpStream::connect(("127.0.0.1", addr.port())) else {
            eprintln!("skipped: IPv6 sockets take no IPv4 connections here");
            return;
        };
        let (socket, peer) = accept(&listener);
        assert_eq!(peer, Peer::Tcp(client.local_addr().unwrap()));
        assert_eq!(socket.peer().unwrap(), peer);
    }

    #[test]
    fn accepts_over_a_unix_socket() {
        let dir = TempDir::new();
        let path = dir.path("x.sock");
        let listener = bind(path.clone()).unwrap();
        assert_eq!(listener.local_addr().unwrap(), Endpoint::Unix(path.clone()));
        assert!(matches!(listener.accept(), Accepted::Nothing));
        let mut client = UnixStream::connect(&path).unwrap();
        let (socket, peer) = accept(&listener);
        assert_eq!(peer, Peer::Unix);
        assert_eq!(socket.local_addr().unwrap(), Endpoint::Unix(path));
        echo(&socket, &mut client);
    }

    #[test]
    fn nodelay_is_handed_down_to_accepted_sockets() {
        for nodelay in [false, true] {
            let options = BindOptions {
                socket: SocketOptions::new().nodelay(nodelay),
                ..OPTIONS
            };
            let (listener, addr) = bind_tcp("127.0.0.1:0", &options);
            let _client = TcpStream::connect(addr).unwrap();
            let (socket, _) = accept(&listener);
            let socket = TcpStream::from(OwnedFd::from(socket));
            assert_eq!(socket.nodelay().unwrap(), nodelay);
        }
    }

    #[test]
    fn of_two_that_start_a_group_together_one_is_refused() {
        let options = BindOptions {
            group: Some(Turn::First),
            ..OPTIONS
        };
        for _ in 0..300 {
            let (free, addr) = bind_tcp("127.0.0.77:0", &OPTIONS);
            drop(free);
            let endpoint = Endpoint::from(addr);
            let start = std::sync::Barrier::new(2);
            let bind = || {
                start.wait();
                ListenSocket::bind(&endpoint, &options)
            };
            let [first, second] = std::thread::scope(|scope| {
                [scope.spawn(bind), scope.spawn(bind)].map(|bound| bound.join().unwrap())
            });
            // Both, where another test has the port of all addresses by then.
            let refused = [first, second].into_iter().find_map(Result::err);
            let error = refused.expect("they do not share it");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn a_port_is_shared_only_on_request() {
        let of = |group| BindOptions { group, ..OPTIONS };
        let (_first, addr) = bind_tcp("127.0.0.1:0", &of(Some(Turn::First)));
        let endpoint = Endpoint::from(addr);
        let _second = ListenSocket::bind(&endpoint, &of(Some(Turn::Further))).unwrap();
        let _third = ListenSocket::bind(&endpoint, &of(Some(Turn::Further))).unwrap();
        for group in [None, Some(Turn::First)] {
            let error = ListenSocket::bind(&endpoint, &of(group)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            assert!(error.to_string().contains(&endpoint.to_string()), "{error}");
        }
    }

    #[test]
    fn a_dead_socket_is_replaced() {
        let dir = TempDir::new();
        let path = dir.path("x.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = bind(path.clone()).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        accept(&listener);
    }

    #[test]
    fn a_live_socket_is_left_alone() {
        let dir = TempDir::new();
        let path = dir.path("x.sock");
        let options = BindOptions {
            backlog: 0,
            ..OPTIONS
        };
        let live = ListenSocket::bind(&path.clone().into(), &options).unwrap();
        // The first attempt finds room in the backlog, the second finds it full.
        for _ in 0..2 {
            let error = bind(path.clone()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            assert!(error.to_string().contains("another server"), "{error}");
            assert!(error.to_string().contains("x.sock"), "{error}");
        }
        accept(&live);
        let _client = UnixStream::connect(&path).unwrap();
        accept(&live);
    }

    #[test]
    fn a_live_socket_of_another_type_is_left_alone() {
        let dir = TempDir::new();
        let path = dir.path("x.sock");
        let _datagrams = UnixDatagram::bind(&path).unwrap();
        let error = bind(path.clone()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
    }

    #[test]
    fn a_regular_file_is_left_alone() {
        let dir = TempDir::new();
        let path = dir.path("precious");
        fs::write(&path, "data").unwrap();
        let error = bind(path.clone()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("not a socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[test]
    fn an_unfit_path_is_refused_with_the_limit() {
        let error = bind(PathBuf::from("x".repeat(200))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("the limit is 107"), "{error}");
        let error = bind(PathBuf::from("a\0b")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let error = bind(TempDir::new().path("missing/x.sock")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_file_is_removed_once_and_only_if_it_is_ours() {
        let dir = TempDir::new();
        let path = dir.path("x.sock");
        drop(bind(path.clone()).unwrap());
        assert!(!path.exists());

        let ours = bind(path.clone()).unwrap();
        fs::remove_file(&path).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
    }

    #[test]
    fn the_backlog_can_be_accepted_after_the_file_is_gone() {
        let dir = TempDir::new();
        let path = dir.path("x.sock");
        let mut listener = bind(path.clone()).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        listener.remove_path();
        assert!(UnixStream::connect(&path).is_err());
        let (socket, _) = accept(&listener);
        echo(&socket, &mut client);
    }

    #[test]
    fn errors_of_accept_are_told_apart() {
        let classify = |errno| classify(io::Error::from_raw_os_error(errno));
        assert!(matches!(classify(libc::EAGAIN), Accepted::Nothing));
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            let Accepted::Exhausted(error) = classify(errno) else {
                panic!("{errno} is exhaustion");
            };
            assert_eq!(error.raw_os_error(), Some(errno));
        }
        let lost = [
            libc::ECONNABORTED,
            libc::EPROTO,
            libc::EINTR,
            libc::ENETDOWN,
        ];
        for errno in lost
            .into_iter()
            .chain([libc::EHOSTUNREACH, libc::ETIMEDOUT])
        {
            assert!(matches!(classify(errno), Accepted::Again), "{errno}");
        }
        for errno in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EPERM] {
            assert!(matches!(classify(errno), Accepted::Failed(_)), "{errno}");
        }
    }
}
