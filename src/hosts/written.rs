//! Telling an actor that the kernel has taken what it wrote.

use crate::flags::Flags;
use crate::hosts::Hosts;
use crate::hosts::extras::Apart;
use crate::registry::ActorKey;

/// Notices told to one connection before the others have their turn.
const TOLD_AT_ONCE: usize = 64;

/// Room that is kept between two callbacks for what they ask.
const NOTICES_KEPT: usize = 64;

impl Hosts {
    /// Takes note of the notices that the callback asked for: to be called before what it wrote is
    /// kept.
    pub(super) fn note_notices(&mut self, index: usize) {
        let (queued, staged) = (self.queued_at(index), self.call.staged.len());
        let now = self.call.now();
        let mut asked = std::mem::take(&mut self.call.notices);
        let apart = self.extra(index, now).apart.get_or_insert_default();
        for (place, token) in asked.drain(..) {
            apart.notices.add(queued + place.min(staged), token);
        }
        asked.shrink_to(NOTICES_KEPT);
        self.call.notices = asked;
    }

    fn has_notice_due(&self, index: usize) -> bool {
        let extra = self.extras.get(self.slots[index].extra);
        let apart = extra.and_then(|extra| extra.apart.as_deref());
        apart.is_some_and(|apart| apart.notices.is_due())
    }

    /// Has the actor called for the notices that are due; whether there are any.
    pub(super) fn owe_notices(&mut self, index: usize) -> bool {
        let is_due = self.has_notice_due(index);
        if is_due {
            self.owe(index, 0);
        }
        is_due
    }

    /// Tells the actor the notices that are due by now, the first of them if they are many. Those
    /// that come of it are told later.
    pub(super) fn tell_notices(&mut self, key: ActorKey) {
        for _ in 0..TOLD_AT_ONCE {
            let Some(index) = self.find(key) else { return };
            let extra = self.extras.get_mut(self.slots[index].extra);
            let Some(apart) = extra.and_then(|extra| extra.apart.as_deref_mut()) else {
                return;
            };
            let Some(token) = apart.notices.pop_due() else {
                break;
            };
            self.call(index, |actor, call| actor.written(token, call));
        }
        let Some(index) = self.find(key) else { return };
        let extra = self.extras.get(self.slots[index].extra);
        let apart = extra.and_then(|extra| extra.apart.as_deref());
        self.call.noted = (key, apart.map_or(0, |apart| apart.notices.len()));
        self.owe_notices(index);
        self.tidy(index);
        let flags = self.slots[index].flags;
        // A close that waited for these calls goes on, behind what they wrote.
        if flags.has(Flags::CLOSING) && !flags.has(Flags::LINGERING | Flags::DIRTY | Flags::BLOCKED)
        {
            self.flush(index);
        }
    }
}

impl Apart {
    pub(super) fn is_idle(&self) -> bool {
        self.notices.is_empty()
    }
}
