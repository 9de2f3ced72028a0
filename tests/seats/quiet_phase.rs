fn seats_come_back(simulation: &mut Simulation) {
    simulation.faults(Faults::all());
    let (system, clerk, log) = begin(simulation);
    simulation.run_for(Duration::from_secs(20));

    simulation.heal();
    simulation.run_until(Duration::from_secs(600), |_| {
        log.borrow().gone == VISITORS && system.stats().connections == 0
    });
    let free = simulation.ask(&clerk, Duration::from_secs(1), ToClerk::CountFree);
    assert_eq!(free, Ok(SEATS), "free seats when everybody has gone");
}
