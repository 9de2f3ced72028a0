//! What a service sees of a request.

use std::fmt;

use crate::http::head::{Fields, Head, after_scheme, split_authority};

/// A request: what its head says, and its body where that was collected.
///
/// It is a borrow of the bytes that arrived; what is to be kept is copied. Nothing in it is decoded:
/// a path has its percent signs.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub(super) fields: Fields<'a, 'a>,
    pub(super) head: Head,
    pub(super) body: &'a [u8],
    pub(super) id: u64,
}

impl<'a> Request<'a> {
    /// Its number on this connection, counted from 0: that of its
    /// [`Responder`](super::Responder::id), and the same in [`body`](super::Service::body).
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The method, as it was sent: `GET`.
    pub fn method(&self) -> &'a str {
        self.fields.method
    }

    /// The target, as it was sent: nearly always a path, perhaps with a query; a whole URL from
    /// clients that take this for a proxy; `*`.
    pub fn target(&self) -> &'a str {
        self.fields.target
    }

    /// The path of the target, without its query; `/` where a URL has none.
    pub fn path(&self) -> &'a str {
        let path = self.path_and_query();
        match path.split_once('?') {
            Some(("", _)) => "/",
            Some((path, _)) => path,
            None => path,
        }
    }

    /// What stands behind the question mark of the target.
    pub fn query(&self) -> Option<&'a str> {
        Some(self.path_and_query().split_once('?')?.1)
    }

    fn path_and_query(&self) -> &'a str {
        match after_scheme(self.fields.target).map(split_authority) {
            Some((_, "")) => "/",
            Some((_, rest)) => rest,
            None => self.fields.target,
        }
    }

    /// The host that is meant, perhaps with a port: that of a target that is a URL, or else what the
    /// field `Host` says. A client of HTTP/1.0 need not name one.
    pub fn host(&self) -> Option<&'a str> {
        match after_scheme(self.fields.target).map(split_authority) {
            Some((authority, _)) => Some(authority),
            None => self
                .header("host")
                .and_then(|host| std::str::from_utf8(host).ok()),
        }
    }

    /// The value of the first header field of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let mut found = self
            .headers()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name));
        Some(found.next()?.1)
    }

    /// The header fields in their order. White space around values is not part of them.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let headers = self.fields.headers.iter();
        headers.map(|header| (header.name, header.value))
    }

    /// Whether it came by HTTP/1.0; otherwise it is HTTP/1.1.
    pub fn is_http_1_0(&self) -> bool {
        self.head.is_old
    }

    /// Whether it asks for another protocol, which [`Responder::upgrade`](super::Responder::upgrade)
    /// may begin: `Connection: Upgrade`, without `close`, and an `Upgrade`.
    pub fn wants_upgrade(&self) -> bool {
        self.head.upgrades
    }

    /// Whether a body comes with it or behind it.
    pub fn has_body(&self) -> bool {
        !self.head.body.is_zero()
    }

    /// The length of its body, where that is told beforehand.
    pub fn content_length(&self) -> Option<u64> {
        match self.head.body {
            super::head::Length::Bytes(length) => Some(length),
            super::head::Length::Chunked => None,
        }
    }

    /// Its body. Empty where it has none, and where it comes piece by piece
    /// ([`Intake::Stream`](super::Intake::Stream)).
    pub fn body(&self) -> &'a [u8] {
        self.body
    }
}

/// Without values of header fields, which may be secret.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method())
            .field("target", &self.target())
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}
