//! The timeouts of connections, see [`Watch`].

use std::time::{Duration, Instant};

use crate::actor::CloseReason;
use crate::call::TimerFor;
use crate::flags::Flags;
use crate::hosts::Hosts;
use crate::hosts::extras::Extra;
use crate::origin::{ConnectionOptions, Rate};
use crate::sys::Socket;
use crate::timers::deadline_after;
use crate::watch::Watch;

/// What must have been taken of a file that a close waits for, each time that the close is given; or
/// as much as may wait, if that is less.
const FILE_SHARE: usize = 4 << 20;

impl Hosts {
    /// Notes that the connection is active, if anybody wants to know.
    #[inline]
    pub(super) fn touch(&mut self, index: usize) {
        if self.slots[index].flags.has(Flags::TIMED | Flags::SILENT) {
            self.note_activity(index);
        }
    }

    fn note_activity(&mut self, index: usize) {
        self.slots[index].flags.clear(Flags::SILENT);
        if self.slots[index].flags.has(Flags::TIMED) {
            self.active_ms[index] = self.stamp();
        }
    }

    /// The same of what is no byte yet that the actor could be shown: of a record that is not whole. It
    /// is no first byte, or two bytes would hold a place for ever.
    pub(super) fn touch_idle(&mut self, index: usize) {
        if self.slots[index].flags.has(Flags::TIMED) {
            self.active_ms[index] = self.stamp();
        }
    }

    /// Milliseconds since the poller's start. They wrap after 49 days; only differences are looked
    /// at.
    pub(super) fn stamp(&mut self) -> u32 {
        let now = self.call.now();
        now.saturating_duration_since(self.started).as_millis() as u32
    }

    fn watch(&mut self, index: usize, watch: Watch, at: Instant) {
        self.call
            .timers
            .set(index as u32, at, None, TimerFor::Watch(watch));
    }

    pub(super) fn watch_idle(&mut self, index: usize) {
        let options = &self.call.origins[usize::from(self.slots[index].origin)].options;
        if let Some(after) = options.idle_timeout {
            self.slots[index].flags.set(Flags::TIMED);
            if index >= self.active_ms.len() {
                self.active_ms.resize(index + 1, 0);
            }
            self.active_ms[index] = self.stamp();
            let at = self.call.deadline(after);
            self.watch(index, Watch::Idle, at);
        }
    }

    pub(super) fn watch_output(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if slot.flags.has(Flags::WATCH_OUTPUT) {
            return;
        }
        slot.flags.set(Flags::WATCH_OUTPUT);
        let options = &self.call.origins[usize::from(slot.origin)].options;
        let after = options.least_output.map_or(options.stuck_timeout, |rate| {
            rate.over.min(options.stuck_timeout)
        });
        let at = self.call.deadline(after);
        self.watch(index, Watch::Output, at);
    }

    pub(super) fn watch_input(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let options = &self.call.origins[usize::from(slot.origin)].options;
        let over = options.least_input.map(|rate| rate.over);
        if let Some(after) = options.incomplete_timeout.into_iter().chain(over).min()
            && let Some(extra) = self.extras.get(slot.extra)
            && !slot.flags.has(Flags::WATCH_INPUT)
        {
            slot.flags.set(Flags::WATCH_INPUT);
            let at = deadline_after(extra.input_since, after);
            self.watch(index, Watch::Input, at);
        }
    }

    /// Reading stops, and with it the time of a frame that is not whole.
    pub(super) fn pause_frame(&mut self, index: usize) {
        if let Some(extra) = self.extras.get_mut(self.slots[index].extra)
            && extra.unread() > 0
            && extra.paused_since.is_none()
        {
            extra.paused_since = Some(self.call.now());
        }
    }

    /// Reading goes on, and with it the time that is left of a frame.
    pub(super) fn go_on_with_frame(&mut self, index: usize) {
        if let Some(extra) = self.extras.get_mut(self.slots[index].extra)
            && let Some(since) = extra.paused_since.take()
        {
            extra.input_since += self.call.now().saturating_duration_since(since);
            self.watch_input(index);
        }
    }

    pub(super) fn watch_flush(&mut self, index: usize, within: Duration) {
        let at = self.call.deadline(within);
        self.call.timers.set(
            index as u32,
            at,
            None,
            TimerFor::Watch(Watch::Flush { within }),
        );
    }

    pub(super) fn watch_after(&mut self, index: usize, watch: Watch, after: Duration) {
        let at = self.call.deadline(after);
        self.watch(index, watch, at);
    }

    pub(super) fn watch_linger(&mut self, index: usize, until: Instant) {
        self.watch(index, Watch::Linger, until);
    }

    /// A watch's timer has fired: ends the connection, or sets the timer again for the rest, or
    /// lets the matter rest.
    pub(super) fn look_at(&mut self, index: usize, watch: Watch) {
        let now = self.call.now();
        let queued = self.queued_at(index);
        let slot = &mut self.slots[index];
        let options = &self.call.origins[usize::from(slot.origin)].options;
        match watch {
            Watch::Linger => self.free(index),
            Watch::Header => self.header_is_late(index),
            Watch::Handshake => self.handshake_is_late(index),
            Watch::Flush { within } => self.look_at_flush(index, within),
            Watch::DatagramRetry => self.retry_datagrams(index),
            Watch::DatagramRest => self.send_rest(index),
            Watch::DatagramClose => self.end_datagrams(index),
            Watch::Connect => self.connect_is_due(index),
            Watch::Idle => {
                let Some(after) = options.idle_timeout else {
                    return;
                };
                if slot.flags.has(Flags::CLOSING) {
                    return;
                }
                let last = self.active_ms[index];
                let idle = Duration::from_millis(u64::from(self.stamp().wrapping_sub(last)));
                if idle < after {
                    self.watch(index, watch, now + (after - idle));
                } else if self.is_kept_waiting(index) {
                    self.watch_idle(index);
                } else {
                    self.close_idle(index, after);
                }
            }
            Watch::Output => {
                // The selector reports a socket only when a good part of its buffer is free; a peer
                // that takes a little now and then is not stuck. So ask the socket itself.
                if queued == 0 {
                    slot.flags.clear(Flags::WATCH_OUTPUT);
                } else if self.flush(index) {
                    self.look_at_output(index, now);
                }
            }
            Watch::Input => {
                slot.flags.clear(Flags::WATCH_INPUT);
                if slot.flags.has(Flags::CLOSING) {
                    return;
                }
                let extra = self.extras.get(slot.extra);
                // What is left of a pause's frame is watched from its end on.
                let watches = |extra: &&Extra| extra.unread() > 0 && extra.paused_since.is_none();
                let Some(extra) = extra.filter(watches) else {
                    return;
                };
                match look_at_input(extra, options, now) {
                    Err(reason) => self.close(index, reason),
                    Ok(None) => {}
                    Ok(Some(left)) => {
                        slot.flags.set(Flags::WATCH_INPUT);
                        self.watch(index, watch, now + left.max(Duration::from_millis(1)));
                    }
                }
            }
        }
    }

    /// Whether the peer has sent something that nobody reads, here or still in the kernel: it is not
    /// the one who is idle.
    fn is_kept_waiting(&self, index: usize) -> bool {
        let slot = &self.slots[index];
        let extra = self.extras.get(slot.extra);
        slot.flags.has(Flags::NOT_READING)
            && (extra.is_some_and(|extra| extra.unread() > 0)
                || slot.socket.as_ref().is_some_and(Socket::has_unread))
    }

    /// The time of a close is over; of a file that leaves as it should, that of its next share
    /// begins.
    fn look_at_flush(&mut self, index: usize, within: Duration) {
        if self.queued_at(index) == 0 {
            return self.close_untold(index);
        }
        let slot = &self.slots[index];
        let options = &self.call.origins[usize::from(slot.origin)].options;
        let share = options.output_max.clamp(1, FILE_SHARE);
        let Some(extra) = self.extras.get_mut(slot.extra) else {
            return;
        };
        let queued = extra.queued();
        if extra.flush_from.saturating_sub(queued) >= share {
            extra.begin_flush();
            return self.watch_flush(index, within);
        }
        let reason = match self.take_reason(index) {
            Some(reason @ CloseReason::Error(_)) => reason,
            _ => CloseReason::NotFlushed {
                queued,
                after: within,
            },
        };
        self.end(index, reason);
    }

    fn look_at_output(&mut self, index: usize, now: Instant) {
        let slot = &mut self.slots[index];
        slot.flags.clear(Flags::WATCH_OUTPUT);
        let options = &self.call.origins[usize::from(slot.origin)].options;
        let extra = self.extras.get_mut(slot.extra);
        let Some(extra) = extra.filter(|extra| extra.queued() > 0) else {
            return;
        };
        let queued = extra.queued();
        let after = options.stuck_timeout;
        let waited = now.saturating_duration_since(extra.output_since);
        if waited >= after {
            return self.end(index, CloseReason::StuckReader { queued, after });
        }
        let mut left = after - waited;
        if let Some(Rate { bytes, over }) = options.least_output {
            let waited = now.saturating_duration_since(extra.taken_since);
            if waited >= over {
                let taken = extra.taken;
                if taken < bytes {
                    let (least, after) = (bytes, over);
                    let reason = CloseReason::OutputRate {
                        taken,
                        least,
                        after,
                    };
                    return self.end(index, reason);
                }
                extra.begin_window(now);
                left = left.min(over);
            } else {
                left = left.min(over - waited);
            }
        }
        slot.flags.set(Flags::WATCH_OUTPUT);
        self.watch(index, Watch::Output, now + left);
    }
}

/// Whether a frame that is not whole has come too slowly; else after what time to look again.
fn look_at_input(
    extra: &Extra,
    options: &ConnectionOptions,
    now: Instant,
) -> Result<Option<Duration>, CloseReason> {
    let waited = now.saturating_duration_since(extra.input_since);
    let kept = extra.unread();
    let mut left = None;
    if let Some(after) = options.incomplete_timeout {
        if waited >= after {
            return Err(CloseReason::SlowSender { kept, after });
        }
        left = Some(after - waited);
    }
    if let Some(Rate { bytes, over }) = options.least_input {
        let times = waited.as_nanos() / over.as_nanos();
        if (kept as u128) < times * bytes as u128 {
            let (least, after) = (bytes, over);
            return Err(CloseReason::InputRate { kept, least, after });
        }
        let since = (waited.as_nanos() % over.as_nanos()) as u64;
        let next = over.saturating_sub(Duration::from_nanos(since));
        left = Some(left.map_or(next, |left| left.min(next)));
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::actor::{Actor, Outcome};
    use crate::context::Context;
    use crate::hosts::tests::{adopt, hosts, origin};
    use crate::input::Input;
    use crate::origin::Origin;

    /// Answers whole lines.
    struct Lines;

    impl Actor for Lines {
        type Message = ();

        fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
            if input.line(80)?.is_some() {
                ctx.write("answer\n");
            }
            Ok(())
        }
    }

    #[test]
    fn with_all_timeouts_on_no_message_sets_a_timer() {
        let second = Duration::from_secs(1);
        let options = ConnectionOptions::new()
            .idle_timeout(60 * second)
            .least_input_rate(1, 10 * second)
            .least_output_rate(1, 10 * second);
        let origin = Arc::new(Origin {
            make: Box::new(|_| Box::new(Lines)),
            options,
            ..origin()
        });
        let mut hosts = hosts(0);
        let wire = adopt(&mut hosts, &origin);
        // Each has a frame that comes in two parts, and an answer that waits for the socket.
        let mut set = Vec::new();
        for _ in 0..100 {
            wire.set_room(0);
            for part in [b"half ", b"line\n"] {
                wire.send(part).unwrap();
                hosts.receive(0);
            }
            assert_eq!(hosts.queued_at(0), 7);
            wire.set_room(64);
            hosts.flush(0);
            assert_eq!(wire.take(), b"answer\n");
            set.push(hosts.call.timers.set_so_far());
        }
        assert_eq!(set[0], 3, "one each: idle, input, output");
        assert_eq!(set[99], 3);
    }
}
