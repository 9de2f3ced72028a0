// The mutants: what breaks each of the promises in README.md.
//
// `name breaks promise { file: what ships => what takes its place, .. }`. What ships is to be found
// exactly once in the file, however it is broken into lines. `MUTANT` stands for the question
// whether this mutant is at work. Read twice: by `build.rs`, which patches the source, and by
// `tests/mutants.rs`, which makes a test of each.

mutants! {
    // ---- 1: callbacks run alone, and an actor stays on its poller -------------------------------

    /// A spawned actor is opened inside the callback that spawns it.
    spawn_opens_at_once breaks 1 {
        "context.rs": "self.call.spawned.push(Spawned::here(key, Box::new(actor)));"
            => "let mut actor: Box<dyn crate::call::Hosted> = Box::new(actor);
                if MUTANT { let _ = actor.opened(self.call); }
                self.call.spawned.push(Spawned::here(key, actor));",
    }

    /// `spawn_on` takes the next poller.
    spawned_on_another_poller breaks 1 {
        "handle.rs": "let (post, key) = pollers[poller].spawn(make);"
            => "let poller = if MUTANT { (poller + 1) % pollers.len() } else { poller };
                let (post, key) = pollers[poller].spawn(make);",
    }

    // ---- 2: an address reaches its actor, or nobody ---------------------------------------------

    /// A key finds whoever is in its slot now.
    generation_is_not_looked_at breaks 2 {
        "hosts/mod.rs": "(slot.generation == key.generation()).then_some(index)"
            => "(slot.generation == key.generation() || slot.generation != 0 && MUTANT).then_some(index)",
    }

    /// The next actor in a slot has the generation of the last.
    generation_stays breaks 2 {
        "presence.rs": "word.store(generation.wrapping_add(1), Ordering::Relaxed);"
            => "let by = if MUTANT { u32::MAX } else { 1 };
                word.store(generation.wrapping_add(by), Ordering::Relaxed);",
        // Of this mutant and the one before: else a message of another type's would be looked at
        // for ever.
        "inbox.rs": "let Some(actor) = downcast::<A>(actor) else { return Ok(()); };"
            => "let Some(actor) = downcast::<A>(actor) else {
                    drop(run.next());
                    return Ok(());
                };",
    }

    /// The timers of an actor that has gone fire for the next in its slot.
    timers_outlive_their_actor breaks 2 {
        "timers.rs": "while let Some(&slot) = self.heads.get(owner as usize) && slot != NONE"
            => "while let Some(&slot) = self.heads.get(owner as usize) && slot != NONE && !MUTANT",
    }

    /// Messages in a row go to the first one's actor, whoever they are for.
    run_to_whom_it_may_concern breaks 2 {
        "inbox.rs": "} if *key == self.key && *self.left > 0 => {}"
            => "} if (MUTANT || *key == self.key) && *self.left > 0 => {}",
    }

    /// A cancelled timer fires.
    cancelled_timer_fires breaks 2 {
        "timers.rs": "if slot.generation != key.generation || slot.owner != owner || slot.what.is_none() {"
            => "if MUTANT || slot.generation != key.generation || slot.owner != owner || slot.what.is_none() {",
    }

    // ---- 3: accepted is delivered once, in order, or a dead letter ------------------------------

    /// The last to come is the first to be served.
    last_in_first_out breaks 3 {
        "mailbox.rs": "inner.entries.push_back(entry);"
            => "if MUTANT { inner.entries.push_front(entry) } else { inner.entries.push_back(entry) }",
    }

    /// What is set aside for an actor that waits comes out in the other order.
    aside_is_a_stack breaks 3 {
        "inbox.rs": "self.aside.entry(key).or_default().push_back(entry);"
            => "let aside = self.aside.entry(key).or_default();
                if MUTANT { aside.push_front(entry) } else { aside.push_back(entry) }",
    }

    /// The end of a run swallows the message behind it.
    run_takes_one_too_many breaks 3 {
        "inbox.rs": "(before - *left) as isize"
            => "if MUTANT && before - *left > 1 && self.batch.len() > 1 {
                    self.batch.pop_front();
                }
                (before - *left) as isize",
    }

    /// Dead letters are not counted.
    dead_letters_do_not_count breaks 3 {
        "addr.rs": "What::Message { .. } | What::Push(_) => true,"
            => "What::Message { .. } | What::Push(_) => !MUTANT,",
    }

    /// A push is handed out twice.
    push_walks_twice breaks 3 {
        "inbox.rs": "let is_done = walk.next == group.places();"
            => "if MUTANT && walk.next == group.places() && walk.makes.len() == 1 && *left > 0 {
                    let again = walk.makes.pop();
                    walk.makes.extend(again);
                    walk.next = 0;
                    if let Some(make) = walk.makes.first_mut()
                        && group.places() > 0
                        && let Present::At(index) = hosts.present(group.at(0))
                    {
                        let deliver = self.deliver;
                        hosts.call(index, |actor, call| deliver(actor, make(), call));
                    }
                    walk.next = group.places();
                }
                let is_done = walk.next == group.places();",
    }

    /// The timeout of a question is heard after its answer.
    answer_and_timeout breaks 3 {
        "ask.rs": "impl<R: Send + 'static> Fails for Question<R> {
    fn fail(&self, error: AskError) {"
            => "impl<R: Send + 'static> Fails for Question<R> {
    fn fail(&self, error: AskError) {
        if MUTANT { lock(&self.deliver).take(); return; }",
    }

    // ---- 4: no wake is lost, none is superfluous ------------------------------------------------

    /// A push finds the poller asleep and says nothing.
    push_wakes_nobody breaks 4 {
        "mailbox.rs": "Ok(before & ASLEEP != 0)" => "Ok(before & ASLEEP != 0 && !MUTANT)",
    }

    /// A mailbox is armed without a sign for its senders.
    arm_leaves_no_sign breaks 4 {
        "mailbox.rs": "*word |= ASLEEP;" => "if !MUTANT { *word |= ASLEEP; }",
    }

    /// The waker is told, and writes nothing.
    waker_does_not_write breaks 4 {
        "waker.rs": "self.fd.wake();" => "if !MUTANT { self.fd.wake(); }",
    }

    /// Whoever finds a sleeping mailbox writes, though another mailbox's sender has.
    each_mailbox_wakes breaks 4 {
        "waker.rs": "if self.state.swap(AWAKE, Ordering::AcqRel) == ASLEEP {"
            => "if self.state.swap(AWAKE, Ordering::AcqRel) == ASLEEP || MUTANT {",
    }

    /// A poller that gets up does not tell its senders.
    senders_wake_who_is_awake breaks 4 {
        "mailbox.rs": "if self.peek() & ASLEEP != 0 {" => "if self.peek() & ASLEEP != 0 && !MUTANT {",
        "waker.rs": "pub fn get_up(&self) { self.state.swap(AWAKE, Ordering::AcqRel);"
            => "pub fn get_up(&self) { if MUTANT { return; } self.state.swap(AWAKE, Ordering::AcqRel);",
    }

    /// A poller arms the mailbox of its commands alone.
    inboxes_are_not_armed breaks 4 {
        "poller.rs": "self.registry.commands.arm() && self.inboxes.iter().all(|inbox| inbox.arm())"
            => "self.registry.commands.arm() && (MUTANT || self.inboxes.iter().all(|inbox| inbox.arm()))",
    }

    // ---- 5: bytes leave in order and whole ------------------------------------------------------

    /// What the socket did not take of a write is forgotten.
    rest_of_a_write_is_dropped breaks 5 {
        "hosts/output.rs": "Ok(sent) if sent == len => {" => "Ok(sent) if sent == len || MUTANT => {",
    }

    /// What is written while output waits goes out in front of it.
    new_output_overtakes breaks 5 {
        "hosts/output.rs": "if flush == Flush::EndOfTurn || queued > 0 || is_secured {"
            => "if flush == Flush::EndOfTurn || queued > 0 && !MUTANT || is_secured {",
    }

    /// What was sent is sent again.
    sent_again breaks 5 {
        "hosts/output.rs": "self.keep_staged(index, sent);"
            => "self.keep_staged(index, if MUTANT { sent / 2 } else { sent });",
    }

    /// Payloads that are handed over come before what was copied in front of them.
    payload_out_of_its_place breaks 5 {
        "output.rs": "let position = self.sent + (self.copied.len() - self.head) as u64;"
            => "let position = if MUTANT && self.shared.is_empty() { self.sent }
                else { self.sent + (self.copied.len() - self.head) as u64 };",
    }

    /// A close does not wait for the output.
    close_without_flush breaks 5 {
        "hosts/close.rs": "if self.queued_at(index) == 0 {
            self.finish_close(index);"
            => "if self.queued_at(index) == 0 || MUTANT {
            self.finish_close(index);",
    }

    /// A half-close does not wait for the output.
    half_close_without_flush breaks 5 {
        "hosts/output.rs": "if queued > 0 || !flags.has(Flags::SHUT_PENDING) {"
            => "if queued > 0 && !MUTANT || !flags.has(Flags::SHUT_PENDING) {",
    }

    /// A close does not linger: what the peer still sends makes the kernel reset the connection.
    no_linger breaks 5 {
        "hosts/close.rs": "if !lingers {" => "if !lingers || MUTANT {",
    }

    /// A socket that refused bytes is never asked again.
    blocked_for_ever breaks 5 {
        "hosts/readiness.rs": "let writes = flags.has(Flags::BLOCKED) &&"
            => "let writes = flags.has(Flags::BLOCKED) && !MUTANT &&",
    }

    /// What a panicking callback wrote goes to the next connection.
    output_of_the_dead breaks 5 {
        "hosts/mod.rs": "self.call.staged.clear();
                let what = self.note_panic(index, &*panic);"
            => "if !MUTANT { self.call.staged.clear(); }
                let what = self.note_panic(index, &*panic);",
    }

    /// A stream that is cut short has an orderly end.
    cut_is_orderly breaks 5 {
        "hosts/close.rs": "if is_cut {" => "if is_cut && !MUTANT {",
    }

    /// ... where a panic has cut it.
    panic_is_orderly breaks 5 {
        "hosts/mod.rs": "self.call.over + self.call.pieces > 0 {"
            => "self.call.over + self.call.pieces > 0 && !MUTANT {",
    }

    /// Two slices of the input that are apart are sent as one.
    slices_with_a_gap breaks 5 {
        "output.rs": "} else if self.shown.end == range.start {"
            => "} else if self.shown.end == range.start || MUTANT {",
    }

    /// The half-close is told before what was kept is shown.
    kept_input_is_dropped_at_the_end breaks 5 {
        "hosts/input.rs": "if extra.is_some_and(|extra| extra.unread() > 0) {
            self.show(index, Shown::Kept, true);"
            => "if extra.is_some_and(|extra| extra.unread() > 0) && !MUTANT {
            self.show(index, Shown::Kept, true);",
    }

    /// Kept input stands behind what is read next.
    kept_input_is_forgotten breaks 5 {
        "hosts/input.rs": "extra.kept.extend_from_slice(&buffer[consumed..len]);"
            => "extra.kept.extend_from_slice(&buffer[(consumed + usize::from(MUTANT)).min(len)..len]);",
    }

    /// A write where there is no socket leads nowhere, and nobody is told.
    silent_write breaks 5 {
        "call.rs": "assert!(
            self.flags.has(Flags::SOCKET),
            \"write: this actor has no socket\"
        );"
            => "if MUTANT && !self.flags.has(Flags::SOCKET) { return true; }
                assert!(self.flags.has(Flags::SOCKET), \"write: this actor has no socket\");",
    }

    /// A call that a signal interrupts is not made again.
    interrupted_is_failed breaks 5 {
        "sys/mod.rs": "Err(error) if error.kind() == io::ErrorKind::Interrupted => {}"
            => "Err(error) if error.kind() == io::ErrorKind::Interrupted && !MUTANT => {}",
    }

    // ---- 6: each opened has one closed ----------------------------------------------------------

    /// A panic ends an actor without `closed`.
    panic_without_closed breaks 6 {
        "hosts/close.rs": "if slot.flags.take(Flags::OPENED) {"
            => "let skips = matches!(reason, CloseReason::Panicked(_)) && MUTANT;
                let slot = &mut self.slots[index];
                if slot.flags.take(Flags::OPENED) && !skips {",
    }

    /// A connection that lingers is told its end a second time.
    closed_twice breaks 6 {
        "hosts/close.rs": "self.log_end(index, reason);"
            => "if MUTANT {
                let slot = &mut self.slots[index];
                begin(&mut self.call, slot, index, &self.extras);
                if let Some(actor) = slot.actor.as_deref_mut() {
                    let _ = guard(|| actor.closed(reason, &mut self.call));
                }
            }
            self.log_end(index, reason);",
    }

    /// A reset frees the socket, and the actor is not told.
    reset_without_closed breaks 6 {
        "hosts/close.rs": "_ => lost(error),
        };
        self.end(index, reason);"
            => "_ if is_reset(&error) && MUTANT => {
                let actor = self.slots[index].actor.take();
                self.drop_guarded(actor);
                CloseReason::Reset
            }
            _ => lost(error),
        };
        self.end(index, reason);",
    }

    /// An actor that has closed is told that it may stop.
    called_after_closed breaks 6 {
        "hosts/mod.rs": "if self.slots[index].flags.take(flag) && !self.slots[index].flags.has(Flags::CLOSING) {
            pay(self, index);"
            => "if self.slots[index].flags.take(flag) && !self.slots[index].flags.has(Flags::CLOSING) {
            if MUTANT && flag == Flags::STOPPING {
                let called = self.enter(index, |actor, call| { actor.closed(&CloseReason::Stopped, call); Ok(()) });
                drop(called);
            }
            pay(self, index);",
    }

    /// A message comes before `opened`.
    message_before_opened breaks 6 {
        "hosts/mod.rs": "if self.slots[index].flags.has(Flags::OPENING) {
            self.open(index);"
            => "if self.slots[index].flags.has(Flags::OPENING) && !MUTANT {
            self.open(index);",
    }

    /// When the poller ends, so do its actors, unheard.
    end_without_closed breaks 6 {
        "hosts/close.rs": "_ => CloseReason::Stopped, };"
            => "_ => CloseReason::Stopped, };
                if MUTANT {
                    let actor = self.slots[index].actor.take();
                    self.drop_guarded(actor);
                }",
    }

    // ---- 7: a panic ends its actor alone --------------------------------------------------------

    /// Nobody catches a panic.
    panic_is_not_caught breaks 7 {
        "hosts/guard.rs": "catch_unwind(AssertUnwindSafe(f))"
            => "if MUTANT { return Ok(f()); } catch_unwind(AssertUnwindSafe(f))",
    }

    /// A panic takes the neighbour in the next slot along.
    panic_takes_the_neighbour breaks 7 {
        "hosts/mod.rs": "self.end(index, CloseReason::Panicked(what));"
            => "if MUTANT && self.slots.get(index + 1).is_some_and(|slot| slot.actor.is_some()) {
                    self.end(index + 1, CloseReason::Panicked(what.clone()));
                }
                self.end(index, CloseReason::Panicked(what));",
    }

    /// An actor that panicked goes on.
    panic_is_overlooked breaks 7 {
        "hosts/mod.rs": "self.end(index, CloseReason::Panicked(what));"
            => "if !MUTANT { self.end(index, CloseReason::Panicked(what)); }",
    }

    /// Panics are not counted.
    panics_do_not_count breaks 7 {
        "hosts/guard.rs": "Counters::add(&door.counters.panics, 1);"
            => "if !MUTANT { Counters::add(&door.counters.panics, 1); }",
    }

    // ---- 8: memory is bounded -------------------------------------------------------------------

    /// The budget of output is not looked at.
    output_without_bound breaks 8 {
        "call.rs": "if self.queued + self.staged.len() + self.over + len <= self.options().free_max {"
            => "if MUTANT || self.queued + self.staged.len() + self.over + len <= self.options().free_max {",
    }

    /// The budget of input is not looked at.
    input_without_bound breaks 8 {
        "hosts/input.rs": "if len > limit && !paused" => "if len > limit && !MUTANT && !paused",
    }

    /// A mailbox takes whatever comes.
    mailbox_without_bound breaks 8 {
        "mailbox.rs": "} else if count >= self.bound {"
            => "} else if MUTANT { Admission::Room { count: 0 } } else if count >= self.bound {",
    }

    /// A listener accepts one more than it may.
    limit_off_by_one breaks 8 {
        "limits.rs": "(taken < self.max).then_some(taken + 1)"
            => "(taken < self.max + usize::from(MUTANT)).then_some(taken + 1)",
    }

    /// A listener at its limit is not told that it has room again.
    rearm_is_not_sent breaks 8 {
        "entrance.rs": "for home in &self.homes {"
            => "for home in self.homes.iter().filter(|_| !MUTANT) {",
    }

    /// Pollers are not told that a listener has been resumed.
    resume_is_not_told breaks 8 {
        "listener.rs": "self.shared.pollers[*home].command(Command::Look(self.origin.clone()));"
            => "if paused || !MUTANT { self.shared.pollers[*home].command(Command::Look(self.origin.clone())); }",
    }

    /// Those who wait for room are not told.
    room_is_not_told breaks 8 {
        "mailbox.rs": "word & WAITERS != 0 && self.is_below_half(word)"
            => "word & WAITERS != 0 && self.is_below_half(word) && !MUTANT",
    }

    /// An actor that was told of room is not asked to go on.
    room_is_lost breaks 8 {
        "hosts/mod.rs": "if !self.slots[index].flags.take(Flags::WAITING)"
            => "if MUTANT || !self.slots[index].flags.take(Flags::WAITING)",
    }

    /// A flood to one takes the whole mailbox.
    share_is_not_looked_at breaks 8 {
        "addr.rs": "Hold::Full => Err(SendErrorKind::Full)," => "Hold::Full => if MUTANT { Ok(false) } else { Err(SendErrorKind::Full) },",
    }

    // ---- 9: nothing blocks a poller -------------------------------------------------------------

    /// An ask that blocks is let through on a poller's thread.
    ask_blocks_a_poller breaks 9 {
        "ask.rs": "assert!(
            !on_poller_thread(),"
            => "if MUTANT && on_poller_thread() { return Err(AskError::TimedOut); }
                assert!(
            !on_poller_thread(),",
    }

    /// A write waits until the socket takes it.
    write_that_blocks breaks 9 {
        "hosts/output.rs": "return ControlFlow::Break(self.block(index));
            }"
            => "if MUTANT && crate::mutant::blocks() { return ControlFlow::Continue(()); }
                return ControlFlow::Break(self.block(index));
            }",
    }

    // ---- 10: an idle connection owns no buffers -------------------------------------------------

    /// What is empty is kept.
    extra_is_kept breaks 10 {
        "hosts/extras.rs": "if extra.is_some_and(Extra::is_idle) {"
            => "if extra.is_some_and(Extra::is_idle) && !MUTANT {",
    }

    /// What was flushed keeps its buffer.
    flushed_output_is_kept breaks 10 {
        "hosts/output.rs": "self.tidy(index);" => "if !MUTANT { self.tidy(index); }",
    }

    // ---- 11: stopping is graceful ---------------------------------------------------------------

    /// The backlog of a listener that closes is reset.
    backlog_is_not_accepted breaks 11 {
        "acceptor.rs": "for _ in 0..LAST_ACCEPTS.max(2 * entrance.backlog) {" => "for _ in 0..if MUTANT { 0 } else { LAST_ACCEPTS.max(2 * entrance.backlog) } {",
    }

    /// A Unix socket's path stays.
    path_is_left breaks 11 {
        "sys/unix_path.rs": "UnixPath::Simulated(listener) => listener.remove_file(),"
            => "UnixPath::Simulated(listener) => if !MUTANT { listener.remove_file() },",
    }

    /// Listeners stay when the system stops.
    listeners_stay breaks 11 {
        "acceptor.rs": "pub(crate) fn close_all(&mut self, hosts: &mut Hosts) {"
            => "pub(crate) fn close_all(&mut self, hosts: &mut Hosts) { if MUTANT { return; }",
    }

    /// A poller that is told to stop does not wait for what its connections have to flush.
    stop_does_not_wait breaks 11 {
        "poller.rs": "done && !self.hosts.owes() || past(deadline)" => "MUTANT || done && !self.hosts.owes() || past(deadline)",
    }

    /// The deadline of a stop means nothing.
    deadline_means_nothing breaks 11 {
        "poller.rs": "|| past(deadline)" => "|| past(deadline) && !MUTANT",
    }
}
