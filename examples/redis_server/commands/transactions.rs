//! Several commands at once: nobody sees half of them, since all their keys are locked together.

use greenroom::Addr;

use super::super::client::{Client, Session, Transaction};
use super::super::reply::Reply;
use super::super::resp::Args;
use super::super::server::Server;
use super::super::store::Store;
use super::super::topics::Kind;
use super::{Answered, Call, Refusal, Words};

pub(super) fn multi(call: &mut Call<'_, '_, '_>) -> Answered {
    if call.session.transaction.is_some() {
        return Err(b"ERR MULTI calls can not be nested".as_slice().into());
    }
    call.session.transaction = Some(Box::default());
    call.session.update_card();
    call.reply.ok();
    Ok(())
}

pub(super) fn discard(call: &mut Call<'_, '_, '_>) -> Answered {
    if call.session.transaction.take().is_none() {
        return Err(b"ERR DISCARD without MULTI".as_slice().into());
    }
    unwatch(call)
}

pub(super) fn watch(call: &mut Call<'_, '_, '_>) -> Answered {
    if call.session.transaction.is_some() {
        return Err(b"ERR WATCH inside MULTI is not allowed".as_slice().into());
    }
    let watched = call.session.watched.get_or_insert_default();
    // What has been touched before makes EXEC fail, whatever else is watched.
    if !watched.is_touched() {
        for name in &call.args[1..] {
            call.data.watch(name, watched);
        }
    }
    call.session.update_card();
    call.reply.ok();
    Ok(())
}

pub(super) fn unwatch(call: &mut Call<'_, '_, '_>) -> Answered {
    if let Some(watched) = call.session.watched.take() {
        call.server.store.unwatch(&watched);
    }
    call.session.update_card();
    call.reply.ok();
    Ok(())
}

/// What EXEC locks.
pub(super) fn shards(session: &Session, store: &Store) -> u64 {
    let Some(open) = &session.transaction else {
        return 0;
    };
    let watched = session.watched.iter().flat_map(|watched| &watched.keys);
    let watched = watched.fold(0, |set, (_, key)| set | store.shard_set(key));
    let queue = open.queue.iter();
    queue.fold(watched, |set, (command, args)| {
        set | command.keys.shards(args, store)
    })
}

pub(super) fn exec(call: &mut Call<'_, '_, '_>) -> Answered {
    let Some(open) = call.session.transaction.take() else {
        return Err(b"ERR EXEC without MULTI".as_slice().into());
    };
    let mut is_unchanged = true;
    if let Some(watched) = call.session.watched.take() {
        is_unchanged = call.data.is_unchanged(&watched);
        call.data.unwatch(&watched);
    }
    call.session.update_card();
    if open.is_spoiled {
        let text = b"EXECABORT Transaction discarded because of previous errors.";
        return Err(text.as_slice().into());
    }
    if is_unchanged {
        run(call, &open);
    } else {
        call.reply.nil_array();
    }
    Ok(())
}

fn run(call: &mut Call<'_, '_, '_>, open: &Transaction) {
    call.reply.array(open.queue.len());
    for (command, owned) in &open.queue {
        let args: Args<'_> = owned.iter().map(|word| &word[..]).collect();
        call.data.db = call.session.db;
        let mut inner = Call {
            words: Words {
                args: &args,
                owned: Some(owned),
            },
            args: &args,
            session: call.session,
            server: call.server,
            data: call.data,
            reply: Reply {
                ctx: call.reply.ctx,
                ..call.reply
            },
        };
        if let Err(refusal) = (command.run)(&mut inner) {
            inner.reply.error(&refusal);
        }
        let Reply {
            is_resp3, is_muted, ..
        } = inner.reply;
        (call.reply.is_resp3, call.reply.is_muted) = (is_resp3, is_muted);
    }
}

/// EXEC that is itself wrong discards what was queued.
pub(super) fn refuse_exec(session: &mut Session, server: &Server, refusal: &[u8]) -> Refusal {
    session.transaction = None;
    if let Some(watched) = session.watched.take() {
        server.store.unwatch(&watched);
    }
    session.update_card();
    let why = refusal.strip_prefix(b"ERR ").unwrap_or(refusal);
    [b"EXECABORT Transaction discarded because of: ", why]
        .concat()
        .into()
}

/// Ends all that a connection has begun: what it queued, watches, and is subscribed to.
pub(crate) fn forget(session: &mut Session, server: &Server, addr: &Addr<Client>) {
    session.transaction = None;
    if let Some(watched) = session.watched.take() {
        server.store.unwatch(&watched);
    }
    for kind in [Kind::Channel, Kind::Pattern] {
        for topic in std::mem::take(session.topics(kind)).into_keys() {
            server.topics.leave(kind, &topic, addr);
        }
    }
}
