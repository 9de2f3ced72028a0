//! A network of a test's own.

use std::process::Command;

/// Runs `test` in a process, a network and mounts of its own, which `script` has set up: as root, and
/// where the programs are that this takes; else it is skipped, with a line. Call it from the test
/// `name` with nothing else around.
pub(crate) fn in_own_network(name: &str, script: &str, test: impl FnOnce()) {
    const CHILD: &str = "GREENROOM_TEST_NETWORK";
    if std::env::var_os(CHILD).is_some_and(|child| child == name) {
        return test();
    }
    let unshare = |script: &str, arguments: &[&str]| {
        let this = std::env::current_exe().unwrap();
        Command::new("unshare")
            .args(["-n", "-m", "sh", "-c", script])
            .arg(this)
            .args(arguments)
            .env(CHILD, name)
            .output()
    };
    match unshare(script, &[]) {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return println!("skipped: no network of its own: {}", why.trim());
        }
        Err(error) => return println!("skipped: unshare: {error}"),
    }
    let script = format!("{script} && exec \"$0\" \"$@\"");
    let arguments = [name, "--exact", "--nocapture", "--test-threads=1"];
    let output = unshare(&script, &arguments).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}:\n{text}\n{errors}");
    assert!(text.contains("1 passed"), "the child ran no test: {text}");
}
