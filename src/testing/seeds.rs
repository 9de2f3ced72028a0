//! One scenario, many seeds.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::simulation::Simulation;

/// How much of the trace of a failed run is shown.
const TAIL: usize = 80;

/// How long a scenario that does not say so itself is given to stop.
const STOP: Duration = Duration::from_secs(30);

/// Runs `scenario` for each of the first `seeds` seeds, each in a [`Simulation`] of its own, which
/// it [finishes](Simulation::finish) unless the scenario has.
///
/// The seed of a run that fails is printed, with the rates of its faults, the end of its trace and
/// the command that replays it. Two variables of the environment are heeded:
///
/// - `GREENROOM_SEED=n` runs this one seed alone and prints its whole trace;
/// - `GREENROOM_SEEDS=n` runs so many seeds instead.
///
/// # Panics
///
/// As the scenario does; and when one of the variables is not a number.
pub fn for_each_seed(seeds: u64, scenario: impl Fn(&mut Simulation)) {
    if let Some(seed) = number("GREENROOM_SEED") {
        return run(seed, true, &scenario);
    }
    for seed in 0..number("GREENROOM_SEEDS").unwrap_or(seeds) {
        run(seed, false, &scenario);
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={value}: not a number")))
}

fn run(seed: u64, is_replay: bool, scenario: &impl Fn(&mut Simulation)) {
    let mut simulation = Simulation::new(seed);
    if is_replay {
        simulation.keep_whole_trace();
    }
    let mut rates = String::new();
    // The simulation is looked at after a panic, and then dropped.
    let result = catch_unwind(AssertUnwindSafe(|| {
        scenario(&mut simulation);
        rates = simulation.rates();
        if !simulation.is_finished() {
            simulation.finish(STOP);
        }
    }));
    if is_replay {
        eprint!("{}", simulation.trace());
    }
    if let Err(panic) = result {
        if rates.is_empty() {
            rates = simulation.rates();
        }
        if !is_replay {
            eprintln!("the end of the trace:\n{}", simulation.trace().tail(TAIL));
        }
        let elapsed = simulation.elapsed();
        eprintln!("seed {seed} failed after {elapsed:?} of simulated time; faults: {rates}");
        eprintln!("to see all of it: {}", command(seed));
        // Its actors may panic once more when they are dropped, and that would hide the reason.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(simulation)));
        resume_unwind(panic);
    }
}

/// What replays a seed of the test that runs on this thread.
fn command(seed: u64) -> String {
    let target = env::current_exe()
        .ok()
        .and_then(|path| target(&path, env::var("CARGO_PKG_NAME").ok().as_deref()));
    let target = target.unwrap_or_default();
    // The test runner calls the threads by the tests, unless there is only one.
    let test = match thread::current().name() {
        Some(name) if name != "main" => format!(" {name} -- --exact --nocapture"),
        _ => " -- --nocapture".to_owned(),
    };
    format!("GREENROOM_SEED={seed} cargo test{target}{test}")
}

/// The options that choose this program: `target/debug/deps/chat-0123456789abcdef`.
fn target(path: &Path, package: Option<&str>) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    let (name, hash) = stem.rsplit_once('-')?;
    if hash.len() != 16 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let package = package?;
    if name == package.replace('-', "_") {
        return Some(format!(" -p {package} --lib"));
    }
    Some(format!(" -p {package} --test {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_what_was_run() {
        let path = Path::new("/x/target/debug/deps/chat-0123456789abcdef");
        let of = |package| target(path, Some(package));
        assert_eq!(of("greenroom").unwrap(), " -p greenroom --test chat");
        assert_eq!(of("chat").unwrap(), " -p chat --lib");
        assert_eq!(target(path, None), None);
        assert_eq!(target(Path::new("/x/chat"), Some("chat")), None);
        let command = command(7);
        assert!(
            command.starts_with("GREENROOM_SEED=7 cargo test"),
            "{command}"
        );
    }
}
