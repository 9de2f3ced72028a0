//! Compiles the floor, `c/echo_loop.c`, into `OUT_DIR` and tells the crate where it is (`ECHO_LOOP`).
//!
//! A machine without a C compiler still builds the package, since the micro-benchmarks need none: the
//! build warns, and whoever then starts the floor is told what to install. C that does not compile is an error.

use std::env;
use std::io;
use std::path::Path;
use std::process::Command;

fn main() {
    let out_dir = env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let program = Path::new(&out_dir).join("echo_loop");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_string());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=c/echo_loop.c");
    println!("cargo::rerun-if-env-changed=CC");
    println!("cargo::rustc-env=ECHO_LOOP={}", program.display());

    // No -march=native: the peers are not built for this very processor either.
    let arguments = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o"];
    let status = Command::new(&compiler)
        .args(arguments)
        .arg(&program)
        .arg("c/echo_loop.c")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{compiler} could not compile c/echo_loop.c: {status}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!(
                "cargo::warning=no C compiler ({compiler}): the C echo loop is not built, so `compare` cannot run; \
                 install one (`apt-get install gcc`) or name it in CC"
            );
            // A path that does not exist makes cargo run this script at each build, until there is a compiler.
            println!("cargo::rerun-if-changed={}", program.display());
        }
        Err(error) => panic!("cannot run the C compiler {compiler}: {error}"),
    }
}
