//! TLS for listeners and for outgoing connections, by [rustls], versions 1.2 and 1.3.
//!
//! TLS is not an adapter around an actor but lies below it, between the socket and the actor: the
//! same actor runs with it and without, and everything that holds for its connection goes on holding,
//! counted in what the actor reads and writes.
//!
//! # A server
//!
//! ```no_run
//! use greenroom::*;
//!
//! struct Echo;
//!
//! impl Actor for Echo {
//!     type Message = ();
//!
//!     fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
//!         ctx.write(input.take_all());
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     let identity = tls::Identity::from_files("fullchain.pem", "privkey.pem")?;
//!     let server = tls::Server::builder().identity(identity).build()?;
//!     let system = System::builder().build()?;
//!     system.listen_with("0.0.0.0:9443", ListenOptions::new().tls(server), |_peer| Echo)?;
//!     system.run()
//! }
//! ```
//!
//! More of it is said to the [builder](ServerBuilder): further certificates, of which the client's
//! SNI chooses one; certificates asked of clients; the protocols of ALPN; sessions; versions. What it
//! does not say (revocation lists, stapled answers of OCSP, a log of keys, another choice of
//! cipher suites) is said by a [`rustls::ServerConfig`] of one's own, from which a [`Server`] can be
//! made as well.
//!
//! # A client
//!
//! ```no_run
//! # use greenroom::*;
//! # struct Fetch;
//! # impl Actor for Fetch { type Message = (); }
//! # fn main() -> std::io::Result<()> {
//! # let system = System::builder().build()?;
//! let roots = tls::Roots::platform()?;
//! let client = tls::Client::builder().roots(roots).build()?;
//! let options = ConnectOptions::new().tls(client);
//! system.connect_with("db.example:5433".parse::<Remote>()?, options, || Fetch);
//! # system.run()
//! # }
//! ```
//!
//! The name of the [`Remote`](crate::Remote) is what the server is asked for and what its certificate
//! has to be for; [`ClientBuilder::server_name`] says another one. Where one [`Client`] is used for
//! many connects, as by a [`Pool`](crate::Pool) or a [`Reconnect`](crate::Reconnect), all but the
//! first resume a session and are cheap.
//!
//! # What is told when
//!
//! | what happens | what the actor is told |
//! |---|---|
//! | the handshake is done | [`opened`](crate::Actor::opened); from then on [`Context::tls`](crate::Context::tls) says what was agreed on |
//! | the handshake of a client fails, or its deadline passes | no actor was made; [`Stats::handshakes_failed`](crate::Stats::handshakes_failed), also [by reason](crate::Stats::handshakes_failed_by); the log, at level `debug` |
//! | ... of a connect | [`closed`](crate::Actor::closed) with [`ConnectErrorKind::Tls`](crate::ConnectErrorKind::Tls), behind which is a [`TlsError`] |
//! | the peer says that nothing follows (`close_notify`) | as at a half-close: [`Input::at_end`](crate::Input::at_end), [`read_closed`](crate::Actor::read_closed) |
//! | the connection ends without that: bytes may be missing | `closed` with [`CloseReason::Tls`](crate::CloseReason::Tls) of kind [`Truncated`](crate::TlsErrorKind::Truncated) |
//! | a record was changed on its way; the peer sends an alert | the same, of kind [`BadRecord`](crate::TlsErrorKind::BadRecord) or [`Alert`](crate::TlsErrorKind::Alert) |
//! | the actor closes, or the server stops | the peer is sent `close_notify` behind all that was written |
//! | the actor shuts its writing side down | the same; what the peer sends is read on |
//!
//! In TLS 1.3 a client has done its handshake before the server has looked at the client's
//! certificate: one that is refused is told `opened` first, and then `closed` by an alert.
//!
//! # Certificates and keys at run time
//!
//! A [`Server`] is a handle: the listener has one clone of it, whoever renews certificates another.
//! [`Server::reload`] shows others in all handshakes that begin from then on, on all listeners that
//! have a clone, all at once; connections go on as they are. [`Server::replace`] and
//! [`Client::replace`] do that with everything else, such as the roots that clients are trusted by.
//! What cannot be read, or does not fit together, is an error before anything has changed.
//!
//! # Handshakes and the other connections
//!
//! A handshake costs a server some hundred microseconds of a processor with an ECDSA key, several
//! times as much with one of RSA, and less where a session is resumed. Poller threads do them, a bounded number in one turn ([`Server::handshakes_per_turn`]), so that a thousand clients
//! that come back at once hold up those that are there for a millisecond at a time and not for a
//! hundred. Their connections count for all limits of the listener from the accept on, and
//! [`Server::handshake_deadline`] ends those that never finish.
//!
//! The program `tls_echo` in the examples folder shows all of this, and prints the command by which
//! `openssl` talks to it.

mod client;
mod error;
mod failure;
mod identity;
mod info;
mod pem;
mod server;
mod session;
mod version;

#[cfg(test)]
mod tests;

pub use client::{Client, ClientBuilder};
pub use error::{ConfigError, Place};
pub use failure::{TlsError, TlsErrorKind};
pub use identity::{Identity, Roots};
pub use info::TlsInfo;
pub use rustls;
pub use server::{Server, ServerBuilder};
pub use version::Version;

pub(crate) use session::{RECORD, Session};
