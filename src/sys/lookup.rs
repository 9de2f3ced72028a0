//! Names of hosts.

use std::ffi::{CStr, CString};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::ptr;

use libc::{SOCK_STREAM, c_int, socklen_t};

use super::addr::{Peer, SockAddr};
use super::simulated::{Network, Process};

/// That a name has no address, where the system tells that from "there is no such name".
#[cfg(target_os = "linux")]
const NO_ADDRESS: c_int = libc::EAI_NODATA;
#[cfg(not(target_os = "linux"))]
const NO_ADDRESS: c_int = libc::EAI_NONAME;

/// Why a name has led to no address.
#[derive(Debug)]
pub(crate) struct LookupError {
    /// There is no such name, or it has no address; else it is not known whether there is.
    pub(crate) is_unknown: bool,
    pub(crate) error: io::Error,
}

/// The addresses of a host, in the order in which they are to be tried. Blocks, for as long as the
/// system's resolver does, which may be minutes; not on a simulated network.
pub(crate) fn look_up(
    host: &str,
    port: u16,
    simulated: Option<Process>,
) -> Result<Vec<SocketAddr>, LookupError> {
    if simulated.is_some() {
        let found = Network::with(|network| network.look_up(host))?;
        return Ok(found.into_iter().map(|ip| (ip, port).into()).collect());
    }
    // A name has no NUL; if this one has, there is no such name.
    let name = CString::new(host).map_err(|error| LookupError {
        is_unknown: true,
        error: error.into(),
    })?;
    // SAFETY: made of integers and pointers alone, for which zero is a valid value.
    let mut hints: libc::addrinfo = unsafe { mem::zeroed() };
    // One entry for each address, not one for each kind of socket.
    hints.ai_socktype = SOCK_STREAM;
    let mut first = ptr::null_mut();
    // SAFETY: the name and the hints are valid, `first` is writable, and all of them outlive the
    // call. No service is asked for.
    let result =
        unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &raw const hints, &raw mut first) };
    if result != 0 {
        return Err(failed(result));
    }
    let list = List(first);
    let mut found = Vec::new();
    let mut next = list.0;
    // SAFETY: null, or an entry of the list, which is not freed before its drop.
    while let Some(entry) = unsafe { next.as_ref() } {
        if let Some(mut addr) = addr_of(entry) {
            addr.set_port(port);
            found.push(addr);
        }
        next = entry.ai_next;
    }
    Ok(found)
}

/// What getaddrinfo has found.
struct List(*mut libc::addrinfo);

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: getaddrinfo has made it, and it is freed once.
        unsafe { libc::freeaddrinfo(self.0) };
    }
}

fn addr_of(entry: &libc::addrinfo) -> Option<SocketAddr> {
    let copied = SockAddr::filled_by(|addr, len| {
        // SAFETY: `addr` is writable for as many bytes as `len` says, and the entry's address is
        // readable for as many as it says itself.
        unsafe {
            let bytes = entry.ai_addrlen.min(*len);
            ptr::copy_nonoverlapping(
                entry.ai_addr.cast::<u8>(),
                addr.cast::<u8>(),
                bytes as usize,
            );
            *len = bytes as socklen_t;
        }
        Ok(())
    });
    match copied.ok()?.1.to_peer() {
        Ok(Peer::Tcp(addr)) => Some(addr),
        _ => None,
    }
}

/// What getaddrinfo's number stands for.
fn failed(number: c_int) -> LookupError {
    let error = if number == libc::EAI_SYSTEM {
        io::Error::last_os_error()
    } else {
        // SAFETY: the text is a constant of the C library, with a NUL at its end.
        let text = unsafe { CStr::from_ptr(libc::gai_strerror(number)) };
        io::Error::other(text.to_string_lossy().into_owned())
    };
    LookupError {
        is_unknown: number == libc::EAI_NONAME || number == NO_ADDRESS,
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_this_machine_leads_to_it() {
        let found = look_up("localhost", 80, None).unwrap();
        assert!(!found.is_empty());
        for addr in found {
            assert!(addr.ip().is_loopback());
            assert_eq!(addr.port(), 80);
        }
    }

    #[test]
    fn a_number_is_looked_up_without_a_name_server() {
        let found = look_up("127.1", 7, None).unwrap();
        assert_eq!(found, ["127.0.0.1:7".parse().unwrap()]);
    }

    #[test]
    fn a_name_that_cannot_be_is_unknown() {
        assert!(look_up("a\0b", 7, None).unwrap_err().is_unknown);
    }

    #[test]
    fn errors_are_told_apart() {
        assert!(failed(libc::EAI_NONAME).is_unknown);
        let again = failed(libc::EAI_AGAIN);
        assert!(!again.is_unknown);
        assert!(!again.error.to_string().is_empty());
    }
}
