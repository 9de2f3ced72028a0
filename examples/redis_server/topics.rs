//! Who is subscribed to what. Each channel, and each pattern, is a [`Broadcaster`], which is there
//! while it has subscribers.
//!
//! All of them live on one poller: what one client publishes then reaches another in this order,
//! over whatever channels, since it all goes through one mailbox. (Where a subscriber's mailbox is
//! full, one broadcaster may have to wait and another not: then the order holds for each channel
//! and pattern by itself.) How many subscribers there are, which PUBLISH answers at once, is kept
//! here, under one lock that is never held for long.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use greenroom::{Addr, Broadcaster, Handle};

use super::client::Client;
use super::glob;

/// Where the broadcasters live.
const POLLER: usize = 0;

pub(crate) type Hub = Addr<Broadcaster<Push>>;

/// What a subscriber is sent: one for each channel or pattern by which it was published.
#[derive(Clone)]
pub(crate) struct Push {
    pub(crate) kind: Kind,
    pub(crate) topic: Bytes,
    /// What was published later has a higher number.
    pub(crate) number: u64,
    /// As it is on the wire in RESP2 and RESP3 alike, but for the array's own line. Made once.
    pub(crate) body: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Channel,
    Pattern,
}

impl Kind {
    /// Of how many parts a message of this kind is.
    pub(crate) fn parts(self) -> usize {
        match self {
            Kind::Channel => 3,
            Kind::Pattern => 4,
        }
    }
}

#[derive(Default)]
pub(crate) struct Topics(Mutex<Directory>);

#[derive(Default)]
struct Directory {
    channels: HashMap<Bytes, Topic, ahash::RandomState>,
    patterns: HashMap<Bytes, Topic, ahash::RandomState>,
    /// How much has been published.
    published: u64,
}

struct Topic {
    hub: Hub,
    subscribers: usize,
}

impl Directory {
    fn of(&mut self, kind: Kind) -> &mut HashMap<Bytes, Topic, ahash::RandomState> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }
}

impl Topics {
    fn lock(&self) -> MutexGuard<'_, Directory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of the last message that the subscriber is not sent, or should not show:
    /// it may still be on its way from an earlier subscription.
    pub(crate) fn join(
        &self,
        kind: Kind,
        topic: &Bytes,
        client: &Addr<Client>,
        system: &Handle,
    ) -> u64 {
        let mut directory = self.lock();
        let published = directory.published;
        let topic = directory.of(kind).entry(topic.clone());
        let topic = topic.or_insert_with(|| Topic {
            hub: system.spawn_on(POLLER, Broadcaster::new),
            subscribers: 0,
        });
        topic.subscribers += 1;
        topic.hub.join(client.clone());
        published
    }

    pub(crate) fn leave(&self, kind: Kind, name: &Bytes, client: &Addr<Client>) {
        let mut directory = self.lock();
        let topics = directory.of(kind);
        if let Some(topic) = topics.get_mut(name) {
            topic.hub.leave(client.clone());
            topic.subscribers -= 1;
            if topic.subscribers == 0 {
                topic.hub.close();
                topics.remove(name);
            }
        }
    }

    /// Sends a message to the broadcasters, and returns how many subscribers get it. What a full
    /// mailbox has refused is put behind `unsent`; so is what follows, to keep its order.
    pub(crate) fn publish(
        &self,
        channel: &Bytes,
        text: &[u8],
        unsent: &mut std::collections::VecDeque<(Hub, Push)>,
    ) -> usize {
        let mut directory = self.lock();
        directory.published += 1;
        let number = directory.published;
        let mut reached = 0;
        let mut send = |kind, name: &Bytes, topic: &Topic, parts: &[&[u8]]| {
            reached += topic.subscribers;
            let push = Push {
                kind,
                topic: name.clone(),
                number,
                body: bulks(parts),
            };
            let refused = if unsent.is_empty() {
                let sent = topic.hub.send(greenroom::Broadcast::Push(push));
                sent.err().and_then(refused)
            } else {
                Some(push)
            };
            unsent.extend(refused.map(|push| (topic.hub.clone(), push)));
        };
        if let Some(topic) = directory.channels.get(channel) {
            send(Kind::Channel, channel, topic, &[b"message", channel, text]);
        }
        for (pattern, topic) in &directory.patterns {
            if glob::matches(pattern, channel) {
                let parts = [b"pmessage", &pattern[..], channel, text];
                send(Kind::Pattern, pattern, topic, &parts);
            }
        }
        reached
    }

    /// The channels that have subscribers and match, in order.
    pub(crate) fn channels(&self, pattern: Option<&[u8]>) -> Vec<Bytes> {
        let directory = self.lock();
        let matches = |name: &&Bytes| pattern.is_none_or(|pattern| glob::matches(pattern, name));
        let mut names: Vec<_> = directory.channels.keys().filter(matches).cloned().collect();
        drop(directory);
        names.sort();
        names
    }

    pub(crate) fn subscribers(&self, channel: &[u8]) -> usize {
        let directory = self.lock();
        let topic = directory.channels.get(channel);
        topic.map_or(0, |topic| topic.subscribers)
    }

    /// How many channels and how many patterns have subscribers.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let directory = self.lock();
        (directory.channels.len(), directory.patterns.len())
    }
}

/// The push that comes back from a full mailbox. Whoever has gone has no subscribers left.
pub(crate) fn refused(error: greenroom::SendError<greenroom::Broadcast<Push>>) -> Option<Push> {
    let is_full = error.is_full();
    match error.into_message() {
        greenroom::Broadcast::Push(push) if is_full => Some(push),
        _ => None,
    }
}

fn bulks(parts: &[&[u8]]) -> Bytes {
    let len: usize = parts.iter().map(|part| part.len() + 24).sum();
    let mut body = BytesMut::with_capacity(len);
    for part in parts {
        body.put_slice(b"$");
        body.put_slice(itoa::Buffer::new().format(part.len()).as_bytes());
        body.put_slice(b"\r\n");
        body.put_slice(part);
        body.put_slice(b"\r\n");
    }
    body.freeze()
}
