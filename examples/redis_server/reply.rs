//! Replies as RESP2 and RESP3 write them.

use bytes::Bytes;
use greenroom::Context;

use super::client::Client;

/// From this length on a value is handed over as it is instead of copied.
const SHARED_MIN: usize = 1024;

pub(crate) struct Reply<'a, 'b> {
    pub(crate) ctx: &'a mut Context<'b, Client>,
    pub(crate) is_resp3: bool,
    /// The client wants none (CLIENT REPLY).
    pub(crate) is_muted: bool,
}

impl Reply<'_, '_> {
    /// As it is on the wire.
    #[inline]
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        if !self.is_muted {
            self.ctx.write(bytes);
        }
    }

    #[inline]
    fn parts(&mut self, parts: &[&[u8]]) {
        if !self.is_muted {
            self.ctx.write_parts(parts);
        }
    }

    pub(crate) fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// A word of our own: it must be one line.
    pub(crate) fn status(&mut self, text: &str) {
        self.parts(&[b"+", text.as_bytes(), b"\r\n"]);
    }

    pub(crate) fn nil(&mut self) {
        let nil: &[u8] = if self.is_resp3 { b"_\r\n" } else { b"$-1\r\n" };
        self.raw(nil);
    }

    /// Where there would be an array.
    pub(crate) fn nil_array(&mut self) {
        let nil: &[u8] = if self.is_resp3 { b"_\r\n" } else { b"*-1\r\n" };
        self.raw(nil);
    }

    pub(crate) fn error(&mut self, text: &[u8]) {
        self.parts(&[b"-", text, b"\r\n"]);
    }

    pub(crate) fn integer(&mut self, number: i64) {
        self.number(b":", number);
    }

    /// So many replies follow as one.
    pub(crate) fn array(&mut self, len: usize) {
        self.number(b"*", len as i64);
    }

    /// So many pairs follow as one.
    pub(crate) fn map(&mut self, len: usize) {
        if self.is_resp3 {
            self.number(b"%", len as i64);
        } else {
            self.array(len * 2);
        }
    }

    /// So many replies follow as one, in no order.
    pub(crate) fn set(&mut self, len: usize) {
        let kind = if self.is_resp3 { b"~" } else { b"*" };
        self.number(kind, len as i64);
    }

    /// So many replies follow as one that answers no command.
    pub(crate) fn push(&mut self, len: usize) {
        let kind = if self.is_resp3 { b">" } else { b"*" };
        self.number(kind, len as i64);
    }

    #[inline]
    pub(crate) fn bulk(&mut self, bytes: &[u8]) {
        let mut digits = itoa::Buffer::new();
        let len = digits.format(bytes.len()).as_bytes();
        self.parts(&[b"$", len, b"\r\n", bytes, b"\r\n"]);
    }

    /// Text to be shown as it is.
    pub(crate) fn text(&mut self, text: &str) {
        if self.is_resp3 {
            let len = (text.len() + 4).to_string();
            self.parts(&[b"=", len.as_bytes(), b"\r\ntxt:", text.as_bytes(), b"\r\n"]);
        } else {
            self.bulk(text.as_bytes());
        }
    }

    #[inline]
    pub(crate) fn value(&mut self, value: Option<&Bytes>) {
        match value {
            None => self.nil(),
            Some(value) if value.len() < SHARED_MIN => self.bulk(value),
            Some(value) if !self.is_muted => {
                self.number(b"$", value.len() as i64);
                self.ctx.write_bytes(value.clone());
                self.raw(b"\r\n");
            }
            Some(_) => {}
        }
    }

    #[inline]
    fn number(&mut self, kind: &[u8], number: i64) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number).as_bytes();
        self.parts(&[kind, digits, b"\r\n"]);
    }
}
