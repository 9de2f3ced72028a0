//! Question: what does an echo of a datagram cost the server, beside a loop of two system calls?
//!
//! A client sends a window of datagrams of 64 bytes, in one call, and receives the answers; a slice
//! is so many datagrams, its time that which the server's thread had a processor. One at a time, and
//! 32 at a time, which is where calls for several pay.
//!
//! Baseline: a thread with `recv_from` and `send_to` of std on a blocking socket. Beside it one with
//! recvmmsg and sendmmsg alone, the floor of what a batch can be. The bar: one at a time not above
//! 1.3 times the first (an epoll_wait more), 32 at a time below it. Run:
//! `cargo bench -p greenroom-benches --bench udp_echo`

use std::io;
use std::mem;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use greenroom::{Actor, Context, Datagram, Outcome, System};
use greenroom_benches::rounds::{Rival, machine, race};

/// A slice; a multiple of each window.
const DATAGRAMS: usize = 3200;
const BYTES: usize = 64;
const WINDOW_MAX: usize = 32;
const PATIENCE: Duration = Duration::from_secs(10);

/// The clock of the processor time of one thread, readable from all.
#[derive(Clone, Copy)]
struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    fn own() -> ThreadClock {
        let mut clock = 0;
        // SAFETY: the thread is this one, and `clock` is writable.
        let result = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        assert_eq!(result, 0, "pthread_getcpuclockid");
        ThreadClock(clock)
    }

    fn now(self) -> Duration {
        // SAFETY: made of integers alone, for which zero is a valid value.
        let mut time: libc::timespec = unsafe { mem::zeroed() };
        // SAFETY: `time` is writable; the thread lives as long as the benchmark.
        let result = unsafe { libc::clock_gettime(self.0, &raw mut time) };
        assert_eq!(result, 0, "clock_gettime");
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

/// A server: where it is, and its clock.
type Server = (SocketAddr, ThreadClock);

struct Echo(Sender<ThreadClock>);

impl Actor for Echo {
    type Message = ();

    fn opened(&mut self, _: &mut Context<'_, Self>) -> Outcome {
        self.0.send(ThreadClock::own())?;
        Ok(())
    }

    fn datagram(&mut self, datagram: Datagram<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.reply(&datagram, datagram.bytes());
        Ok(())
    }
}

fn greenroom(system: &System) -> io::Result<Server> {
    let (sender, clock) = channel();
    let sockets = system.bind_datagram("127.0.0.1:0", move || Echo(sender.clone()))?;
    let addr = sockets.local_addr().udp().expect("a UDP address");
    Ok((addr, clock.recv().expect("it is opened")))
}

fn serve(echo: impl FnOnce(UdpSocket) -> io::Result<()> + Send + 'static) -> io::Result<Server> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let addr = socket.local_addr()?;
    let (sender, clock) = channel();
    thread::spawn(move || {
        sender.send(ThreadClock::own()).expect("somebody waits");
        echo(socket).expect("the socket works");
    });
    Ok((addr, clock.recv().expect("it has begun")))
}

fn one_by_one(socket: UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..len], from)?;
    }
}

fn several(socket: UdpSocket) -> io::Result<()> {
    let mut window = Window::new();
    loop {
        let count = window.receive(&socket)?;
        // The headers name the senders now: as they are, they are the answers'.
        window.send(&socket, count)?;
    }
}

/// Headers for recvmmsg and sendmmsg.
struct Window {
    bytes: Vec<[u8; BYTES]>,
    names: Vec<libc::sockaddr_in>,
    slices: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Window {
    fn new() -> Window {
        // SAFETY: made of integers and pointers alone, for which zero is a valid value.
        let (name, header) = unsafe { (mem::zeroed(), mem::zeroed()) };
        let mut window = Window {
            bytes: vec![[7; BYTES]; WINDOW_MAX],
            names: vec![name; WINDOW_MAX],
            slices: Vec::new(),
            headers: vec![header; WINDOW_MAX],
        };
        let bytes = window.bytes.iter_mut();
        window.slices = bytes
            .map(|bytes| libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: BYTES,
            })
            .collect();
        for at in 0..WINDOW_MAX {
            let header = &mut window.headers[at].msg_hdr;
            header.msg_name = ptr::from_mut(&mut window.names[at]).cast();
            header.msg_iov = ptr::from_mut(&mut window.slices[at]);
            header.msg_iovlen = 1;
        }
        window
    }

    /// Waits for the first, and takes as many as there are.
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        for header in &mut self.headers {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        }
        // SAFETY: so many headers, each with a name and a slice that live as long as they.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                WINDOW_MAX as _,
                libc::MSG_WAITFORONE as _,
                ptr::null_mut(),
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn send(&mut self, socket: &UdpSocket, count: usize) -> io::Result<()> {
        let mut sent = 0;
        while sent < count {
            // SAFETY: as above.
            let more = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers[sent..].as_mut_ptr(),
                    (count - sent) as _,
                    0,
                )
            };
            sent += usize::try_from(more).map_err(|_| io::Error::last_os_error())?;
        }
        Ok(())
    }
}

/// The client: connected, so that its headers need no names.
struct Client {
    socket: UdpSocket,
    window: Window,
    clock: ThreadClock,
}

impl Client {
    fn new((addr, clock): Server) -> io::Result<Client> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(addr)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut window = Window::new();
        for header in &mut window.headers {
            header.msg_hdr.msg_name = ptr::null_mut();
        }
        Ok(Client {
            socket,
            window,
            clock,
        })
    }

    /// What a slice took the server.
    fn slice(&mut self, window: usize) -> Duration {
        let before = self.clock.now();
        for _ in 0..DATAGRAMS / window {
            for header in &mut self.window.headers {
                header.msg_hdr.msg_namelen = 0;
            }
            self.window.send(&self.socket, window).expect("sent");
            let mut left = window;
            while left > 0 {
                left -= self.window.receive(&self.socket).expect("all are answered");
            }
        }
        self.clock.now() - before
    }
}

fn main() -> io::Result<()> {
    println!("{}", machine());
    let system = System::builder().pollers(1).build()?;
    for window in [1, WINDOW_MAX] {
        let mut std = Client::new(serve(one_by_one)?)?;
        let mut floor = Client::new(serve(several)?)?;
        let mut ours = Client::new(greenroom(&system)?)?;
        let rivals = vec![
            Rival::new("std, recv_from and send_to", move || std.slice(window)),
            Rival::new("recvmmsg and sendmmsg", move || floor.slice(window)),
            Rival::new("greenroom", move || ours.slice(window)),
        ];
        let title = format!("server's processor time of an echo, {window} at a time");
        race(&title, DATAGRAMS as u64, rivals);
    }
    Ok(())
}
