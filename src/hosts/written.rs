//! Telling an actor that the kernel has taken what it wrote.

use crate::flags::Flags;
use crate::hosts::Hosts;
use crate::hosts::extras::Apart;
use crate::output::Notices;
use crate::registry::ActorKey;

/// Notices told to one connection before the others have their turn.
const TOLD_AT_ONCE: usize = 64;

impl Hosts {
    fn apart(&self, index: usize) -> Option<&Apart> {
        let extra = self.extras.get(self.slots[index].extra);
        extra.and_then(|extra| extra.apart.as_deref())
    }

    /// Has the actor called for the notices that are due; whether there are any.
    pub(super) fn owe_notices(&mut self, index: usize) -> bool {
        let apart = self.apart(index);
        let is_due = apart.is_some_and(|apart| apart.notices.is_due());
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
            if self.slots[index].flags.has(Flags::LINGERING) {
                // It has gone, and what is kept is the lingering's.
                return;
            }
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
        let left = self.apart(index).map_or(0, |apart| apart.notices.len());
        if self.call.noted.key == key {
            self.call.noted.notices = left;
        }
        self.owe_notices(index);
        self.tidy(index);
        let flags = self.slots[index].flags;
        // A close that waited for these calls goes on, behind what they wrote.
        if flags.has(Flags::CLOSING) && !flags.has(Flags::LINGERING | Flags::DIRTY | Flags::BLOCKED)
        {
            self.flush(index);
        }
    }

    /// Its time to close is over, and all that waits are notices: of who asks for one more each time
    /// that it is told, there is always one.
    pub(super) fn close_untold(&mut self, index: usize) {
        let extra = self.extras.get_mut(self.slots[index].extra);
        if let Some(apart) = extra.and_then(|extra| extra.apart.as_deref_mut()) {
            apart.notices = Notices::default();
        }
        self.flush(index);
    }
}

impl Apart {
    pub(super) fn is_idle(&self) -> bool {
        self.notices.is_empty() && self.pieces.is_empty()
    }
}
