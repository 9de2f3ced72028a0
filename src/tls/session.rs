//! One connection's TLS, without a socket: ciphertext goes in and comes out as bytes.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice, Read, Write};

use rustls::{Connection, Error};

use super::failure::{TlsError, TlsErrorKind};
use super::{Client, Server, TlsInfo};

/// Plaintext that goes into one record: as much as one may have.
pub(crate) const RECORD: usize = 16 << 10;

/// Pieces of which room is kept between two writes.
const PIECES_KEPT: usize = 8;

/// One connection as TLS sees it.
pub(crate) struct Session {
    connection: Connection,
    /// Ciphertext for the peer, that before `sent` already taken.
    wire: Vec<u8>,
    sent: usize,
    /// What the ciphertext stands for, in order.
    pieces: VecDeque<Piece>,
    /// No record was good from here on.
    failure: Option<TlsError>,
    /// The peer has said that nothing follows.
    peer_has_closed: bool,
    /// ... and so have we: no record may follow that.
    has_closed: bool,
}

/// Ciphertext that counts when all of it has been taken.
#[derive(Debug)]
struct Piece {
    wire: usize,
    counts: usize,
}

impl Session {
    /// For a connection that was accepted.
    pub(crate) fn of_server(server: &Server) -> Result<Session, TlsError> {
        let accepted = server.accept();
        let accepted = accepted.map_err(|error| TlsError::of(TlsErrorKind::Local, error))?;
        Ok(Session::new(accepted.into()))
    }

    /// For a connection that was made, to the host of this name or address.
    pub(crate) fn of_client(client: &Client, host: Option<&str>) -> Result<Session, TlsError> {
        let connected = client.connect(host);
        let connected = connected.map_err(|error| TlsError::of(TlsErrorKind::Local, error))?;
        let mut session = Session::new(connected.into());
        session.gather(None);
        Ok(session)
    }

    fn new(connection: Connection) -> Session {
        Session {
            connection,
            wire: Vec::new(),
            sent: 0,
            pieces: VecDeque::new(),
            failure: None,
            peer_has_closed: false,
            has_closed: false,
        }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// What was agreed on; whole once the handshake is done.
    pub(crate) fn info(&self) -> TlsInfo<'_> {
        TlsInfo::of(&self.connection)
    }

    // ---- from the peer --------------------------------------------------------------------------

    /// Takes in ciphertext and puts plaintext into `plain`, until there is no more of the one or no
    /// more room in the other; how much plaintext there was. Where it fills the room there may be
    /// more.
    ///
    /// Behind a bad record, and behind the peer's end, nothing comes.
    pub(crate) fn open(&mut self, wire: &mut &[u8], plain: &mut [u8]) -> usize {
        let mut len = 0;
        loop {
            while len < plain.len() {
                // An end or an error of its reader is told by what is looked at below.
                match self.connection.reader().read(&mut plain[len..]) {
                    Ok(read) if read > 0 => len += read,
                    _ => break,
                }
            }
            if len == plain.len() || wire.is_empty() || self.has_ended() {
                return len;
            }
            let taken = self.connection.read_tls(wire);
            match self.connection.process_new_packets() {
                Ok(state) => self.peer_has_closed = state.peer_has_closed(),
                Err(error) => self.failure = Some(self.failed_by(error)),
            }
            if !matches!(taken, Ok(taken) if taken > 0) && !self.has_ended() {
                // A message that is longer than rustls takes.
                self.failure = Some(TlsError::new(TlsErrorKind::Misbehaved));
            }
        }
    }

    /// Nothing more is likely to come at once. What rustls has grown its buffer to for large records
    /// it gives back, but for 4 KiB, only when it is about to read again.
    pub(crate) fn rest(&mut self) {
        struct Nothing;
        impl Read for Nothing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
        let nothing = self.connection.read_tls(&mut Nothing);
        debug_assert!(!matches!(nothing, Ok(1..)));
    }

    /// Whether nothing comes any more: the peer has said so, or a record was bad.
    fn has_ended(&self) -> bool {
        self.peer_has_closed || self.failure.is_some()
    }

    /// The peer has closed its side in order.
    pub(crate) fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// What went wrong, once.
    pub(crate) fn take_failure(&mut self) -> Option<TlsError> {
        self.failure.take()
    }

    fn failed_by(&self, error: Error) -> TlsError {
        let is_begun = !self.connection.is_handshaking();
        let kind = match &error {
            Error::AlertReceived(_) => TlsErrorKind::Alert,
            Error::InvalidCertificate(_)
            | Error::NoCertificatesPresented
            | Error::UnsupportedNameType
            | Error::InvalidCertRevocationList(_) => TlsErrorKind::Certificate,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => TlsErrorKind::Incompatible,
            Error::DecryptError | Error::PeerSentOversizedRecord => TlsErrorKind::BadRecord,
            Error::InvalidMessage(_) if is_begun => TlsErrorKind::BadRecord,
            Error::InvalidMessage(_) => TlsErrorKind::NotTls,
            Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. } => TlsErrorKind::Misbehaved,
            _ => TlsErrorKind::Local,
        };
        TlsError::of(kind, error)
    }

    // ---- to the peer ----------------------------------------------------------------------------

    /// Encrypts the beginning of this plaintext, one record's worth of it; how much.
    ///
    /// The handshake is done, and the end was not said.
    pub(crate) fn seal(&mut self, plain: &[IoSlice<'_>]) -> usize {
        debug_assert!(!self.has_closed && !self.is_handshaking());
        // It takes what its limit has room for, and everything was gathered before.
        let sealed = self.connection.writer().write_vectored(plain).unwrap_or(0);
        self.gather(Some(sealed));
        sealed
    }

    /// Says that nothing follows, behind all that was sealed; for how much that counts.
    pub(crate) fn close(&mut self) -> usize {
        self.connection.send_close_notify();
        let counts = self.gather(None);
        self.has_closed = true;
        counts
    }

    /// Takes over what the protocol itself has to say: of a handshake, an answer to the peer, an
    /// alert. For how much that counts: each byte for one.
    pub(crate) fn gather_own(&mut self) -> usize {
        self.gather(None)
    }

    fn gather(&mut self, plain: Option<usize>) -> usize {
        if !self.connection.wants_write() {
            return 0;
        }
        let before = self.wire.len();
        while self.connection.wants_write() {
            // A vector takes everything.
            let written = self.connection.write_tls(&mut self.wire);
            debug_assert!(matches!(written, Ok(written) if written > 0));
        }
        if self.has_closed {
            self.wire.truncate(before);
            return 0;
        }
        let wire = self.wire.len() - before;
        let counts = plain.unwrap_or(wire);
        self.pieces.push_back(Piece { wire, counts });
        counts
    }

    /// Whether the end was said.
    pub(crate) fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// The ciphertext that is to leave.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.wire[self.sent..]
    }

    /// For how much of what was sealed all of it counts.
    pub(crate) fn waiting(&self) -> usize {
        self.pieces.iter().map(|piece| piece.counts).sum()
    }

    /// The socket has taken the first `n` bytes of it; for how much of what was sealed that counts.
    pub(crate) fn advance(&mut self, mut n: usize) -> usize {
        self.sent += n;
        if self.sent == self.wire.len() {
            self.sent = 0;
            self.wire.clear();
        }
        let mut counts = 0;
        while let Some(piece) = self.pieces.front_mut() {
            let step = n.min(piece.wire);
            piece.wire -= step;
            n -= step;
            if piece.wire > 0 {
                break;
            }
            counts += piece.counts;
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() {
            self.pieces.shrink_to(PIECES_KEPT);
        }
        counts
    }

    /// Lends room for ciphertext that is about to be sealed, to one that has none.
    pub(crate) fn lend(&mut self, room: &mut Vec<u8>) {
        if self.wire.is_empty() && self.wire.capacity() < room.capacity() {
            std::mem::swap(&mut self.wire, room);
        }
    }

    /// Gives such room back, once all has left.
    pub(crate) fn give_back(&mut self, room: &mut Vec<u8>) {
        if self.wire.is_empty() {
            let unused = std::mem::take(&mut self.wire);
            if unused.capacity() > room.capacity() {
                *room = unused;
            }
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("is_handshaking", &self.is_handshaking())
            .field("pending", &self.pending().len())
            .finish_non_exhaustive()
    }
}
