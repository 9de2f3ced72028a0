//! The page, by HTTP, and on the same port the WebSocket on which it talks.

use greenroom::http::{Intake, Request, Responder, Response, Service};
use greenroom::websocket::{Refusal, Upgrade, WebSocket};
use greenroom::{Actor, Context, Outcome};

use super::Chat;
use super::client::{Client, ToClient};

/// What the page is made of. It has no build step: the files in `page` are what the browser gets.
const FILES: [(&str, &str, &str); 6] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/chat.css", CSS, include_str!("page/chat.css")),
    ("/chat.js", JS, include_str!("page/chat.js")),
    ("/connection.js", JS, include_str!("page/connection.js")),
    ("/log.js", JS, include_str!("page/log.js")),
    ("/icon.svg", SVG, include_str!("page/icon.svg")),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Only these files, and nothing that is written into the page: should a line ever come into it as
/// markup, the browser still runs nothing of it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// A connection of a browser, until it becomes a client's.
pub(crate) struct Page {
    chat: Chat,
}

impl Page {
    pub(crate) fn new(chat: Chat) -> Page {
        Page { chat }
    }

    /// The handshake of who asks for a client in a way that we like.
    fn upgrade<'r>(request: &Request<'r>) -> Result<Upgrade<'r>, Refusal> {
        let upgrade = request.websocket()?;
        if is_from_here(&upgrade) {
            Ok(upgrade)
        } else {
            Err(Refusal::new(403).body("the chat room is for its own page\n"))
        }
    }
}

/// Whether it was our own page that asked. A browser tells where a script comes from: those of other
/// sites must not speak for its user. Who is no browser says nothing, and may be anybody.
fn is_from_here(upgrade: &Upgrade<'_>) -> bool {
    let Some(origin) = upgrade.origin() else {
        return true;
    };
    let from = origin.split_once("://").map(|(_scheme, host)| host);
    from.is_some() && from == upgrade.host()
}

/// A file, or word that there is none.
fn file(request: &Request<'_>) -> Response {
    if !["GET", "HEAD"].contains(&request.method()) {
        return Response::new(405).header("Allow", "GET, HEAD");
    }
    let mut files = FILES.iter();
    let Some((_, kind, content)) = files.find(|(path, ..)| *path == request.path()) else {
        let response = Response::new(404).header("Content-Type", "text/plain; charset=utf-8");
        return response.body("there is no such page\n");
    };
    Response::new(200)
        .header("Content-Type", kind)
        .body(*content)
}

/// What every answer says.
fn shut(response: Response) -> Response {
    response
        .header("Cache-Control", "no-store")
        .header("Content-Security-Policy", POLICY)
        .header("Referrer-Policy", "no-referrer")
        .header("X-Content-Type-Options", "nosniff")
}

impl Actor for Page {
    type Message = ToClient;
}

impl Service for Page {
    type Upgraded = WebSocket<Client>;

    fn request(
        &mut self,
        request: Request<'_>,
        responder: Responder<Self>,
        _ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        let response = match request.path() {
            "/ws" => match Page::upgrade(&request) {
                Ok(upgrade) => {
                    let chat = self.chat.clone();
                    responder.upgrade(&upgrade, move || chat.browser());
                    return Ok(());
                }
                Err(refusal) => refusal.into(),
            },
            _ => file(&request),
        };
        responder.answer(shut(response));
        Ok(())
    }

    /// Nothing here takes a body, so none is waited for.
    fn intake(&mut self, request: &Request<'_>, _ctx: &mut Context<'_, Self>) -> Intake {
        Intake::Refuse(shut(file(request)))
    }
}
