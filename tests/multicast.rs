//! Multicast and broadcast, in a network of the test's own: as root and where `ip` and `unshare`
//! are, else they are skipped.

#[path = "util/network.rs"]
mod network;
mod talker;
mod util;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;

use greenroom::*;
use talker::{Event, Server};
use util::TIMEOUT;

/// Two ends of one cable, of which the first has the addresses 10.77.0.1/24 and fd77::1/64.
const NETWORK: &str = "ip link set lo up \
    && ip link add va type veth peer name vb \
    && ip addr add 10.77.0.1/24 brd + dev va \
    && ip -6 addr add fd77::1/64 dev va nodad \
    && ip link set va up && ip link set vb up";

const OWN: &str = "10.77.0.1";
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 77, 1, 2));
const GROUP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0x77, 1));

/// Runs `test` there.
fn in_own_network(name: &str, test: impl FnOnce()) {
    network::in_own_network(name, NETWORK, test);
}

fn by_name() -> Interface {
    Interface::Name("va".to_owned())
}

fn index() -> u32 {
    let text = std::fs::read_to_string("/sys/class/net/va/ifindex");
    // A network of its own has a /sys of the old one, unless it is mounted anew.
    let text = text.ok().or_else(|| {
        let output = Command::new("ip")
            .args(["-o", "link", "show", "va"])
            .output();
        let text = String::from_utf8(output.ok()?.stdout).ok()?;
        Some(text.split(':').next()?.to_owned())
    });
    text.unwrap().trim().parse().unwrap()
}

/// One socket for all.
fn one() -> DatagramOptions {
    DatagramOptions::new().per_poller(false)
}

/// A client that sends its multicast to the cable.
fn client() -> UdpSocket {
    let client = UdpSocket::bind((OWN, 0)).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    client
}

#[track_caller]
fn recv(client: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 2000];
    let (len, from) = client.recv_from(&mut buffer).expect("a datagram comes");
    buffer.truncate(len);
    (buffer, from)
}

/// Has the server do something, and waits until that has been carried out: by a datagram to itself.
#[track_caller]
fn carry_out(server: &Server, job: impl FnOnce(&mut Context<'_, talker::Talker>) + Send + 'static) {
    server.tell(|ctx| {
        job(ctx);
        Ok(())
    });
}

#[track_caller]
fn option_error(server: &Server) -> (DatagramOption, io::Error) {
    match server.failed() {
        DatagramFailure::Option(option, error) => (option, error),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_is_heard_from_the_join_to_the_leave() {
    in_own_network("a_group_is_heard_from_the_join_to_the_leave", || {
        let server = Server::with("0.0.0.0:0", one(), 1);
        let client = client();
        let to = SocketAddr::new(GROUP, server.port());
        for on in [
            by_name(),
            Interface::Index(index()),
            Interface::Address(OWN.parse().unwrap()),
        ] {
            let joined = on.clone();
            carry_out(&server, move |ctx| ctx.join_multicast(GROUP, joined));
            // The first send may come before the join.
            client
                .set_read_timeout(Some(std::time::Duration::from_millis(20)))
                .unwrap();
            util::wait_until("the group is heard", || {
                client.send_to(b"hello", to).unwrap();
                client.recv(&mut [0; 10]).is_ok()
            });
            client.set_read_timeout(Some(TIMEOUT)).unwrap();
            while let Ok(heard) = server.events.try_recv() {
                let talker::Event::Datagram(heard) = heard else {
                    panic!("{heard:?}");
                };
                assert_eq!(heard.local, to.into(), "it tells the group");
                assert_eq!(heard.interface, Some(index()));
            }
            // Late answers to those that were sent again.
            client.set_nonblocking(true).unwrap();
            while client.recv(&mut [0; 10]).is_ok() {}
            client.set_nonblocking(false).unwrap();
            carry_out(&server, move |ctx| ctx.leave_multicast(GROUP, on));
            // Sent after the leave has been carried out, and followed by one that is heard.
            let (told, done) = std::sync::mpsc::channel();
            server.tell(move |_| {
                let _ = told.send(());
                Ok(())
            });
            util::next(&done);
            client.send_to(b"left", to).unwrap();
            client.send_to(b"still here", (OWN, server.port())).unwrap();
            assert_eq!(recv(&client).0, b"still here");
            assert_eq!(server.heard().bytes, b"still here");
        }
    });
}

#[test]
fn an_answer_to_multicast_leaves_from_an_address_of_the_interface() {
    let name = "an_answer_to_multicast_leaves_from_an_address_of_the_interface";
    in_own_network(name, || {
        for bind in ["0.0.0.0:0", "[::]:0"] {
            let server = Server::with(bind, one().join(GROUP, by_name()), 2);
            let client = client();
            client.send_to(b"hello", (GROUP, server.port())).unwrap();
            let own = SocketAddr::new(OWN.parse().unwrap(), server.port());
            assert_eq!(recv(&client), (b"hello".to_vec(), own), "{bind}");
            let heard = server.heard();
            assert_eq!(heard.local.ip(), Some(GROUP), "{bind}");
            assert_eq!(heard.from, client.local_addr().unwrap().into());
        }
    });
}

#[test]
fn ipv6_groups_are_joined_by_name_and_by_index() {
    in_own_network("ipv6_groups_are_joined_by_name_and_by_index", || {
        let client = UdpSocket::bind("[fd77::1]:0").unwrap();
        for on in [by_name(), Interface::Index(index())] {
            let server = Server::with("[::]:0", one().join(GROUP_V6, on), 1);
            let IpAddr::V6(group) = GROUP_V6 else {
                unreachable!()
            };
            let to = SocketAddrV6::new(group, server.port(), 0, index());
            // A network that has just been made loses some until its neighbours know each other.
            client
                .set_read_timeout(Some(std::time::Duration::from_millis(20)))
                .unwrap();
            util::wait_until("the group is heard", || {
                client.send_to(b"hello", to).unwrap();
                client.recv(&mut [0; 10]).is_ok()
            });
            assert_eq!(server.heard().local.ip(), Some(GROUP_V6));
        }
        let server = Server::with("[::]:0", one(), 1);
        let on = Interface::Address(OWN.parse().unwrap());
        carry_out(&server, move |ctx| ctx.join_multicast(GROUP_V6, on));
        let (_, error) = option_error(&server);
        assert!(error.to_string().contains("name or index"), "{error}");
    });
}

#[test]
fn what_comes_to_a_link_local_address_is_answered_from_there() {
    let name = "what_comes_to_a_link_local_address_is_answered_from_there";
    in_own_network(name, || {
        let add = ["-6", "addr", "add", "fe80::77/64", "dev", "va", "nodad"];
        assert!(Command::new("ip").args(add).status().unwrap().success());
        let own: Ipv6Addr = "fe80::77".parse().unwrap();
        // Also to who has an address that says nothing of the interface.
        for from in [
            SocketAddrV6::new(own, 0, 0, index()),
            "[fd77::1]:0".parse().unwrap(),
        ] {
            let server = Server::with("[::]:0", one(), 1);
            let to = SocketAddrV6::new(own, server.port(), 0, index());
            let client = UdpSocket::bind(from).unwrap();
            client
                .set_read_timeout(Some(std::time::Duration::from_millis(20)))
                .unwrap();
            let mut answer = None;
            // A network that has just been made loses some.
            util::wait_until("an answer comes", || {
                client.send_to(b"hello", to).unwrap();
                answer = client.recv_from(&mut [0; 10]).ok();
                answer.is_some()
            });
            assert_eq!(answer, Some((5, to.into())));
            for event in server.events.try_iter() {
                let Event::Datagram(heard) = event else {
                    panic!("{event:?}");
                };
                assert_eq!(heard.from, client.local_addr().unwrap().into());
                assert_eq!(heard.local, SocketAddr::from(to).into());
            }
        }
    });
}

#[test]
fn what_cannot_be_joined_is_told_and_the_socket_goes_on() {
    let name = "what_cannot_be_joined_is_told_and_the_socket_goes_on";
    in_own_network(name, || {
        let server = Server::with("0.0.0.0:0", one().join(GROUP, by_name()), 1);
        let unicast = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 9));
        for (option, kind, part) in [
            (
                DatagramOption::Join(unicast, by_name()),
                io::ErrorKind::InvalidInput,
                "not a multicast address",
            ),
            (
                DatagramOption::Join(GROUP, Interface::Name("nope".to_owned())),
                io::ErrorKind::NotFound,
                "no such interface",
            ),
            (
                DatagramOption::Join(GROUP, Interface::Index(9999)),
                io::ErrorKind::NotFound,
                "no such interface",
            ),
            (
                DatagramOption::Join(GROUP, by_name()),
                io::ErrorKind::AddrInUse,
                "joined already",
            ),
            (
                DatagramOption::Leave(GROUP, Interface::Name("vb".to_owned())),
                io::ErrorKind::AddrNotAvailable,
                "not joined there",
            ),
            (
                DatagramOption::Join(GROUP_V6, by_name()),
                io::ErrorKind::InvalidInput,
                "bind to [::]",
            ),
            (
                DatagramOption::Hops(0),
                io::ErrorKind::InvalidInput,
                "at least 1",
            ),
        ] {
            let wanted = option.clone();
            carry_out(&server, move |ctx| ctx.set_datagram_option(wanted));
            let (told, error) = option_error(&server);
            assert_eq!((&told, error.kind()), (&option, kind), "{error}");
            let text = error.to_string();
            assert!(
                text.contains(part) && text.contains(&option.to_string()),
                "{text}"
            );
            // Asked for as it is bound, it is the bind that fails.
            if !matches!(option, DatagramOption::Leave(..)) && kind != io::ErrorKind::AddrInUse {
                let options = one().option(option);
                let make = || -> talker::Talker { unreachable!("nothing is bound") };
                let bound = server.system.bind_datagram_with("0.0.0.0:0", options, make);
                let error = bound.unwrap_err();
                assert_eq!(error.kind(), kind);
                assert!(error.to_string().contains(part), "{error}");
            }
        }
        assert_eq!(server.system.stats().options_failed, 7);
        let client = client();
        client.send_to(b"hello", (GROUP, server.port())).unwrap();
        assert_eq!(recv(&client).0, b"hello");
    });
}

#[test]
fn multicast_goes_where_and_as_far_as_it_is_told() {
    in_own_network("multicast_goes_where_and_as_far_as_it_is_told", || {
        // A member that asks how many routers a datagram may still pass.
        let member = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        member
            .join_multicast_v4(&"239.77.1.2".parse().unwrap(), &OWN.parse().unwrap())
            .unwrap();
        member.set_read_timeout(Some(TIMEOUT)).unwrap();
        let on: libc::c_int = 1;
        // SAFETY: the value is valid for its size and outlives the call.
        let result = unsafe {
            libc::setsockopt(
                member.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_RECVTTL,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        assert_eq!(result, 0);
        let to = SocketAddr::new(GROUP, member.local_addr().unwrap().port());
        let options = one()
            .option(DatagramOption::MulticastInterface(by_name()))
            .option(DatagramOption::MulticastHops(3))
            .option(DatagramOption::Hops(9));
        for bind in ["0.0.0.0:0", "[::]:0"] {
            let server = Server::with(bind, options.clone(), 1);
            server.tell(move |ctx| {
                ctx.send_to(to, "three");
                ctx.set_datagram_option(DatagramOption::MulticastLoop(false));
                Ok(())
            });
            let own = SocketAddr::new(OWN.parse().unwrap(), to.port());
            server.tell(move |ctx| {
                ctx.send_to(to, "not heard on this machine");
                ctx.send_to(own, "nine");
                ctx.set_datagram_option(DatagramOption::MulticastLoop(true));
                ctx.set_datagram_option(DatagramOption::MulticastHops(1));
                Ok(())
            });
            server.tell(move |ctx| {
                ctx.send_to(to, "one");
                Ok(())
            });
            // Each option holds for what is sent after it, in its own callback and later.
            for (text, ttl) in [("three", 3), ("nine", 9), ("one", 1)] {
                assert_eq!(recv_with_ttl(&member), (text.into(), ttl), "{bind}");
            }
        }
    });
}

/// A datagram, and how many routers it may still pass.
#[track_caller]
fn recv_with_ttl(member: &UdpSocket) -> (Vec<u8>, i32) {
    let (mut bytes, mut control) = (vec![0_u8; 2000], [0_u64; 16]);
    let mut slice = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: made of integers and pointers alone, for which zero is a valid value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: what the header points to is writable for its length and outlives the call.
    let len = unsafe { libc::recvmsg(member.as_raw_fd(), &raw mut header, 0) };
    assert!(len >= 0, "recvmsg: {}", io::Error::last_os_error());
    bytes.truncate(len as usize);
    // SAFETY: the kernel has filled the header in.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    assert!(!first.is_null(), "the kernel tells it");
    // SAFETY: it is the first control message, an int by the one option that is set.
    let ttl = unsafe { libc::CMSG_DATA(first).cast::<i32>().read_unaligned() };
    (bytes, ttl)
}

#[test]
fn an_option_is_set_by_whatever_callback_asks() {
    in_own_network("an_option_is_set_by_whatever_callback_asks", || {
        let server = Server::of("0.0.0.0:0", one(), 1, |events| {
            talker::Talker::with(events, |datagram, ctx| {
                ctx.join_multicast(GROUP, by_name());
                ctx.reply(datagram, "joined");
                Ok(())
            })
        });
        let client = client();
        client.send_to(b"join", (OWN, server.port())).unwrap();
        assert_eq!(recv(&client).0, b"joined");
        client.send_to(b"hello", (GROUP, server.port())).unwrap();
        assert_eq!(recv(&client).0, b"joined", "it is heard");
        // It asks again, and is told that it has.
        assert_eq!(server.heard().bytes, b"join");
        assert_eq!(server.heard().bytes, b"hello");
        assert_eq!(option_error(&server).1.kind(), io::ErrorKind::AddrInUse);
    });
}

#[test]
fn broadcast_is_an_option() {
    in_own_network("broadcast_is_an_option", || {
        let all = SocketAddr::from(([10, 77, 0, 255], 0));
        let server = Server::with("0.0.0.0:0", one(), 1);
        let to = SocketAddr::new(all.ip(), server.port());
        let sender = Server::with(&format!("{OWN}:0"), one(), 1);
        carry_out(&sender, move |ctx| {
            ctx.send_to(to, "not yet");
        });
        match sender.failed() {
            DatagramFailure::NotSent { error, .. } => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            }
            other => panic!("{other:?}"),
        }
        carry_out(&sender, move |ctx| {
            ctx.set_datagram_option(DatagramOption::Broadcast(true));
            ctx.send_to(to, "to all");
        });
        let heard = server.heard();
        assert_eq!(heard.bytes, b"to all");
        assert_eq!(heard.local, to.into());
        assert_eq!(heard.from, *sender.sockets.local_addr());
        // Answered from an address that can be answered from.
        let answer = sender.heard();
        let own = SocketAddr::new(OWN.parse().unwrap(), server.port());
        assert_eq!(
            (answer.bytes, answer.from),
            (b"to all".to_vec(), own.into())
        );
    });
}

#[test]
fn programs_that_share_a_port_all_hear_the_group() {
    in_own_network("programs_that_share_a_port_all_hear_the_group", || {
        let options = one().shared(true).join(GROUP, by_name());
        let first = Server::with("0.0.0.0:0", options.clone(), 1);
        let second = Server::with(&first.addr().to_string(), options, 1);
        let client = client();
        client.send_to(b"hello", (GROUP, first.port())).unwrap();
        for server in [&first, &second] {
            assert_eq!(server.heard().bytes, b"hello");
            assert_eq!(recv(&client).0, b"hello");
        }
    });
}

#[test]
fn an_interface_that_goes_is_told_and_the_socket_goes_on() {
    let name = "an_interface_that_goes_is_told_and_the_socket_goes_on";
    in_own_network(name, || {
        let server = Server::with("0.0.0.0:0", one().join(GROUP, by_name()), 1);
        let gone = Command::new("ip").args(["link", "del", "va"]).status();
        assert!(gone.unwrap().success());
        let to = SocketAddr::from(([10, 77, 0, 9], 9));
        carry_out(&server, move |ctx| {
            ctx.send_to(to, "too late");
        });
        match server.failed() {
            DatagramFailure::NotSent {
                to: Some(not),
                error,
                ..
            } => {
                assert_eq!(not, to.into());
                assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
            }
            other => panic!("{other:?}"),
        }
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(TIMEOUT)).unwrap();
        client
            .send_to(b"hello", ("127.0.0.1", server.port()))
            .unwrap();
        assert_eq!(recv(&client).0, b"hello");
    });
}
