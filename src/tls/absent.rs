//! What stands for TLS where the crate is built without it: types of which there is no value, so
//! that who secures connections needs to know nothing of that.

use std::io::IoSlice;
use std::time::Duration;

mod failure;

pub use failure::{TlsError, TlsErrorKind};

/// As `session::RECORD`.
pub(crate) const RECORD: usize = 1;

/// No listener has one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Server {}

impl Server {
    pub(crate) fn deadline(&self) -> Duration {
        match *self {}
    }

    pub(crate) fn per_turn(&self) -> usize {
        match *self {}
    }
}

/// No connect has one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Client {}

/// No connection has one.
#[derive(Debug)]
pub(crate) enum Session {}

impl Session {
    pub(crate) fn of_server(server: &Server) -> Result<Session, TlsError> {
        match *server {}
    }

    pub(crate) fn of_client(client: &Client, _host: Option<&str>) -> Result<Session, TlsError> {
        match *client {}
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub(crate) fn open(&mut self, _wire: &mut &[u8], _plain: &mut [u8]) -> usize {
        match *self {}
    }

    pub(crate) fn rest(&mut self) {
        match *self {}
    }

    pub(crate) fn peer_has_closed(&self) -> bool {
        match *self {}
    }

    pub(crate) fn take_failure(&mut self) -> Option<TlsError> {
        match *self {}
    }

    pub(crate) fn seal(&mut self, _plain: &[IoSlice<'_>]) -> usize {
        match *self {}
    }

    pub(crate) fn close(&mut self) -> usize {
        match *self {}
    }

    pub(crate) fn gather_own(&mut self) -> usize {
        match *self {}
    }

    pub(crate) fn has_closed(&self) -> bool {
        match *self {}
    }

    pub(crate) fn pending(&self) -> &[u8] {
        match *self {}
    }

    pub(crate) fn waiting(&self) -> usize {
        match *self {}
    }

    pub(crate) fn advance(&mut self, _n: usize) -> usize {
        match *self {}
    }

    pub(crate) fn lend(&mut self, _room: &mut Vec<u8>) {
        match *self {}
    }

    pub(crate) fn give_back(&mut self, _room: &mut Vec<u8>) {
        match *self {}
    }
}
