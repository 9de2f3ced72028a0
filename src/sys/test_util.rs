//! What the tests of this folder share.

use std::env;
use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Events, Interest, Selector, SelectorKind};

/// How long a test waits for what has to come; it is never waited for to the end.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Blocks until `source` is ready in the direction of `interest`.
pub(crate) fn wait_for(source: &impl AsFd, interest: Interest) {
    let kind = SelectorKind::of_environment().unwrap();
    let mut selector = Selector::new(kind).unwrap();
    let mut events = Events::with_capacity(1);
    selector
        .register(source.as_fd().into(), 0, interest)
        .unwrap();
    selector.wait(&mut events, Some(TIMEOUT)).unwrap();
    assert_eq!(events.len(), 1, "not ready for {interest:?}");
}

/// A directory of a test's own, removed at its end.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    /// Makes it.
    pub(crate) fn new() -> TempDir {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("greenroom-{}-{count}", process::id()));
        fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    /// The path of a file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
