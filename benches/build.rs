//! Compiles the floors of `c/` into `OUT_DIR` and tells the crate where they are (`ECHO_LOOP`, `FANOUT_LOOP`).
//!
//! A machine without a C compiler still builds the package, since the micro-benchmarks need none: the
//! build warns, and whoever then starts a floor is told what to install. C that does not compile is an error.

use std::env;
use std::io;
use std::path::Path;
use std::process::Command;

fn main() {
    let out_dir = env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_string());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=c");
    println!("cargo::rerun-if-env-changed=CC");
    for name in ["echo_loop", "fanout_loop"] {
        let program = Path::new(&out_dir).join(name);
        let variable = name.to_uppercase();
        println!("cargo::rustc-env={variable}={}", program.display());
        compile(&compiler, &format!("c/{name}.c"), &program);
    }
}

fn compile(compiler: &str, source: &str, program: &Path) {
    // No -march=native: the peers are not built for this very processor either.
    let arguments = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o"];
    let status = Command::new(compiler)
        .args(arguments)
        .arg(program)
        .arg(source)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{compiler} could not compile {source}: {status}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!(
                "cargo::warning=no C compiler ({compiler}): {source} is not built, so `compare` cannot run; \
                 install one (`apt-get install gcc`) or name it in CC"
            );
            // A path that does not exist makes cargo run this script at each build, until there is a compiler.
            println!("cargo::rerun-if-changed={}", program.display());
        }
        Err(error) => panic!("cannot run the C compiler {compiler}: {error}"),
    }
}
