//! What is weakened in one thing fails the model that is there for it, and with the failure that
//! the model is named by.

use greenroom_loom::mutants::*;
use greenroom_loom::shipped::models::{self, Poller, Waiter};

/// `mutant!(name, failure, run)`: a test that has to fail so.
macro_rules! mutant {
    ($name:ident, $failure:literal, $run:expr) => {
        #[test]
        #[should_panic(expected = $failure)]
        fn $name() {
            $run
        }
    };
}

// the_lock_excludes
mutant!(
    lock_taken_twice,
    "Causality violation",
    torn_lock::models::the_lock_excludes()
);
mutant!(
    unlock_that_publishes_nothing,
    "Causality violation",
    loose_unlock::models::the_lock_excludes()
);

// a_wake_is_never_lost
mutant!(
    wake_that_undoes_the_next_sleep,
    "deadlock",
    torn_swap::models::a_wake_is_never_lost(torn_swap::models::Poller::Sound)
);
mutant!(
    look_before_arming,
    "deadlock",
    models::a_wake_is_never_lost(Poller::LooksBeforeArming)
);
mutant!(
    arming_before_falling_asleep,
    "deadlock",
    models::a_wake_is_never_lost(Poller::ArmsBeforeFallingAsleep)
);
mutant!(
    reading_after_looking,
    "deadlock",
    models::a_wake_is_never_lost(Poller::ReadsAfterLooking)
);

// a_new_mailbox_is_seen_before_sleep
mutant!(
    new_mailbox_left_out,
    "deadlock",
    models::a_new_mailbox_is_seen_before_sleep(Poller::ForgetsNewMailboxes)
);
mutant!(
    new_mailbox_untold,
    "deadlock",
    models::a_new_mailbox_is_seen_before_sleep(Poller::ForgetsCommands)
);

// stop_is_seen_before_sleep
mutant!(
    wake_by_everybody,
    "more writes than sleeps",
    looking_swap::models::stop_is_seen_before_sleep(looking_swap::models::Poller::Sound)
);
mutant!(
    stop_left_out,
    "deadlock",
    models::stop_is_seen_before_sleep(Poller::ForgetsCommands)
);
mutant!(
    stop_looked_for_too_early,
    "deadlock",
    models::stop_is_seen_before_sleep(Poller::LooksBeforeArming)
);

// stop_races_sends
mutant!(
    drain_before_close,
    "left behind",
    models::stop_races_sends(Poller::DrainsBeforeClosing)
);

// room_is_told_once
mutant!(
    sleep_on_waiters,
    "told never or twice",
    models::room_is_told_once(Poller::ForgetsWaiters)
);

// the_end_is_told_once
mutant!(
    line_that_is_left_at_the_end,
    "told never or twice",
    models::the_end_is_told_once(Poller::ForgetsWaiters)
);

// an_actor_that_closes_while_a_message_is_on_its_way
mutant!(
    stale_hold,
    "stale count",
    torn_exchange::models::an_actor_that_closes_while_a_message_is_on_its_way()
);
mutant!(
    count_of_the_next_actor_taken_for_an_old_one,
    "an entry that was never counted",
    loose_exchange::models::an_actor_that_closes_while_a_message_is_on_its_way()
);

// reply_races_timeout
mutant!(
    deadline_without_abandon,
    "lost or had twice",
    models::reply_races_timeout(Waiter::WalksAway)
);

// the_waiter_is_woken
mutant!(
    reply_without_wake,
    "deadlock",
    deaf_condvar::models::the_waiter_is_woken()
);
