//! Publishing and subscribing.

use bytes::Bytes;

use super::super::topics::Kind;
use super::{Answered, Call, Refusal};

pub(super) fn publish(call: &mut Call<'_, '_, '_>) -> Answered {
    let (channel, session) = (call.words.bytes(1), &mut *call.session);
    let topics = &call.server.topics;
    let had_unsent = !session.unsent.is_empty();
    let reached = topics.publish(&channel, call.args[2], &mut session.unsent);
    if !had_unsent && let Some((hub, _)) = session.unsent.front() {
        call.reply.ctx.wait_for_room(hub);
    }
    call.reply.integer(reached as i64);
    Ok(())
}

/// Says what has become of a subscription, and how many there are: even where no command is
/// answered.
fn confirm(call: &mut Call<'_, '_, '_>, word: &[u8], topic: Option<&Bytes>) {
    let was_muted = std::mem::replace(&mut call.reply.is_muted, false);
    call.reply.push(3);
    call.reply.bulk(word);
    call.reply.value(topic);
    call.reply.integer(call.session.subscriptions() as i64);
    call.reply.is_muted = was_muted;
}

fn join(call: &mut Call<'_, '_, '_>, kind: Kind, word: &[u8]) -> Answered {
    let addr = call.reply.ctx.addr();
    for at in 1..call.args.len() {
        let topic = call.words.bytes(at);
        let server = call.server;
        let joined = call.session.topics(kind);
        if !joined.contains_key(&topic) {
            let last = server.topics.join(kind, &topic, &addr, &server.system);
            joined.insert(topic.clone(), last);
        }
        confirm(call, word, Some(&topic));
    }
    call.session.update_card();
    Ok(())
}

fn leave(call: &mut Call<'_, '_, '_>, kind: Kind, word: &[u8]) -> Answered {
    let addr = call.reply.ctx.addr();
    let topics: Vec<Bytes> = match call.args.len() {
        1 => call.session.topics(kind).keys().cloned().collect(),
        len => (1..len).map(|at| call.words.bytes(at)).collect(),
    };
    for topic in &topics {
        if call.session.topics(kind).remove(topic).is_some() {
            call.server.topics.leave(kind, topic, &addr);
        }
        confirm(call, word, Some(topic));
    }
    if topics.is_empty() {
        confirm(call, word, None);
    }
    call.session.update_card();
    Ok(())
}

pub(super) fn subscribe(call: &mut Call<'_, '_, '_>) -> Answered {
    join(call, Kind::Channel, b"subscribe")
}

pub(super) fn psubscribe(call: &mut Call<'_, '_, '_>) -> Answered {
    join(call, Kind::Pattern, b"psubscribe")
}

pub(super) fn unsubscribe(call: &mut Call<'_, '_, '_>) -> Answered {
    leave(call, Kind::Channel, b"unsubscribe")
}

pub(super) fn punsubscribe(call: &mut Call<'_, '_, '_>) -> Answered {
    leave(call, Kind::Pattern, b"punsubscribe")
}

pub(super) fn pubsub_channels(call: &mut Call<'_, '_, '_>) -> Answered {
    let pattern = match call.args {
        [_, _] => None,
        [_, _, pattern] => Some(*pattern),
        _ => return Err(wrong_subcommand(call)),
    };
    let channels = call.server.topics.channels(pattern);
    call.reply.array(channels.len());
    for channel in &channels {
        call.reply.bulk(channel);
    }
    Ok(())
}

fn wrong_subcommand(call: &Call<'_, '_, '_>) -> Refusal {
    let sub = super::shorten(call.args[1], super::SHOWN_MAX);
    let text = [
        b"ERR unknown subcommand or wrong number of arguments for '",
        sub,
        b"'. Try PUBSUB HELP.",
    ];
    super::one_line(text.concat())
}

pub(super) fn pubsub_numsub(call: &mut Call<'_, '_, '_>) -> Answered {
    let channels = &call.args[2..];
    call.reply.array(channels.len() * 2);
    for channel in channels {
        call.reply.bulk(channel);
        let subscribers = call.server.topics.subscribers(channel);
        call.reply.integer(subscribers as i64);
    }
    Ok(())
}

pub(super) fn pubsub_numpat(call: &mut Call<'_, '_, '_>) -> Answered {
    let (_, patterns) = call.server.topics.counts();
    call.reply.integer(patterns as i64);
    Ok(())
}
