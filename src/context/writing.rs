//! More than bytes of which a peer gets all: word that they were taken, values of which the newest
//! counts, files.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;

use crate::actor::Actor;
use crate::context::Context;
use crate::output::{FilePart, Mark, Marked};

impl<A: Actor> Context<'_, A> {
    /// Asks to be told, by [`written`](Actor::written) with this token, when the kernel has taken
    /// all that was written so far, in this callback and before. That the kernel has it says nothing
    /// of the peer, which may be far behind or gone.
    ///
    /// Never told before those bytes are taken (or, where a policy says so, dropped or replaced by
    /// newer ones that are), nor from within this callback: where nothing waits
    /// the call follows in this turn of the poller or the next, which then begins at once. A
    /// connection that closes after flushing is told first and closed then, within its
    /// [`flush_timeout`](crate::ConnectionOptions::flush_timeout); one that ends with
    /// output waiting is not told, but [`closed`](Actor::closed). Costs a connection nothing that
    /// does not use it.
    ///
    /// As many notices may wait as fit into
    /// [`output_max`](crate::ConnectionOptions::output_max), 16 bytes each. One more is as a write
    /// past it: the connection ends, or, where the [policy](crate::SlowReader) drops writes, this
    /// one is dropped, which `false` says.
    ///
    /// ```
    /// use greenroom::testing::Stage;
    /// use greenroom::*;
    ///
    /// /// Sends the numbers up to 3, each when the one before has left.
    /// struct Count;
    ///
    /// impl Actor for Count {
    ///     type Message = ();
    ///
    ///     fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         self.written(0, ctx)
    ///     }
    ///
    ///     fn written(&mut self, number: u64, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         if number == 3 {
    ///             ctx.close();
    ///             return Ok(());
    ///         }
    ///         ctx.write(format!("{number}\n"));
    ///         ctx.notify_written(number + 1);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut stage = Stage::new(Count);
    /// assert_eq!(stage.output(), "0\n1\n2\n");
    /// assert!(matches!(stage.reason(), Some(CloseReason::Finished)));
    /// ```
    ///
    /// # Panics
    ///
    /// Where there is no socket: in an actor that was spawned, and in [`closed`](Actor::closed).
    pub fn notify_written(&mut self, token: u64) -> bool {
        self.call.notify(token)
    }

    /// For an adapter that holds back what the actor inside wrote: takes out the tokens of the
    /// notices that this one has asked for in this callback, so that they can be asked for anew
    /// when the bytes are handed on. See [`nested`](Context::nested).
    pub fn take_notices(&mut self) -> Vec<u64> {
        let is_inner = |mark: &mut Mark| mark.at == usize::MAX;
        let taken = self.call.marks.extract_if(.., is_inner);
        let token = |mark: Mark| match mark.what {
            Marked::Notice(token) => Some(token),
            _ => None,
        };
        taken.filter_map(token).collect()
    }

    /// Writes the newest value of something: as long as an older one that was written under the same
    /// `key` waits, and none of it has begun to leave, this one takes its place, and the older one
    /// is never sent ([counted](crate::Stats::replaced_writes)). For prices, positions, levels: a
    /// slow reader gets fewer of them, each as new as can be, and the last one of each key always.
    ///
    /// In its place, not behind all: what changes often is not put off for ever. So a new value may
    /// come in front of what was written in between. What waits is bounded by the values of all
    /// keys, each 64 bytes more of [`output_max`](crate::ConnectionOptions::output_max) than it is
    /// long. Past that it is as with any write, judged with what waits when this callback has
    /// returned: under [`SlowReader::DropNewest`](crate::SlowReader::DropNewest) this one is
    /// dropped, under [`SlowReader::DropOldest`](crate::SlowReader::DropOldest) the oldest are.
    ///
    /// Inside an adapter ([`nested`](Context::nested)) this is a plain write: what the peer gets of
    /// it is the adapter's.
    ///
    /// To push to many: give each member the key and the bytes as a message
    /// ([`Members::push`](crate::Members::push)), and let it call this.
    ///
    /// ```
    /// use greenroom::testing::Stage;
    /// use greenroom::*;
    ///
    /// struct Prices;
    ///
    /// impl Actor for Prices {
    ///     /// Of which share, and how much it is.
    ///     type Message = (u64, u32);
    ///
    ///     fn message(&mut self, (share, price): (u64, u32), ctx: &mut Context<'_, Self>) -> Outcome {
    ///         ctx.write_latest(share, format!("{share}={price} ").into());
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut stage = Stage::new(Prices);
    /// stage.stall();
    /// for price in 100..200 {
    ///     stage.send((1, price));
    ///     stage.send((2, 2 * price));
    /// }
    /// stage.unstall();
    /// assert_eq!(stage.output(), "1=199 2=398 ");
    /// ```
    ///
    /// # Panics
    ///
    /// As [`write`](Context::write).
    pub fn write_latest(&mut self, key: u64, bytes: Bytes) {
        self.call.stage_latest(key, bytes);
    }

    /// Sends `len` bytes of a file, from `offset` on, behind all that was written before and in
    /// front of all that is written after. The kernel moves them from its cache to the socket, as
    /// fast as the peer takes them; no memory of ours is used, however large the part is and
    /// however slow the reader.
    ///
    /// The file is shared, not read along: its cursor is not used, so that one `Arc<File>` serves
    /// any number of connections. It counts as 64 bytes of
    /// [`output_max`](crate::ConnectionOptions::output_max); in [`queued`](Context::queued), for
    /// the watermarks and [`drained`](Actor::drained) it counts in full, and
    /// [`stuck_timeout`](crate::ConnectionOptions::stuck_timeout) watches it as any output. A close
    /// behind it waits for a reader that takes 4 MiB in each
    /// [`flush_timeout`](crate::ConnectionOptions::flush_timeout), however large the file. One
    /// connection sends 256 KiB of its files in a turn, then others have theirs.
    ///
    /// A poller never waits for the socket. It does wait for the disk, where the part is not in the
    /// page cache: on a disk that is slow, have a thread of [`offload`](Context::offload) read the
    /// part beforehand, or read there and write what it returns. Where a kernel cannot move the
    /// bytes by itself (TLS, another platform, a file system without it, a simulated network) they
    /// are read and written, up to 64 KiB at a time.
    ///
    /// A file that ends before, or cannot be read, ends the connection with
    /// [`CloseReason::Io`](crate::CloseReason::Io), and the peer sees a reset: what was promised
    /// cannot be kept.
    ///
    /// ```
    /// use std::fs::File;
    ///
    /// use greenroom::testing::Stage;
    /// use greenroom::*;
    ///
    /// struct Page(File);
    ///
    /// impl Actor for Page {
    ///     type Message = ();
    ///
    ///     fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
    ///         let file = self.0.try_clone()?;
    ///         let len = file.metadata()?.len();
    ///         ctx.write(format!("{len}:"));
    ///         ctx.write_file(file, 0, len)?;
    ///         ctx.close();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut stage = Stage::new(Page(File::open("Cargo.toml")?));
    /// let page = std::fs::read_to_string("Cargo.toml")?;
    /// assert_eq!(stage.output(), format!("{}:{page}", page.len()));
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// The file comes back inside an adapter ([`nested`](Context::nested)), which is to see all
    /// bytes: read it and write them. And where writes are dropped and the budget has no room.
    ///
    /// # Panics
    ///
    /// As [`write`](Context::write).
    pub fn write_file(
        &mut self,
        file: impl Into<Arc<File>>,
        offset: u64,
        len: u64,
    ) -> Result<(), FileRefused> {
        let part = FilePart {
            file: file.into(),
            at: offset,
            left: len,
        };
        if self.call.nested > 0 {
            let within_adapter = true;
            return Err(FileRefused {
                file: part.file,
                within_adapter,
            });
        }
        self.call.stage_file(part).map_err(|part| FileRefused {
            file: part.file,
            within_adapter: false,
        })
    }
}

/// A file that cannot be sent by [`Context::write_file`]; it is inside.
#[derive(Debug)]
pub struct FileRefused {
    file: Arc<File>,
    within_adapter: bool,
}

impl FileRefused {
    /// Whether it was asked for inside an adapter.
    pub fn is_within_adapter(&self) -> bool {
        self.within_adapter
    }

    /// The file.
    pub fn into_file(self) -> Arc<File> {
        self.file
    }
}

impl fmt::Display for FileRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.within_adapter {
            "write_file: inside an adapter, which is to see all bytes; read the file and write them"
        } else {
            "write_file: as much waits as may; write it when `drained` is called"
        })
    }
}

impl Error for FileRefused {}
