//! What ships passes every model.

use greenroom_loom::shipped::lock_models;
use greenroom_loom::shipped::models::{self, Poller, Waiter};

#[test]
fn the_lock_excludes() {
    lock_models::the_lock_excludes();
}

#[test]
fn a_wake_is_never_lost() {
    models::a_wake_is_never_lost(Poller::Sound);
    models::a_wake_is_never_lost(Poller::Spins);
}

#[test]
fn a_new_mailbox_is_seen_before_sleep() {
    models::a_new_mailbox_is_seen_before_sleep(Poller::Sound);
}

#[test]
fn stop_is_seen_before_sleep() {
    models::stop_is_seen_before_sleep(Poller::Sound);
}

#[test]
fn stop_races_sends() {
    models::stop_races_sends(Poller::Sound);
}

#[test]
fn room_is_told_once() {
    models::room_is_told_once(Poller::Sound);
}

#[test]
fn the_end_is_told_once() {
    models::the_end_is_told_once(Poller::Sound);
}

#[test]
fn an_actor_that_closes_while_a_message_is_on_its_way() {
    models::an_actor_that_closes_while_a_message_is_on_its_way();
}

#[test]
fn reply_races_timeout() {
    models::reply_races_timeout(Waiter::Abandons);
    models::reply_races_timeout(Waiter::TimesOut);
}

#[test]
fn the_waiter_is_woken() {
    models::the_waiter_is_woken();
}
