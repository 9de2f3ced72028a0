//! Which processors a thread runs on.

use std::io;
#[cfg(target_os = "linux")]
use std::mem;

/// Has the calling thread run on this processor alone.
#[cfg(target_os = "linux")]
pub(crate) fn pin(processor: usize) -> io::Result<()> {
    if processor >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: made of integers alone, for which zero is a valid value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the number is below the size of the set.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: `set` is readable for its size and outlives the call, which copies it.
    unsafe { syscall!(sched_setaffinity(0, mem::size_of_val(&set), &raw const set)) }?;
    Ok(())
}

/// The processors that the calling thread may run on, ascending.
#[cfg(target_os = "linux")]
pub(crate) fn processors() -> io::Result<Vec<usize>> {
    // SAFETY: as in `pin`.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is writable for its size and outlives the call.
    unsafe { syscall!(sched_getaffinity(0, mem::size_of_val(&set), &raw mut set)) }?;
    let all = 0..libc::CPU_SETSIZE as usize;
    // SAFETY: the number is below the size of the set.
    Ok(all
        .filter(|processor| unsafe { libc::CPU_ISSET(*processor, &set) })
        .collect())
}

/// Has the calling thread run on this processor alone.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_processor: usize) -> io::Result<()> {
    Err(unsupported())
}

/// The processors that the calling thread may run on, ascending.
#[cfg(not(target_os = "linux"))]
pub(crate) fn processors() -> io::Result<Vec<usize>> {
    Err(unsupported())
}

#[cfg(not(target_os = "linux"))]
fn unsupported() -> io::Error {
    let text = "threads are bound to processors on Linux only";
    io::Error::new(io::ErrorKind::Unsupported, text)
}
