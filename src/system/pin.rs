//! Where pollers run, how long they look for work, and how much they read at once.

use std::io;
use std::time::Duration;

use crate::entrance::Spread;
use crate::listener::ListenOptions;
use crate::sys::{Endpoint, affinity};
use crate::system::{Builder, System};

impl Builder {
    /// How long a poller that has nothing to do goes on looking, before it sleeps. By default 0: it
    /// sleeps at once.
    ///
    /// A message to a poller that looks costs its sender no system call and is taken in less than
    /// a microsecond; a readiness is seen in one or two. To wake one that sleeps takes both sides
    /// some microseconds, or some tens of them where an idle processor has to be woken as well. For
    /// this the poller keeps a processor busy: all the time, if something comes more often than
    /// this, and for so long after whatever came last. Some 50 microseconds cover the gaps of a
    /// busy exchange and cost an idle system nothing.
    ///
    /// Only for as many pollers as there are processors with nothing else to do. Two that spin on
    /// two processors leave none to the threads, or the clients, that they wait for: those then
    /// wait until the scheduler takes a poller's turn away.
    pub fn busy_poll(mut self, time: Duration) -> Self {
        self.busy_poll = time;
        self
    }

    /// How many bytes one read takes at most, out of one connection in one turn of its poller: the
    /// size of the one buffer that each poller has for reading. By default 64 KiB.
    ///
    /// Less gives the neighbours of a stream at full speed their turns sooner, more saves system
    /// calls where a few connections carry much.
    ///
    /// # Panics
    ///
    /// When it is less than 512.
    pub fn read_buffer(mut self, bytes: usize) -> Self {
        assert!(
            bytes >= 512,
            "read_buffer: at least 512 bytes are read at once"
        );
        self.read_max = bytes;
        self
    }

    /// Each poller runs on one processor alone: the first poller on the first of these, and so on,
    /// from the first one again where there are more pollers. By default the kernel moves them.
    ///
    /// Pays where nothing else runs on those processors; else a pinned poller waits for its
    /// processor while another one idles. Of no effect in a simulation. Where the system cannot do
    /// that or has no such processor, or not for this process, [`build`](Builder::build) says so.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn pin(mut self, processors: impl IntoIterator<Item = usize>) -> Self {
        let processors: Vec<_> = processors.into_iter().collect();
        assert!(
            !processors.is_empty(),
            "pin: there must be a processor to run on"
        );
        self.pin = Pin::To(processors);
        self
    }

    /// As [`pin`](Builder::pin), to all processors that the process may use, in their order.
    pub fn pin_each(mut self) -> Self {
        self.pin = Pin::Each;
        self
    }
}

impl System {
    /// The processors of the pollers, if the sockets of a listener are to prefer them.
    pub(super) fn processors_for(
        &self,
        endpoint: &Endpoint,
        options: &ListenOptions,
    ) -> io::Result<Option<&[usize]>> {
        let why = if !options.by_processor {
            return Ok(None);
        } else if !matches!(options.spread, Spread::Here) {
            "it needs Balance::PerPoller"
        } else if self.processors.is_empty() {
            "it needs pollers that are pinned, see Builder::pin"
        } else {
            return Ok(Some(&self.processors));
        };
        let text = format!("listen on {endpoint} by processor: {why}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}

/// Where pollers run.
#[derive(Debug, Clone)]
pub(super) enum Pin {
    Nowhere,
    Each,
    To(Vec<usize>),
}

impl Pin {
    /// The processor of each poller; of none where they are not pinned.
    pub(super) fn processors(&self, pollers: usize) -> io::Result<Vec<usize>> {
        let from = match self {
            Pin::Nowhere => return Ok(Vec::new()),
            Pin::Each => affinity::processors().map_err(|error| pin_error(None, error))?,
            Pin::To(processors) => processors.clone(),
        };
        Ok(from.into_iter().cycle().take(pollers).collect())
    }
}

pub(super) fn pin_error(processor: Option<usize>, error: io::Error) -> io::Error {
    let there_are = affinity::processors().map_or_else(
        |_| String::new(),
        |all| format!("; this process may use {all:?}"),
    );
    let to = processor.map_or_else(String::new, |processor| {
        format!(" to processor {processor}")
    });
    io::Error::new(
        error.kind(),
        format!("pin a poller{to}: {error}{there_are}"),
    )
}
