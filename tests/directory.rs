//! Names and groups of actors: typed, of one system, and without those that have gone.

mod util;

use std::time::Duration;

use greenroom::testing::for_each_seed;
use greenroom::*;
use util::*;

/// An actor of another type, which takes numbers.
struct Other;

impl Actor for Other {
    type Message = u32;
}

/// ... and one more that takes numbers.
struct Third;

impl Actor for Third {
    type Message = u32;
}

fn system() -> (System, Handle) {
    let system = builder(2).build().unwrap();
    let handle = system.handle();
    (system, handle)
}

#[test]
fn an_actor_is_found_by_its_name_and_type_as_long_as_it_lives() {
    let (system, handle) = system();
    let probe = spawn(&system, 1, |probe| probe);
    assert_eq!(handle.lookup::<Probe>("probe"), Ok(None));
    handle.register("probe", &probe.addr).unwrap();
    assert_eq!(
        handle.lookup::<Probe>("probe"),
        Ok(Some(probe.addr.clone()))
    );
    // From inside, too.
    let found = probe.run(|ctx| ctx.system().lookup::<Probe>("probe"));
    assert_eq!(found, Ok(Some(probe.addr.clone())));

    let wrong = handle.lookup::<Other>("probe").unwrap_err();
    let text = wrong.to_string();
    assert!(
        text.starts_with("lookup: the actor \"probe\" is of type"),
        "{text}"
    );
    assert!(text.contains("Probe") && text.ends_with("Other"), "{text}");

    probe.addr.close();
    wait_until("it is not found", || {
        handle.lookup::<Probe>("probe") == Ok(None)
    });
    assert_eq!(handle.lookup::<Other>("probe"), Ok(None), "it is nobody's");
}

#[test]
fn a_name_is_one_actors_at_a_time() {
    let (system, handle) = system();
    let (first, second) = (spawn(&system, 0, |probe| probe), spawn(&system, 1, |p| p));
    handle.register("name", &first.addr).unwrap();
    handle
        .register("name", &first.addr)
        .expect("it has it already");
    handle.register("another", &first.addr).expect("two names");
    let taken = handle.register("name", &second.addr).unwrap_err();
    assert_eq!(taken, NameError::Taken(first.addr.id()));
    assert!(taken.to_string().contains(&first.addr.id().to_string()));
    let other = system.spawn(|| Other);
    assert!(
        handle.register("name", &other).is_err(),
        "whatever its type"
    );

    first.addr.close();
    wait_until("the name is free", || {
        handle.register("name", &second.addr).is_ok()
    });
    // What the first one leaves behind does not take the name from the second.
    first.to_the_end();
    settle(&system);
    assert_eq!(handle.lookup("name"), Ok(Some(second.addr.clone())));
    assert_eq!(handle.lookup::<Probe>("another"), Ok(None));
}

#[test]
fn a_name_is_taken_back_and_given_to_another() {
    let (system, handle) = system();
    let (first, second) = (spawn(&system, 0, |probe| probe), spawn(&system, 1, |p| p));
    assert!(!handle.unregister("name"));
    handle.register("name", &first.addr).unwrap();
    assert!(handle.unregister("name"));
    assert_eq!(handle.lookup::<Probe>("name"), Ok(None));
    handle.register("name", &second.addr).unwrap();
    first.addr.close();
    first.to_the_end();
    settle(&system);
    assert_eq!(handle.lookup("name"), Ok(Some(second.addr.clone())));
}

#[test]
fn one_that_has_gone_gets_no_name_and_joins_nothing() {
    let (system, handle) = system();
    let probe = spawn(&system, 0, |probe| probe);
    probe.addr.close();
    probe.to_the_end();
    wait_until("it has gone", || probe.addr.is_gone());
    assert_eq!(handle.register("name", &probe.addr), Err(NameError::Gone));
    handle
        .join_group::<Job>("group", probe.addr.clone())
        .unwrap();
    assert!(handle.members::<Job>("group").unwrap().is_empty());
}

#[test]
fn names_are_those_of_one_system() {
    let (system, handle) = system();
    let elsewhere = builder(1).build().unwrap();
    let probe = spawn(&system, 0, |probe| probe);
    handle.register("name", &probe.addr).unwrap();
    assert_eq!(elsewhere.handle().lookup::<Probe>("name"), Ok(None));
    // An actor of another system may be known in this one, and leaves it as any.
    let guest = spawn(&elsewhere, 0, |probe| probe);
    handle.register("guest", &guest.addr).unwrap();
    drop(elsewhere);
    assert_eq!(handle.lookup::<Probe>("guest"), Ok(None));
}

#[test]
fn a_guest_is_told_from_whoever_has_the_same_place_at_home() {
    let (system, handle) = system();
    let elsewhere = builder(2).build().unwrap();
    let (ours, guest) = (system.spawn(|| Other), elsewhere.spawn(|| Other));
    assert_eq!(ours.id(), guest.id(), "each is the first of its system");
    handle.register("name", &ours).unwrap();
    assert!(handle.register("name", &guest).is_err(), "it is ours");
    handle.join_group::<u32>("group", ours.clone()).unwrap();
    handle.join_group::<u32>("group", guest.clone()).unwrap();
    assert_eq!(handle.members::<u32>("group").unwrap().len(), 2);
    assert!(handle.leave_group("group", &ours));
    assert!(!handle.leave_group("group", &ours), "the guest stays");
    drop(elsewhere);
    assert!(handle.members::<u32>("group").unwrap().is_empty());
}

#[test]
fn a_supervised_actor_keeps_its_name() {
    let (system, handle) = system();
    let restart = Restart::new().backoff(Duration::ZERO, Duration::ZERO);
    let addr = handle.supervise(restart, || Fragile);
    handle.register("fragile", &addr).unwrap();
    addr.send(()).unwrap();
    wait_until("it was made anew", || system.stats().restarts == 1);
    settle(&system);
    assert_eq!(handle.lookup("fragile"), Ok(Some(addr)));
}

struct Fragile;

impl Actor for Fragile {
    type Message = ();

    fn message(&mut self, _: (), _: &mut Context<'_, Self>) -> Outcome {
        panic!("told to")
    }
}

#[test]
fn a_group_is_of_all_that_take_one_message_in_the_order_in_which_they_joined() {
    let (system, handle) = system();
    let (first, second) = (system.spawn(|| Other), system.spawn(|| Third));
    handle.join_group::<u32>("group", second.clone()).unwrap();
    handle.join_group::<u32>("group", first.clone()).unwrap();
    handle.join_group::<u32>("group", second.clone()).unwrap();
    let ids = |group: &str| {
        let members = handle.members::<u32>(group).unwrap().into_iter();
        members.map(|member| member.id()).collect::<Vec<_>>()
    };
    assert_eq!(ids("group"), [second.id(), first.id()]);
    assert!(ids("nobody's").is_empty());

    let probe = spawn(&system, 0, |probe| probe);
    let wrong = handle.join_group::<Job>("group", probe.addr.clone());
    let text = wrong.unwrap_err().to_string();
    assert!(
        text.starts_with("join_group: the group \"group\" is of type u32"),
        "{text}"
    );
    assert!(handle.members::<Job>("group").is_err());

    assert!(handle.leave_group("group", &second));
    assert!(!handle.leave_group("group", &second));
    assert_eq!(ids("group"), [first.id()]);
    first.close();
    wait_until("it is empty", || ids("group").is_empty());
    settle(&system);
    // It went with its last member, and may be of another type now.
    handle
        .join_group::<Job>("group", probe.addr.clone())
        .unwrap();
    assert_eq!(handle.members::<Job>("group").unwrap().len(), 1);
}

#[test]
fn a_group_of_those_who_have_gone_is_nobodys() {
    let (system, handle) = system();
    // In its last callback an actor has gone, and its place in the group is not given back yet.
    let (seen, joined) = std::sync::mpsc::channel();
    let heir = system.spawn(|| Other);
    let probe = spawn(&system, 0, move |probe| {
        let (heir, seen) = (heir.clone(), seen.clone());
        probe.on_closed(move |_, ctx| {
            let handle = ctx.system();
            let members = handle.members::<u32>("group").map(|members| members.len());
            let joins = handle.join_group::<u32>("group", heir.clone());
            seen.send((members, joins)).unwrap();
        })
    });
    let addr = probe.addr.clone();
    handle.join_group::<Job>("group", addr).unwrap();
    assert!(handle.members::<u32>("group").is_err());
    probe.addr.close();
    assert_eq!(next(&joined), (Ok(0), Ok(())));
    settle(&system);
    // What the first one leaves behind takes nothing from its heir.
    assert_eq!(handle.members::<u32>("group").unwrap().len(), 1);
}

#[test]
fn whoever_goes_leaves_nothing_in_the_directory() {
    let (system, handle) = system();
    for n in 0..1_000 {
        let probe = spawn(&system, n % 2, |probe| probe);
        handle.register(format!("name {n}"), &probe.addr).unwrap();
        handle
            .join_group::<Job>("group", probe.addr.clone())
            .unwrap();
        probe.addr.close();
        probe.to_the_end();
    }
    settle(&system);
    assert_eq!(handle.names(), Vec::<String>::new());
    assert_eq!(handle.groups(), Vec::<String>::new());
}

#[test]
fn by_seeds_a_name_is_of_one_that_lives_or_of_nobody() {
    for_each_seed(40, |simulation| {
        let system = simulation.system(System::builder().pollers(3));
        let handle = system.handle();
        let mut holder: Option<Addr<Other>> = None;
        for _ in 0..50 {
            match simulation.random().below(3) {
                0 => {
                    let other = system.spawn(|| Other);
                    let given = handle.register("name", &other);
                    let is_free = holder.as_ref().is_none_or(Addr::is_gone);
                    assert_eq!(given.is_ok(), is_free);
                    if is_free {
                        holder = Some(other);
                    }
                }
                1 => {
                    if let Some(holder) = &holder {
                        holder.close();
                    }
                }
                _ => {
                    let time = Duration::from_micros(simulation.random().below(50));
                    simulation.run_for(time);
                }
            }
            let found = handle.lookup::<Other>("name").unwrap();
            let living = holder.clone().filter(|holder| !holder.is_gone());
            assert_eq!(found, living);
        }
    });
}

#[test]
fn by_seeds_a_group_is_of_those_that_joined_and_live() {
    for_each_seed(40, |simulation| {
        let system = simulation.system(System::builder().pollers(3));
        let handle = system.handle();
        let mut actors: Vec<Addr<Other>> = Vec::new();
        let mut members: Vec<Addr<Other>> = Vec::new();
        for _ in 0..100 {
            let choice = simulation.random().below(actors.len() as u64 + 1) as usize;
            match (simulation.random().below(5), actors.get(choice)) {
                (0, Some(actor)) => actor.close(),
                (1, Some(actor)) => {
                    let was_in = members.iter().position(|member| member == actor);
                    assert_eq!(handle.leave_group("group", actor), was_in.is_some());
                    members.retain(|member| member != actor);
                }
                (2 | 3, Some(actor)) => {
                    handle.join_group::<u32>("group", actor.clone()).unwrap();
                    if !actor.is_gone() && !members.contains(actor) {
                        members.push(actor.clone());
                    }
                }
                (_, Some(_)) => {
                    let time = Duration::from_micros(simulation.random().below(50));
                    simulation.run_for(time);
                    members.retain(|member| !member.is_gone());
                }
                (_, None) => actors.push(system.spawn(|| Other)),
            }
            let found = handle.members::<u32>("group").unwrap();
            let living = members.iter().filter(|member| !member.is_gone());
            let ids = found.iter().map(Recipient::id);
            assert!(ids.eq(living.map(Addr::id)));
        }
    });
}
