//! CLIENT: who is connected.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use greenroom::{Endpoint, Peer};

use super::super::client::{Replies, Session};
use super::super::resp::integer;
use super::super::server::{Card, Server};
use super::{Answered, Call, Refusal, SYNTAX, is, name_of};

/// What stands between spaces in a list has none itself.
fn check_name(name: &[u8], refusal: &'static str) -> Result<Bytes, Refusal> {
    if name.iter().all(u8::is_ascii_graphic) {
        Ok(Bytes::copy_from_slice(name))
    } else {
        Err(refusal.as_bytes().into())
    }
}

pub(super) fn set_name(session: &Session, name: &[u8]) -> Answered {
    let refusal = "ERR Client names cannot contain spaces, newlines or special characters.";
    session.card.names().client = check_name(name, refusal)?;
    Ok(())
}

pub(super) fn client_id(call: &mut Call<'_, '_, '_>) -> Answered {
    call.reply.integer(call.session.card.id as i64);
    Ok(())
}

pub(super) fn client_getname(call: &mut Call<'_, '_, '_>) -> Answered {
    let name = call.session.card.names().client.clone();
    call.reply
        .value(Some(&name).filter(|name| !name.is_empty()));
    Ok(())
}

pub(super) fn client_setname(call: &mut Call<'_, '_, '_>) -> Answered {
    set_name(call.session, call.args[2])?;
    call.reply.ok();
    Ok(())
}

pub(super) fn client_setinfo(call: &mut Call<'_, '_, '_>) -> Answered {
    let text = call.args[3];
    let mut names = call.session.card.names();
    if call.is(2, "LIB-NAME") {
        let refusal = "ERR LIB-NAME cannot contain spaces, newlines or special characters.";
        names.library = check_name(text, refusal)?;
    } else if call.is(2, "LIB-VER") {
        let refusal = "ERR LIB-VER cannot contain spaces, newlines or special characters.";
        names.version = check_name(text, refusal)?;
    } else {
        let option = super::shorten(call.args[2], usize::MAX);
        let text = [b"ERR Unrecognized option '", option, b"'"].concat();
        return Err(super::one_line(text));
    }
    drop(names);
    call.reply.ok();
    Ok(())
}

/// Where the client came to, as far as is known.
fn local_addr(server: &Server) -> String {
    match server.endpoint.get() {
        Some(Endpoint::Tcp(addr)) => addr.to_string(),
        Some(other) => format!("{}:0", other.to_string().trim_start_matches("unix:")),
        None => String::new(),
    }
}

fn peer_addr(card: &Card, server: &Server) -> String {
    match card.peer {
        Peer::Tcp(addr) => addr.to_string(),
        _ => local_addr(server),
    }
}

fn line(card: &Card, server: &Server, now: i64) -> String {
    let get = |number: &std::sync::atomic::AtomicU32| number.load(Ordering::Relaxed);
    let queued = card.queued.load(Ordering::Relaxed);
    let mut flags = String::new();
    for (is_set, letter) in [
        (card.is_subscriber(), 'P'),
        (queued >= 0, 'x'),
        (matches!(card.peer, Peer::Unix), 'U'),
    ] {
        flags.extend(is_set.then_some(letter));
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let names = card.names().clone();
    let mut line = String::new();
    let _ = write!(
        line,
        "id={} addr={} laddr={} name={} age={} idle={} flags={flags} db={} sub={} psub={} \
         multi={queued} watch={} cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
        card.id,
        peer_addr(card, server),
        local_addr(server),
        String::from_utf8_lossy(&names.client),
        now - card.since.load(Ordering::Relaxed),
        now - card.active.load(Ordering::Relaxed),
        card.db.load(Ordering::Relaxed),
        get(&card.channels),
        get(&card.patterns),
        get(&card.watched),
        name_of(card.command.load(Ordering::Relaxed)),
        2 + card.is_resp3.load(Ordering::Relaxed),
        String::from_utf8_lossy(&names.library),
        String::from_utf8_lossy(&names.version),
    );
    line.push('\n');
    line
}

pub(super) fn client_info(call: &mut Call<'_, '_, '_>) -> Answered {
    let now = call.server.seconds(call.reply.ctx.now());
    let line = line(&call.session.card, call.server, now);
    call.reply.text(&line);
    Ok(())
}

pub(super) fn client_list(call: &mut Call<'_, '_, '_>) -> Answered {
    let (mut only, mut of_type) = (None, Type::Any);
    match call.args {
        [_, _] => {}
        [_, _, option, kind] if is(option, "TYPE") => of_type = Type::parse(kind)?,
        [_, _, option, ids @ ..] if is(option, "ID") && !ids.is_empty() => {
            let ids: Option<Vec<i64>> = ids.iter().map(|id| integer(id)).collect();
            only = Some(ids.ok_or(b"ERR Invalid client ID".as_slice())?);
        }
        _ => return Err(SYNTAX),
    }
    let now = call.server.seconds(call.reply.ctx.now());
    let mut lines = String::new();
    for (_, card) in call.server.clients.all() {
        let is_asked_for = only
            .as_ref()
            .is_none_or(|ids| ids.contains(&(card.id as i64)));
        if is_asked_for && of_type.holds(&card) {
            lines += &line(&card, call.server, now);
        }
    }
    call.reply.text(&lines);
    Ok(())
}

#[derive(Clone, Copy)]
enum Type {
    Any,
    Normal,
    Subscriber,
    /// Replicas and their masters, of which there are none.
    None,
}

impl Type {
    fn parse(word: &[u8]) -> Result<Type, Refusal> {
        match &*word.to_ascii_lowercase() {
            b"normal" => Ok(Type::Normal),
            b"pubsub" => Ok(Type::Subscriber),
            b"master" | b"replica" | b"slave" => Ok(Type::None),
            _ => {
                let word = super::shorten(word, usize::MAX);
                let text = [b"ERR Unknown client type '", word, b"'"].concat();
                Err(super::one_line(text))
            }
        }
    }

    fn holds(self, card: &Card) -> bool {
        match self {
            Type::Any => true,
            Type::Normal => !card.is_subscriber(),
            Type::Subscriber => card.is_subscriber(),
            Type::None => false,
        }
    }
}

/// Who is to be closed: those of whom all of this holds.
struct Victims<'a> {
    id: Option<i64>,
    addr: Option<&'a [u8]>,
    local: Option<&'a [u8]>,
    of_type: Type,
    spares_self: bool,
    is_nobody: bool,
}

impl<'a> Victims<'a> {
    fn parse(filters: &[&'a [u8]]) -> Result<Victims<'a>, Refusal> {
        let mut victims = Victims {
            id: None,
            addr: None,
            local: None,
            of_type: Type::Any,
            spares_self: true,
            is_nobody: false,
        };
        for filter in filters.chunks(2) {
            let [name, value] = *filter else {
                return Err(SYNTAX);
            };
            match &*name.to_ascii_uppercase() {
                b"ID" => {
                    let id = integer(value).filter(|id| *id > 0);
                    victims.id =
                        Some(id.ok_or(b"ERR client-id should be greater than 0".as_slice())?);
                }
                b"ADDR" => victims.addr = Some(value),
                b"LADDR" => victims.local = Some(value),
                b"TYPE" => victims.of_type = Type::parse(value)?,
                b"USER" if value == b"default" => {}
                b"USER" => {
                    let value = super::shorten(value, usize::MAX);
                    let text = [b"ERR No such user '", value, b"'"].concat();
                    return Err(super::one_line(text));
                }
                b"SKIPME" if is(value, "yes") => victims.spares_self = true,
                b"SKIPME" if is(value, "no") => victims.spares_self = false,
                _ => return Err(SYNTAX),
            }
        }
        Ok(victims)
    }

    fn has(&self, card: &Card, server: &Server, own: u64) -> bool {
        let is_at = |addr: Option<&[u8]>, of: String| addr.is_none_or(|addr| addr == of.as_bytes());
        !self.is_nobody
            && self.id.is_none_or(|id| id == card.id as i64)
            && is_at(self.addr, peer_addr(card, server))
            && is_at(self.local, local_addr(server))
            && self.of_type.holds(card)
            && !(self.spares_self && card.id == own)
    }
}

pub(super) fn client_kill(call: &mut Call<'_, '_, '_>) -> Answered {
    let is_old_form = call.args.len() == 3;
    let victims = if is_old_form {
        let addr = Some(call.args[2]);
        Victims {
            addr,
            spares_self: false,
            ..Victims::parse(&[])?
        }
    } else {
        Victims::parse(&call.args[2..])?
    };
    let own = call.session.card.id;
    let mut killed = 0;
    for (addr, card) in call.server.clients.all() {
        if !victims.has(&card, call.server, own) {
            continue;
        }
        killed += 1;
        if card.id == own {
            // When this has been answered.
            call.reply.ctx.close();
        } else {
            addr.close();
        }
    }
    match (is_old_form, killed) {
        (true, 0) => return Err(b"ERR No such client".as_slice().into()),
        (true, _) => call.reply.ok(),
        (false, killed) => call.reply.integer(killed),
    }
    Ok(())
}

pub(super) fn client_reply(call: &mut Call<'_, '_, '_>) -> Answered {
    let session = &mut *call.session;
    if is(call.args[2], "ON") {
        session.replies = Replies::On;
        call.reply.is_muted = false;
        call.reply.ok();
    } else if is(call.args[2], "OFF") {
        session.replies = Replies::Off;
    } else if is(call.args[2], "SKIP") {
        if session.replies != Replies::Off {
            session.replies = Replies::SkipNext;
        }
    } else {
        return Err(SYNTAX);
    }
    Ok(())
}

/// Nobody is evicted, and no access times are kept, so there is nothing to switch.
fn switch(call: &mut Call<'_, '_, '_>) -> Answered {
    if !call.is(2, "ON") && !call.is(2, "OFF") {
        return Err(SYNTAX);
    }
    call.reply.ok();
    Ok(())
}

pub(super) fn client_no_evict(call: &mut Call<'_, '_, '_>) -> Answered {
    switch(call)
}

pub(super) fn client_no_touch(call: &mut Call<'_, '_, '_>) -> Answered {
    switch(call)
}

/// Nothing is tracked.
pub(super) fn client_getredir(call: &mut Call<'_, '_, '_>) -> Answered {
    call.reply.integer(-1);
    Ok(())
}

/// Nobody is ever paused.
pub(super) fn client_unpause(call: &mut Call<'_, '_, '_>) -> Answered {
    call.reply.ok();
    Ok(())
}
