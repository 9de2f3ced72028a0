//! One scenario, many seeds.

use std::env;
use std::ffi::OsStr;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::simulation::Simulation;
use crate::hosts::panic_text;

/// How much of the trace of a failed run is shown.
const TAIL: usize = 80;

/// How long a scenario that does not say so itself is given to stop.
const STOP: Duration = Duration::from_secs(30);

/// Runs `scenario` for each seed from 0 to `seeds - 1`, each in a [`Simulation`] of its own, which
/// it [finishes](Simulation::finish) within 30 seconds unless the scenario has.
///
/// The first run that fails is the last. Printed are the end of its trace, the seed, what failed, the
/// rates of its faults, and the command that replays it. Two variables of the environment are heeded:
///
/// - `GREENROOM_SEED=n` runs this one seed alone and prints its whole trace;
/// - `GREENROOM_SEEDS=n` runs so many seeds instead, `GREENROOM_SEEDS=a..b` those from `a` to `b - 1`.
///
/// # Panics
///
/// As the scenario does; and when one of the variables cannot be read.
pub fn for_each_seed(seeds: u64, scenario: impl Fn(&mut Simulation)) {
    if let Some(seed) = asked("GREENROOM_SEED", |value| value.parse().ok()) {
        return run(seed, true, &scenario);
    }
    for seed in asked("GREENROOM_SEEDS", seeds_of).unwrap_or(0..seeds) {
        run(seed, false, &scenario);
    }
}

/// What a variable of the environment asks for.
fn asked<T>(variable: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let value = env::var(variable).ok()?;
    let read = read(&value);
    Some(read.unwrap_or_else(|| panic!("{variable}={value}: not a number")))
}

/// `1000`, or `1000..2000`.
fn seeds_of(value: &str) -> Option<Range<u64>> {
    match value.split_once("..") {
        Some((first, end)) => Some(first.parse().ok()?..end.parse().ok()?),
        None => Some(0..value.parse().ok()?),
    }
}

fn run(seed: u64, is_replay: bool, scenario: &impl Fn(&mut Simulation)) {
    let mut simulation = Simulation::new(seed);
    if is_replay {
        simulation.keep_whole_trace();
    }
    // The simulation is looked at after a panic, and then dropped.
    let result = catch_unwind(AssertUnwindSafe(|| {
        scenario(&mut simulation);
        if !simulation.is_finished() {
            simulation.finish(STOP);
        }
    }));
    if is_replay {
        eprint!("{}", simulation.trace());
    }
    if let Err(panic) = result {
        if !is_replay {
            eprint!("the end of the trace:\n{}", simulation.trace().tail(TAIL));
        }
        let (elapsed, rates) = (simulation.elapsed(), simulation.rates());
        // Once more: the whole of a trace may lie between the panic and here.
        let what = panic_text(&*panic);
        eprintln!("seed {seed} failed after {elapsed:?} of simulated time: {what}");
        eprintln!("faults: {rates}");
        if !is_replay {
            eprintln!("to see all of it: {}", command(seed));
        }
        // Its actors may panic once more when they are dropped, and that would hide the reason.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(simulation)));
        resume_unwind(panic);
    }
}

/// What replays a seed of the test that runs on this thread.
fn command(seed: u64) -> String {
    let program = env::current_exe().unwrap_or_default();
    let package = env::var("CARGO_PKG_NAME").unwrap_or_default();
    let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let target = target(&program, &package, Path::new(&root));
    let profile = profile(&program);
    // The test runner calls its threads by the tests; an example of the documentation is not run
    // by it.
    let test = match thread::current().name() {
        Some(name) if name != "main" => format!(" {name} -- --exact --nocapture"),
        _ => " -- --nocapture".to_owned(),
    };
    format!("GREENROOM_SEED={seed} cargo test{profile}{target}{test}")
}

/// `target/release/deps/chat-0123456789abcdef` is without what a debug build asserts.
fn profile(program: &Path) -> &'static str {
    let folder = program.ancestors().nth(2).and_then(Path::file_name);
    if folder == Some(OsStr::new("release")) {
        " --release"
    } else {
        ""
    }
}

/// The options that choose this program: `target/debug/deps/chat-0123456789abcdef`. Where it is not
/// certain which they are, less of them: a replay then runs something else besides.
fn target(program: &Path, package: &str, root: &Path) -> String {
    if package.is_empty() {
        return String::new();
    }
    let stem = program.file_stem().and_then(OsStr::to_str);
    let Some((name, _hash)) = stem.and_then(|stem| stem.rsplit_once('-')) else {
        return match stem {
            Some("rust_out") => format!(" -p {package} --doc"),
            _ => format!(" -p {package}"),
        };
    };
    let has = |file: &str| root.join(file).is_file();
    let folder = program.parent().and_then(Path::file_name);
    let kinds: &[_] = if folder == Some(OsStr::new("examples")) {
        &[("example", "examples")]
    } else {
        &[("test", "tests"), ("bin", "src/bin"), ("bench", "benches")]
    };
    for (kind, folder) in kinds {
        // What the target is called; the program has no hyphens.
        for name in [name.to_owned(), name.replace('_', "-")] {
            if has(&format!("{folder}/{name}.rs")) || has(&format!("{folder}/{name}/main.rs")) {
                return format!(" -p {package} --{kind} {name}");
            }
        }
    }
    if name == package.replace('-', "_") && !has("src/main.rs") {
        return format!(" -p {package} --lib");
    }
    format!(" -p {package}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_so_many_or_a_range() {
        assert_eq!(seeds_of("1000"), Some(0..1000));
        assert_eq!(seeds_of("1000..2000"), Some(1000..2000));
        assert_eq!(seeds_of("many"), None);
        assert_eq!(seeds_of("1000.."), None);
    }

    #[test]
    fn the_command_names_what_was_run() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let of = |file: &str, package| {
            let file = format!("/x/target/debug/{file}-0123456789abcdef");
            target(Path::new(&file), package, root)
        };
        assert_eq!(of("deps/bytes", "greenroom"), " -p greenroom --test bytes");
        assert_eq!(of("deps/seats", "greenroom"), " -p greenroom --test seats");
        assert_eq!(of("deps/greenroom", "greenroom"), " -p greenroom --lib");
        let push = of("examples/push", "greenroom");
        assert_eq!(push, " -p greenroom --example push");
        assert_eq!(of("deps/somewhere_else", "greenroom"), " -p greenroom");
        assert_eq!(of("deps/bytes", ""), "");
        let example = Path::new("/tmp/rustdoctest1/rust_out");
        assert_eq!(target(example, "greenroom", root), " -p greenroom --doc");
        let program = Path::new("/x/target/release/deps/bytes-0123456789abcdef");
        assert_eq!(profile(program), " --release");
        let here = command(7);
        let test = "testing::seeds::tests::the_command_names_what_was_run";
        assert!(here.starts_with("GREENROOM_SEED=7 cargo test"), "{here}");
        assert!(here.contains(test), "{here}");
    }
}
