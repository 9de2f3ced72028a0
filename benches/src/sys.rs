//! Every system call that the standard library does not have, and every `unsafe` of this package.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

/// The result of a libc call that answers -1 for an error.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// How many events one wait reports, as in the C loop.
const EVENTS_MAX: usize = 1024;

/// A level-triggered epoll instance.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
    /// What the last wait reported, at the front; always EVENTS_MAX long.
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// An instance that watches nothing yet.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no pointer is passed.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the call above returned this descriptor, and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        Ok(Epoll { fd, events })
    }

    /// Watches `fd` for reading, under `token`.
    pub fn add(&self, fd: &impl AsRawFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), token, false)
    }

    /// Watches `fd`, added before, for reading and, if `writing`, for writing.
    pub fn modify(&self, fd: &impl AsRawFd, token: u64, writing: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), token, writing)
    }

    fn control(
        &self,
        operation: libc::c_int,
        fd: RawFd,
        token: u64,
        writing: bool,
    ) -> io::Result<()> {
        let events = libc::EPOLLIN | if writing { libc::EPOLLOUT } else { 0 };
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: token,
        };
        // SAFETY: `event` lives through the call; a stale descriptor is answered with an error.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &mut event) })?;
        Ok(())
    }

    /// Waits for at most `timeout` until something happens, and returns how many events `event`
    /// then knows.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        // Not epoll_wait, which counts in milliseconds: a ping takes a fraction of one.
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: `events` has room for EVENTS_MAX entries, `timeout` lives through the call, and a null signal mask
        // leaves the mask as it is.
        let count = check(unsafe {
            libc::epoll_pwait2(
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS_MAX as libc::c_int,
                &timeout,
                ptr::null(),
            )
        });
        match count {
            Ok(count) => Ok(count as usize),
            // The callers wait in a loop with a deadline of their own.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// The `n`th event of the last wait: the token, and whether there are bytes, the end or an
    /// error to read.
    pub fn event(&self, n: usize) -> (u64, bool) {
        let libc::epoll_event { events, u64: token } = self.events[n];
        // Whatever is not about writing, an error and a hang-up too, is found by reading.
        (token, events & !(libc::EPOLLOUT as u32) != 0)
    }
}

/// An eventfd: the least that one thread can wake another with.
#[derive(Debug)]
pub struct EventFd(File);

impl EventFd {
    /// One that nobody has signalled yet.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: no pointer is passed.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
        // SAFETY: the call above returned this descriptor, and nobody else owns it.
        Ok(EventFd(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Lets a `wait` return.
    pub fn signal(&self) -> io::Result<()> {
        (&self.0).write_all(&1_u64.to_ne_bytes())
    }

    /// Blocks until a `signal`; takes back all there were.
    pub fn wait(&self) -> io::Result<()> {
        (&self.0).read_exact(&mut [0; 8])
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Lets the drop of `stream` reset the connection: no TIME_WAIT remains, so ports do not run out.
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the option's value is a linger, which lives through the call, and its size is the one passed.
    check(unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            mem::size_of_val(&linger) as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Connects to `addr` from `source` and a port that the kernel chooses; blocks, `timeout` bounds
/// each later read.
pub fn connect_from(
    source: Ipv4Addr,
    addr: SocketAddrV4,
    timeout: Duration,
) -> io::Result<TcpStream> {
    // SAFETY: no pointer is passed.
    let fd =
        check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the call above returned this descriptor, and nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let one: libc::c_int = 1;
    // Without it, bind takes a port that no other socket of this address has, whatever it is
    // connected to, and looks for it among all: slow, and at an end after one range of ports.
    // SAFETY: the option's value is an int, which lives through the call, and its size is the one passed.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const one).cast(),
            mem::size_of_val(&one) as libc::socklen_t,
        )
    })?;
    let address_len = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
    let local = socket_address(SocketAddrV4::new(source, 0));
    // SAFETY: `local` is a sockaddr_in, which lives through the call, and its size is the one passed.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const local).cast(), address_len) })?;
    let peer = socket_address(addr);
    // SAFETY: as for bind.
    check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const peer).cast(), address_len) })?;
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    Ok(stream)
}

/// `addr` as one of the loopback's on IPv4, which can be reached from many source addresses; an
/// error says so of any other.
pub fn loopback_v4(addr: SocketAddr) -> io::Result<SocketAddrV4> {
    match addr {
        SocketAddr::V4(addr) if addr.ip().is_loopback() => Ok(addr),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{addr} is not on the IPv4 loopback, which is needed for its many source addresses"
            ),
        )),
    }
}

fn socket_address(addr: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: addr.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*addr.ip()).to_be(),
        },
        sin_zero: [0; 8],
    }
}

/// Raises this process's soft limit of descriptors to the hard one, and returns it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is writable and lives through the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is readable and lives through the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

/// Lets the calling thread, and the threads it starts from now on, run on `cpu` only.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    pin_to(&cpu_set(&[cpu])?)
}

/// Lets the calling thread stay on one of two processors; without a second one it stays where it
/// is.
///
/// # Panics
///
/// Where there are several and `cpu` is none of them.
pub fn pin_if_many(cpu: usize) {
    // Asked once, before anybody is pinned: a thread that may use one only is told that there is
    // one only, and so are those that it starts.
    static CPUS: LazyLock<usize> =
        LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    if *CPUS > 1 {
        pin_to_cpu(cpu).expect("this processor exists");
    }
}

/// Reads once from a non-blocking stream: `None` where nothing is there yet, 0 at the end.
pub(crate) fn read_if_ready(
    mut stream: &TcpStream,
    buffer: &mut [u8],
) -> io::Result<Option<usize>> {
    match stream.read(buffer) {
        Ok(len) => Ok(Some(len)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}

fn cpu_set(cpus: &[usize]) -> io::Result<libc::cpu_set_t> {
    // SAFETY: a cpu_set_t is an array of integers, for which zero is a value: the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // SAFETY: `cpu` is below CPU_SETSIZE, checked above.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    Ok(set)
}

fn pin_to(set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: `set` lives through the call and its size is the one passed; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, mem::size_of_val(set), set) })?;
    Ok(())
}

/// Whether the calling thread may run on each of `cpus`, all below CPU_SETSIZE.
pub fn allows_cpus(cpus: &[usize]) -> bool {
    let Ok(mut set) = cpu_set(&[]) else {
        return false;
    };
    // SAFETY: `set` is writable, lives through the call and its size is the one passed.
    let known = check(unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) });
    let within = |cpu| cpu < libc::CPU_SETSIZE as usize;
    // SAFETY: `cpu` is below CPU_SETSIZE, which is asked first.
    let allowed = |&cpu: &usize| within(cpu) && unsafe { libc::CPU_ISSET(cpu, &set) };
    known.is_ok() && cpus.iter().all(allowed)
}

/// Lets the calling thread's timeouts end on time: by default the kernel may add 50 us to each.
pub fn reduce_timer_slack() -> io::Result<()> {
    // SAFETY: no pointer is passed.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) })?;
    Ok(())
}

/// Lets the calling thread stand back behind the others of its process.
pub fn stand_back() -> io::Result<()> {
    // SAFETY: no pointer is passed; 0 is the calling thread.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // SAFETY: as before.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice + 10) })?;
    Ok(())
}

/// Makes the child that `command` will start run on `cpus`, if they are given, and die with the
/// calling thread.
pub fn bind_child(command: &mut Command, cpus: Option<&[usize]>) -> io::Result<()> {
    let cpus = cpus.map(cpu_set).transpose()?;
    let prepare = move || {
        // The guards of `server` end children by their drop; this is for a death that runs no drop.
        // SAFETY: no pointer is passed.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) })?;
        // strace is the server's sibling, which Yama (ptrace_scope 1) does not let attach unless it
        // is told to. A kernel without Yama answers with an error, and needs no telling.
        // SAFETY: no pointer is passed.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
        cpus.as_ref().map_or(Ok(()), pin_to)
    };
    // SAFETY: between fork and exec `prepare` makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
    Ok(())
}

/// Sends `signal` to the process `pid`.
pub fn send_signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: no pointer is passed.
    check(unsafe { libc::kill(pid as libc::pid_t, signal) })?;
    Ok(())
}

/// The CPU time, user and system, that all threads of the process `pid` have used so far.
pub fn process_cpu_time(pid: u32) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: `clock` is writable and lives through the call.
    let errno = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
    if errno != 0 {
        return Err(io::Error::from_raw_os_error(errno));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable and lives through the call.
    check(unsafe { libc::clock_gettime(clock, &mut time) })?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}
