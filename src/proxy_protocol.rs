//! The PROXY protocol, versions 1 and 2: a proxy says in front of a connection whose it is.
//!
//! The format is that of HAProxy's `proxy-protocol.txt`. Nothing here touches a socket: a header is
//! parsed out of the bytes that are there so far.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use crate::sys::Peer;

/// How a header of version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// How one of version 1 does.
const WORD: &[u8; 6] = b"PROXY ";

/// The longest header of version 1, its end of line included.
const LINE_MAX: usize = 107;

/// Signature, version and command, family and protocol, and the length of the rest.
const FIXED: usize = 16;

/// A listener behind proxies: each connection begins with a header of the PROXY protocol, version 1
/// or 2, that says who the client is. For
/// [`ListenOptions::proxy_protocol`](crate::ListenOptions::proxy_protocol).
///
/// The header is read before the actor is made: the factory closure, and
/// [`Context::peer`](crate::Context::peer), are told the client. Bytes behind the header belong to
/// the actor.
///
/// From a trusted address a header is required. A connection from anywhere else is closed, unless
/// [`allow_direct`](ProxyProtocol::allow_direct) says that it is a client's own; a header from there
/// is never believed. Who connects over a Unix socket is trusted: the permissions of its file say who
/// may.
///
/// A header may also say that the connection is the proxy's own, for a check of health (the command
/// LOCAL), or that it does not know (UNKNOWN, unspecified): then the peer is the one that connected.
/// What a header of version 2 carries besides the addresses (its TLVs) is skipped, and so is the
/// address that the client connected to: [`Context::local_addr`](crate::Context::local_addr) is that
/// of the socket.
///
/// A header that is malformed, longer than [`max_bytes`](ProxyProtocol::max_bytes) or not whole
/// within the [`deadline`](ProxyProtocol::deadline) closes its connection, with no actor ever made
/// and [`Stats::headers_refused`](crate::Stats::headers_refused) counting it; the log says why, at
/// level `debug`. A connection that waits for its header counts as one of its listener. A limit
/// per source ([`max_per_source`](crate::ListenOptions::max_per_source)) goes by the client that the
/// header names; a [choice of a poller](crate::Balance) by the address of the proxy.
///
/// ```
/// use greenroom::{ListenOptions, ProxyProtocol};
///
/// # fn options() -> std::io::Result<ListenOptions> {
/// let proxies = ProxyProtocol::trusting(["10.1.0.0/16", "fd00::5"])?;
/// Ok(ListenOptions::new().proxy_protocol(proxies))
/// # }
/// # options().unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct ProxyProtocol {
    trusted: Vec<Network>,
    pub(crate) allows_direct: bool,
    pub(crate) deadline: Duration,
    pub(crate) max: usize,
}

impl ProxyProtocol {
    /// The proxies are in these networks (`"10.1.0.0/16"`, `"fd00::/8"`) or have these addresses.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, which names the text that is neither.
    pub fn trusting<T: AsRef<str>>(
        networks: impl IntoIterator<Item = T>,
    ) -> io::Result<ProxyProtocol> {
        let networks = networks.into_iter();
        let trusted = networks.map(|network| network.as_ref().parse());
        Ok(ProxyProtocol {
            trusted: trusted.collect::<io::Result<_>>()?,
            allows_direct: false,
            deadline: Duration::from_secs(5),
            max: 4096,
        })
    }

    /// A connection that does not come from a trusted address is a client's own: nothing is read in
    /// front of its bytes, and its peer is who connected. By default it is closed: whoever gets past
    /// the proxies is not to be served.
    #[must_use]
    pub fn allow_direct(mut self) -> ProxyProtocol {
        self.allows_direct = true;
        self
    }

    /// How long the whole header may take, from the accept on. By default 5 seconds: a proxy sends
    /// it with its first packet, which may have to be sent again once or twice.
    #[must_use]
    pub fn deadline(mut self, after: Duration) -> ProxyProtocol {
        self.deadline = after;
        self
    }

    /// How many bytes a header of version 2 may have in all. By default 4,096: the addresses take at
    /// most 232, the rest is for what a proxy adds, up to the names in a certificate. One of version
    /// 1 has 107 at most.
    ///
    /// # Panics
    ///
    /// When it is less than 232: such a header may be one without anything added.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> ProxyProtocol {
        assert!(
            bytes >= FIXED + 216,
            "max_bytes: a header without anything added may have 232 bytes"
        );
        self.max = bytes;
        self
    }

    /// Whether a header from there is to be believed.
    pub(crate) fn trusts(&self, peer: &Peer) -> bool {
        match peer.ip() {
            Some(ip) => self.trusted.iter().any(|network| network.has(ip)),
            None => true,
        }
    }
}

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    addr: IpAddr,
    bits: u8,
}

impl Network {
    fn has(&self, ip: IpAddr) -> bool {
        match (self.addr, ip.to_canonical()) {
            (IpAddr::V4(of), IpAddr::V4(ip)) => {
                let differ = u32::from(of) ^ u32::from(ip);
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(of), IpAddr::V6(ip)) => {
                let differ = u128::from(of) ^ u128::from(ip);
                differ.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Network> {
        let parse = || {
            let (addr, bits) = match text.split_once('/') {
                Some((addr, bits)) => (addr, Some(bits)),
                None => (text, None),
            };
            let addr: IpAddr = addr.parse().ok()?;
            let most = if addr.is_ipv4() { 32 } else { 128 };
            let bits = match bits {
                Some(bits) => bits.parse().ok().filter(|bits| *bits <= most)?,
                None => most,
            };
            // Peers are known as IPv4 also where they came over IPv6.
            Some(match addr.to_canonical() {
                IpAddr::V4(v4) if addr.is_ipv6() && bits >= 96 => Network {
                    addr: v4.into(),
                    bits: bits - 96,
                },
                _ => Network { addr, bits },
            })
        };
        parse().ok_or_else(|| {
            let text = format!(
                "invalid network {text:?}: expected an address, or one and its bits, like \
                 \"10.1.0.0/16\" or \"fd00::/8\""
            );
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }
}

/// What the bytes that are there so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// The beginning of a header.
    Incomplete,
    /// One of this many bytes; the client, unless it is who connected.
    Whole { len: usize, peer: Option<Peer> },
    /// No header, for this reason.
    Malformed(&'static str),
}

impl Header {
    /// Looks for one of at most `max` bytes at the beginning of `bytes`. What is wrong is found as
    /// soon as its byte is there.
    pub(crate) fn parse(bytes: &[u8], max: usize) -> Header {
        if begins(bytes, WORD) {
            Header::parse_line(bytes)
        } else if begins(bytes, SIGNATURE) {
            Header::parse_binary(bytes, max)
        } else {
            Header::Malformed("it begins like none")
        }
    }

    fn parse_line(bytes: &[u8]) -> Header {
        let line = &bytes[..bytes.len().min(LINE_MAX)];
        let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
            return match bytes.len() < LINE_MAX {
                true => Header::Incomplete,
                false => Header::Malformed("its line has no end"),
            };
        };
        let text = line[..end].strip_suffix(b"\r");
        let text = text.and_then(|text| str::from_utf8(text).ok());
        match text.and_then(source_of) {
            Some(peer) => Header::Whole { len: end + 1, peer },
            None => Header::Malformed("its line is none of the protocol's"),
        }
    }

    fn parse_binary(bytes: &[u8], max: usize) -> Header {
        let (Some(command), protocol) = (bytes.get(12), bytes.get(13)) else {
            return Header::Incomplete;
        };
        let is_local = match command {
            0x20 => true,
            0x21 => false,
            _ => return Header::Malformed("its version or command is unknown"),
        };
        let Some(protocol) = protocol else {
            return Header::Incomplete;
        };
        // Of a connection of its own a proxy may say what it likes here.
        let addresses = match protocol {
            _ if is_local => 0,
            0x00 => 0,
            0x11 => 12,
            0x21 => 36,
            0x31 => 216,
            _ => return Header::Malformed("it is not of a stream"),
        };
        let Some(len) = bytes.get(14..FIXED) else {
            return Header::Incomplete;
        };
        let rest = usize::from(u16::from_be_bytes([len[0], len[1]]));
        let len = FIXED + rest;
        if rest < addresses {
            return Header::Malformed("it is too short for its addresses");
        }
        if len > max {
            return Header::Malformed("it is longer than its limit");
        }
        let Some(rest) = bytes.get(FIXED..len) else {
            return Header::Incomplete;
        };
        let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        let peer = match addresses {
            12 => rest
                .first_chunk()
                .map(|ip: &[u8; 4]| tcp(Ipv4Addr::from(*ip), port(8))),
            36 => rest
                .first_chunk()
                .map(|ip: &[u8; 16]| tcp(Ipv6Addr::from(*ip), port(32))),
            216 => Some(Peer::Unix),
            _ => None,
        };
        Header::Whole { len, peer }
    }
}

/// Whether `bytes`, as far as they go, begin with `with`.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let len = bytes.len().min(with.len());
    bytes[..len] == with[..len]
}

/// An IPv4 peer is shown as such.
fn tcp(ip: impl Into<IpAddr>, port: u16) -> Peer {
    Peer::Tcp(SocketAddr::new(ip.into().to_canonical(), port))
}

/// Who the client is, by a line without its end; in it `None` where the proxy does not know.
fn source_of(line: &str) -> Option<Option<Peer>> {
    let mut words = line.split(' ');
    words.next().filter(|word| *word == "PROXY")?;
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows is to be passed over.
        return Some(None);
    }
    let ip = |word: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => word.parse().ok().map(IpAddr::V4),
            "TCP6" => word.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let from = ip(words.next()?)?;
    ip(words.next()?)?;
    let from_port = port(words.next()?)?;
    port(words.next()?)?;
    words.next().is_none().then_some(Some(tcp(from, from_port)))
}

/// As the protocol writes one: without a sign, and without a zero in front.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let has_zero = word.len() > 1 && word.starts_with('0');
    (is_plain && !has_zero).then(|| word.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header of version 2 without its signature's neighbours: command, family, and the rest.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    fn peer(text: &str) -> Option<Peer> {
        Some(Peer::Tcp(text.parse().unwrap()))
    }

    /// Whole headers, and who they say the client is.
    fn good() -> Vec<(Vec<u8>, Option<Peer>)> {
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x34, 0, 80];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[15] = 9;
        v6[32..34].copy_from_slice(&443_u16.to_be_bytes());
        let mut mapped = [0; 36];
        mapped[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7]);
        mapped[33] = 1;
        let mut with_more = v4.to_vec();
        with_more.extend([0x04, 0, 3, 1, 2, 3]);
        let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                       ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        let unknown = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_MAX - 16));
        assert_eq!(unknown.len(), LINE_MAX);
        let line = |text: &str| text.as_bytes().to_vec();
        vec![
            (
                line("PROXY TCP4 192.0.2.7 198.51.100.1 4660 80\r\n"),
                peer("192.0.2.7:4660"),
            ),
            (
                line("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"),
                peer("0.0.0.0:0"),
            ),
            (
                line("PROXY TCP6 2001:db8::9 ::1 443 80\r\n"),
                peer("[2001:db8::9]:443"),
            ),
            (
                line(longest),
                peer("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
            ),
            (
                line("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n"),
                peer("192.0.2.7:1"),
            ),
            (line("PROXY UNKNOWN\r\n"), None),
            (line(&unknown), None),
            (binary(0x21, 0x11, &v4), peer("192.0.2.7:4660")),
            (binary(0x21, 0x11, &with_more), peer("192.0.2.7:4660")),
            (binary(0x21, 0x21, &v6), peer("[2001:db8::9]:443")),
            (binary(0x21, 0x21, &mapped), peer("192.0.2.7:1")),
            (binary(0x21, 0x31, &[b'/'; 216]), Some(Peer::Unix)),
            (binary(0x21, 0x00, &[]), None),
            (binary(0x21, 0x00, &[9; 40]), None),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x20, 0x11, &v4), None),
            (binary(0x20, 0x77, &[1; 3]), None),
            (binary(0x21, 0x11, &[7; 4096 - FIXED]), peer("7.7.7.7:1799")),
        ]
    }

    #[test]
    fn a_header_is_whole_at_its_last_byte_and_what_follows_is_not_looked_at() {
        for (bytes, peer) in good() {
            for len in 0..bytes.len() {
                let parsed = Header::parse(&bytes[..len], 4096);
                assert_eq!(parsed, Header::Incomplete, "{len} of {bytes:?}");
            }
            let len = bytes.len();
            let whole = Header::Whole { len, peer };
            assert_eq!(Header::parse(&bytes, 4096), whole);
            for more in [&b"x"[..], b"\r\n", b"PROXY ", &bytes] {
                let longer = [&bytes, more].concat();
                assert_eq!(Header::parse(&longer, 4096), whole);
            }
        }
    }

    #[test]
    fn what_is_none_is_said_to_be_none() {
        let long_unknown = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_MAX - 15));
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY\r\n",
            "PROXY \r\n",
            "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
            "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            "proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 \u{661}\r\n",
            &long_unknown,
        ] {
            let parsed = Header::parse(line.as_bytes(), 4096);
            assert!(matches!(parsed, Header::Malformed(_)), "{line:?}");
        }
        for bytes in [
            binary(0x11, 0x11, &[0; 12]),
            binary(0x22, 0x11, &[0; 12]),
            binary(0x21, 0x12, &[0; 12]),
            binary(0x21, 0x22, &[0; 36]),
            binary(0x21, 0x41, &[0; 36]),
            binary(0x21, 0x11, &[0; 11]),
            binary(0x21, 0x21, &[0; 35]),
            binary(0x21, 0x31, &[0; 215]),
            binary(0x21, 0x11, &[0; 4097 - FIXED]),
        ] {
            let parsed = Header::parse(&bytes, 4096);
            assert!(matches!(parsed, Header::Malformed(_)), "{bytes:?}");
        }
        // Without waiting for a byte that changes nothing.
        for bytes in [&b"X"[..], b"PROXZ", b"\r\n\r\n\0\r\nQUIS", b"PROXY x\n"] {
            let parsed = Header::parse(bytes, 4096);
            assert!(matches!(parsed, Header::Malformed(_)), "{bytes:?}");
        }
        let endless = [&b"PROXY "[..], &[b'x'; 101]].concat();
        let parsed = Header::parse(&endless, 4096);
        assert!(matches!(parsed, Header::Malformed(_)));
    }

    #[test]
    fn networks_have_the_addresses_that_begin_as_they_do() {
        for (network, inside, outside) in [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.2"),
            ("10.1.2.3/31", "10.1.2.2", "10.1.2.4"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("::/0", "fe80::1", "1.2.3.4"),
            ("fd00::/8", "fdff::1", "fe00::"),
            ("::1", "::1", "::2"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("::ffff:10.1.0.0/112", "10.1.255.255", "10.2.0.0"),
            ("::ffff:10.1.2.3", "10.1.2.3", "10.1.2.2"),
            ("::ffff:0.0.0.0/96", "10.1.2.3", "::1"),
        ] {
            let proxies = ProxyProtocol::trusting([network]).unwrap();
            for (ip, is_inside) in [(inside, true), (outside, false)] {
                let peer = Peer::Tcp(SocketAddr::new(ip.parse().unwrap(), 1));
                assert_eq!(proxies.trusts(&peer), is_inside, "{ip} in {network}");
            }
        }
        let nobody = ProxyProtocol::trusting(Vec::<String>::new()).unwrap();
        assert!(nobody.trusts(&Peer::Unix));
        for wrong in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "host",
            "10.0.0.0/-1",
            "10/8",
        ] {
            let error = ProxyProtocol::trusting([wrong]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&format!("{wrong:?}")), "{error}");
        }
    }

    proptest! {
        /// Nor does what is found depend on how much has come, once it is found.
        #[test]
        fn no_bytes_are_too_much_for_it(
            which in 0..18_usize,
            changes in prop::collection::vec((0..300_usize, any::<u8>()), 0..4),
            more in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let (mut bytes, _) = good().swap_remove(which);
            for (at, byte) in changes {
                let len = bytes.len();
                bytes[at % len] = byte;
            }
            bytes.extend(more);
            let mut found: Option<Header> = None;
            for len in 0..=bytes.len() {
                let now = Header::parse(&bytes[..len], 4096);
                match found {
                    Some(before) => prop_assert_eq!(before, now),
                    None if now == Header::Incomplete => {}
                    None => found = Some(now),
                }
                if let Header::Whole { len: whole, .. } = now {
                    prop_assert!(whole <= len && whole <= 4096);
                }
            }
        }
    }
}
