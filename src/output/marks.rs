//! What a callback said of its output beside the bytes.

use crate::output::FilePart;

/// Something that stands at a place of what a callback wrote.
#[derive(Debug)]
pub(crate) struct Mark {
    /// How much had been staged when it was made; `usize::MAX` where it comes behind all of it.
    pub(crate) at: usize,
    pub(crate) what: Marked,
}

#[derive(Debug)]
pub(crate) enum Marked {
    /// The actor is to be told, with this token, when all before has been taken.
    Notice(u64),
    /// So many bytes from here on are one write, which may be dropped.
    Write(usize),
    /// ... which takes the place of an older one of the same key.
    Latest { key: u64, len: usize },
    /// A part of a file comes here.
    File(FilePart),
}
