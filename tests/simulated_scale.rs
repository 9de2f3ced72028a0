//! Very many connections in one process without a descriptor, of which nothing grows but their
//! memory. `cargo run --release -p greenroom-benches --bin simulated` does it with a million.

use std::time::Duration;

use greenroom::testing::{Client, Simulation};
use greenroom::*;

const ADDR: &str = "127.0.0.1:9000";

/// Well below the default backlog, which all of a batch wait in.
const BATCH: usize = 1000;

const ECHOES: usize = 200;

struct Echo;

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

/// The turns that some echoes take beside so many idle connections.
fn turns_of_echoes(connections: usize) -> usize {
    let mut simulation = Simulation::new(1);
    let system = simulation.system(System::builder().pollers(2));
    system.listen(ADDR, |_peer| Echo).unwrap();
    let mut clients: Vec<Client> = Vec::new();
    while clients.len() < connections {
        let batch = BATCH.min(connections - clients.len());
        clients.extend((0..batch).map(|_| simulation.client(ADDR)));
        let all = clients.len() as u64;
        simulation.run_until(Duration::from_secs(1), |_| system.stats().opened == all);
    }
    simulation.run_for(Duration::from_millis(1));

    let mut turns = 0;
    for echo in 0..ECHOES {
        let client = &clients[echo * 37 % connections];
        client.send("ping");
        while client.received().is_empty() {
            assert!(simulation.step());
            turns += 1;
        }
    }
    drop(clients);
    simulation.finish(Duration::from_secs(1));
    assert_eq!(system.stats().closed, connections as u64);
    turns
}

#[test]
fn an_echo_takes_as_many_turns_beside_many_idle_connections_as_beside_few() {
    let few = turns_of_echoes(100);
    let many = turns_of_echoes(30_000);
    assert!(
        many <= few + ECHOES / 10,
        "{few} turns beside 100, {many} beside 30,000"
    );
}
