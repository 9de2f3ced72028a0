//! What a client says of its connection.

use super::super::client::Replies;
use super::super::resp::integer;
use super::{Answered, Call, Refusal, clients, is, transactions, wrong_arity};

/// What clients look at to see which commands there are.
pub(super) const VERSION: &str = "7.0.15";

const WRONG_PASSWORD: Refusal =
    Refusal::Borrowed(b"WRONGPASS invalid username-password pair or user is disabled.");

pub(super) fn ping(call: &mut Call<'_, '_, '_>) -> Answered {
    let is_message = !call.session.is_resp3 && call.session.subscriptions() > 0;
    match call.args {
        [_, text @ ..] if is_message && text.len() < 2 => {
            call.reply.array(2);
            call.reply.bulk(b"pong");
            call.reply.bulk(text.first().unwrap_or(&&b""[..]));
        }
        [_] => call.reply.raw(b"+PONG\r\n"),
        [_, text] => call.reply.bulk(text),
        _ => return Err(wrong_arity(b"ping")),
    }
    Ok(())
}

pub(super) fn echo(call: &mut Call<'_, '_, '_>) -> Answered {
    let text = call.words.bytes(1);
    call.reply.value(Some(&text));
    Ok(())
}

pub(super) fn select(call: &mut Call<'_, '_, '_>) -> Answered {
    call.session.db = call.database(1)?;
    call.session.update_card();
    call.reply.ok();
    Ok(())
}

pub(super) fn quit(call: &mut Call<'_, '_, '_>) -> Answered {
    call.reply.ok();
    call.reply.ctx.close();
    Ok(())
}

/// There is one user, `default`, who needs no password.
fn authenticate(user: &[u8]) -> Result<(), Refusal> {
    if user == b"default" {
        Ok(())
    } else {
        Err(WRONG_PASSWORD)
    }
}

pub(super) fn auth(call: &mut Call<'_, '_, '_>) -> Answered {
    match call.args {
        [_, _] => Err(b"ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?".as_slice().into()),
        [_, user, _] => {
            authenticate(user)?;
            call.reply.ok();
            Ok(())
        }
        _ => Err(super::SYNTAX),
    }
}

pub(super) fn hello(call: &mut Call<'_, '_, '_>) -> Answered {
    let version = call.args.get(1).map(|version| integer(version));
    match version {
        None | Some(Some(2 | 3)) => {}
        Some(Some(_)) => return Err(b"NOPROTO unsupported protocol version".as_slice().into()),
        Some(None) => {
            return Err(b"ERR Protocol version is not an integer or out of range"
                .as_slice()
                .into());
        }
    }
    let mut at = 2;
    while let Some(option) = call.args.get(at) {
        match &call.args[at + 1..] {
            [user, _, ..] if is(option, "AUTH") => {
                authenticate(user)?;
                at += 3;
            }
            [name, ..] if is(option, "SETNAME") => {
                clients::set_name(call.session, name)?;
                at += 2;
            }
            _ => {
                let option = super::shorten(option, usize::MAX);
                let text = [b"ERR Syntax error in HELLO option '", option, b"'"];
                return Err(super::one_line(text.concat()));
            }
        }
    }
    if let Some(version) = version {
        call.session.is_resp3 = version == Some(3);
        call.reply.is_resp3 = call.session.is_resp3;
        call.session.update_card();
    }
    let proto = if call.session.is_resp3 { 3 } else { 2 };
    call.reply.map(7);
    for (name, text) in [("server", "greenroom"), ("version", VERSION)] {
        call.reply.bulk(name.as_bytes());
        call.reply.bulk(text.as_bytes());
    }
    for (name, number) in [("proto", proto), ("id", call.session.card.id as i64)] {
        call.reply.bulk(name.as_bytes());
        call.reply.integer(number);
    }
    for (name, text) in [("mode", "standalone"), ("role", "master")] {
        call.reply.bulk(name.as_bytes());
        call.reply.bulk(text.as_bytes());
    }
    call.reply.bulk(b"modules");
    call.reply.array(0);
    Ok(())
}

pub(super) fn reset(call: &mut Call<'_, '_, '_>) -> Answered {
    transactions::forget(call.session, call.server, &call.reply.ctx.addr());
    let session = &mut *call.session;
    (session.db, session.is_resp3, session.replies) = (0, false, Replies::On);
    session.card.names().client.clear();
    session.update_card();
    (call.reply.is_resp3, call.reply.is_muted) = (false, false);
    call.reply.raw(b"+RESET\r\n");
    Ok(())
}
