//! What an actor may know of the TLS below it.

use crate::actor::Actor;
use crate::context::Context;
use crate::tls::TlsInfo;

impl<A: Actor> Context<'_, A> {
    /// What the handshake of this connection has agreed on; `None` where the connection is not under TLS,
    /// or there is none. Still there in [`closed`](Actor::closed).
    pub fn tls(&self) -> Option<TlsInfo<'_>> {
        let session = self.call.sessions.get(&self.call.key.index())?;
        Some(session.info())
    }
}
