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

// a_wake_is_never_lost
mutant!(
    push_that_loses_a_count,
    "the count is off",
    torn_add::models::a_wake_is_never_lost(torn_add::models::Poller::Sound)
);
mutant!(
    arm_that_loses_a_push,
    "the count is off",
    torn_or::models::a_wake_is_never_lost(torn_or::models::Poller::Sound)
);
mutant!(
    wake_that_undoes_the_next_sleep,
    "deadlock",
    torn_swap::models::a_wake_is_never_lost(torn_swap::models::Poller::Sound)
);
mutant!(
    wake_by_everybody,
    "more writes than sleeps",
    looking_swap::models::a_wake_is_never_lost(looking_swap::models::Poller::Sound)
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
    push_that_loses_closed,
    "left behind",
    torn_add::models::stop_races_sends(torn_add::models::Poller::Sound)
);
mutant!(
    drain_before_close,
    "left behind",
    models::stop_races_sends(Poller::DrainsBeforeClosing)
);

// room_is_told_once
mutant!(
    wait_that_loses_a_release,
    "told never or twice",
    torn_or::models::room_is_told_once(torn_or::models::Poller::Sound)
);
mutant!(
    release_that_loses_waiters,
    "told never or twice",
    torn_sub::models::room_is_told_once(torn_sub::models::Poller::Sound)
);
mutant!(
    sleep_on_waiters,
    "told never or twice",
    models::room_is_told_once(Poller::ForgetsWaiters)
);

// the_end_is_told_once
mutant!(
    close_that_loses_waiters,
    "told never or twice",
    torn_or::models::the_end_is_told_once()
);

// an_actor_that_closes_while_a_message_is_on_its_way
mutant!(
    stale_hold,
    "stale count",
    torn_exchange::models::an_actor_that_closes_while_a_message_is_on_its_way()
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
