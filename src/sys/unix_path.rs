//! The file that a listening Unix socket has, and that outlives it unless somebody removes it.
//!
//! Its tests are with the listening socket.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::addr::Endpoint;
use super::simulated::Number;
use super::socket::Socket;

/// Removes the socket file at `path` if nobody listens on it.
///
/// A server that starts at this very moment looks dead between its bind and its listen, and loses
/// its file to us. Closing that gap would take a lock file beside every socket.
pub(super) fn remove_dead_socket(endpoint: &Endpoint, path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the path exists and is not a socket",
            ));
        }
        // Gone by itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match Socket::connect(endpoint) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Connected (the server sees a connection that ends at once), or an error that says no more
        // than that somebody may be there: a full backlog, another type of socket, missing
        // permission.
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another server is listening there",
            ));
        }
    }
    fs::remove_file(path)
}

/// The file of a bound Unix socket, removed on drop if it still is the one that we bound.
///
/// It has to be dropped while the socket is open. An open socket keeps its inode, so that no other
/// file can have the same number; after the close a server that took our place could.
#[derive(Debug)]
pub(crate) enum UnixPath {
    File {
        path: PathBuf,
        device: u64,
        inode: u64,
        /// Set once it is ours, where it is another process's before.
        is_ours: Option<Arc<AtomicBool>>,
    },
    /// That of a listener on this thread's network.
    Simulated(Number),
}

impl UnixPath {
    /// Remembers the file that a bind has just made at `path`.
    pub(super) fn of(path: &Path) -> io::Result<UnixPath> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(UnixPath::File {
            // Absolute, for the process may change its directory meanwhile.
            path: std::path::absolute(path)?,
            device: metadata.dev(),
            inode: metadata.ino(),
            is_ours: None,
        })
    }

    /// The file of a socket that another process has bound, and gives up when `flag` is set.
    pub(super) fn taken_over(path: &Path, flag: Arc<AtomicBool>) -> io::Result<UnixPath> {
        let mut taken = UnixPath::of(path)?;
        if let UnixPath::File { is_ours, .. } = &mut taken {
            *is_ours = Some(flag);
        }
        Ok(taken)
    }

    /// Where it is.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            UnixPath::File { path, .. } => Some(path),
            UnixPath::Simulated(_) => None,
        }
    }

    /// From here on it is another process's to remove.
    pub(super) fn give_up(&mut self) {
        if let UnixPath::File { is_ours, .. } = self {
            *is_ours = Some(Arc::default());
        }
    }
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        match self {
            UnixPath::File {
                path,
                device,
                inode,
                is_ours,
            } => {
                if is_ours
                    .as_ref()
                    .is_some_and(|flag| !flag.load(Ordering::Acquire))
                {
                    return;
                }
                let still_ours = fs::symlink_metadata(&path)
                    .is_ok_and(|found| found.dev() == *device && found.ino() == *inode);
                if still_ours {
                    // A file that stays behind is replaced by the next server.
                    let _ = fs::remove_file(path);
                }
            }
            UnixPath::Simulated(listener) => listener.remove_file(),
        }
    }
}
