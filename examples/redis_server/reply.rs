//! Replies as RESP2 writes them.

use bytes::Bytes;
use greenroom::Context;

use crate::Client;
use crate::resp::ProtocolError;

/// From this length on a value is handed over as it is instead of copied.
const SHARED_MIN: usize = 1024;

pub(crate) struct Reply<'a, 'b> {
    pub(crate) ctx: &'a mut Context<'b, Client>,
}

impl Reply<'_, '_> {
    /// As it is on the wire.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.ctx.write(bytes);
    }

    pub(crate) fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    pub(crate) fn nil(&mut self) {
        self.raw(b"$-1\r\n");
    }

    pub(crate) fn error(&mut self, text: &[u8]) {
        self.ctx.write_parts(&[b"-", text, b"\r\n"]);
    }

    /// The last reply: nobody knows where the next command begins.
    pub(crate) fn fatal(&mut self, error: ProtocolError) {
        self.error(format!("ERR {error}").as_bytes());
        self.ctx.close();
    }

    pub(crate) fn integer(&mut self, number: i64) {
        self.number(b":", number);
    }

    /// So many replies follow as one.
    pub(crate) fn array(&mut self, len: usize) {
        self.number(b"*", len as i64);
    }

    pub(crate) fn bulk(&mut self, bytes: &[u8]) {
        let mut digits = itoa::Buffer::new();
        let len = digits.format(bytes.len()).as_bytes();
        self.ctx.write_parts(&[b"$", len, b"\r\n", bytes, b"\r\n"]);
    }

    pub(crate) fn value(&mut self, value: Option<&Bytes>) {
        match value {
            None => self.nil(),
            Some(value) if value.len() < SHARED_MIN => self.bulk(value),
            Some(value) => {
                self.number(b"$", value.len() as i64);
                self.ctx.write_bytes(value.clone());
                self.raw(b"\r\n");
            }
        }
    }

    fn number(&mut self, kind: &[u8], number: i64) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number).as_bytes();
        self.ctx.write_parts(&[kind, digits, b"\r\n"]);
    }
}
