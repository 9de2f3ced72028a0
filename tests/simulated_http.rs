//! HTTP simulated: whoever answers, whenever and from wherever, each request is answered once and in
//! its turn, and a connection that is lost takes nobody with it.
//!
//!     GREENROOM_SEEDS=10000 cargo test --release --test simulated_http

#[path = "util/weather.rs"]
mod weather;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use greenroom::http::{
    BodyWriter, Http, Intake, Never, Options, Request, Responder, Response, Service,
};
use greenroom::testing::{Client, Simulation, for_each_seed};
use greenroom::*;

use weather::{ADDR, Weather, millis, secs};

/// So many pieces a streamed body has.
const PIECES: usize = 5;

/// When all must be answered: a poor line takes its time for a long body.
const LIMIT: Duration = Duration::from_secs(30_000);

/// Answers a while after it was asked.
#[derive(Default)]
struct Backend {
    /// So long is one piece of a streamed body.
    piece: usize,
    asked: HashMap<TimerKey, (Responder<Site>, String)>,
    streams: HashMap<TimerKey, (BodyWriter<Site>, usize)>,
}

struct Ask {
    responder: Responder<Site>,
    token: String,
    after: Duration,
}

impl Actor for Backend {
    type Message = Ask;

    fn message(&mut self, ask: Ask, ctx: &mut Context<'_, Self>) -> Outcome {
        let timer = ctx.set_timer(ask.after);
        self.asked.insert(timer, (ask.responder, ask.token));
        Ok(())
    }

    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        if let Some((responder, token)) = self.asked.remove(&key) {
            match &token[..1] {
                "s" => {
                    let writer = responder.stream(Response::new(200).body(token));
                    self.streams
                        .insert(ctx.set_timer(millis(1)), (writer, PIECES));
                }
                "d" => drop(responder),
                _ => responder.answer(Response::text(token)),
            }
        } else if let Some((mut writer, mut left)) = self.streams.remove(&key) {
            if writer.has_room() && left > 0 {
                writer.write(vec![b'.'; self.piece])?;
                left -= 1;
            }
            match left {
                0 => writer.finish(),
                // Its service is told of room, and not this one, which looks now and then.
                _ => drop(
                    self.streams
                        .insert(ctx.set_timer(millis(10)), (writer, left)),
                ),
            }
        }
        Ok(())
    }
}

/// Has every request answered by somebody else, as its token begins.
struct Site {
    backend: Addr<Backend>,
    own: HashMap<TimerKey, (Responder<Site>, String)>,
    collected: String,
    streamed: Option<Responder<Site>>,
}

impl Actor for Site {
    type Message = ();

    fn message(&mut self, (): (), _: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }

    fn timer(&mut self, key: TimerKey, _: &mut Context<'_, Self>) -> Outcome {
        if let Some((responder, token)) = self.own.remove(&key) {
            responder.answer(Response::text(token));
        }
        Ok(())
    }
}

impl Service for Site {
    type Upgraded = Never<()>;

    fn intake(&mut self, request: &Request<'_>, _: &mut Context<'_, Self>) -> Intake {
        match request.path() {
            "/u" => Intake::Stream(1 << 20),
            _ => Intake::Collect(usize::MAX),
        }
    }

    fn request(
        &mut self,
        request: Request<'_>,
        responder: Responder<Self>,
        ctx: &mut Context<'_, Self>,
    ) -> Outcome {
        let after = Duration::from_millis(request.query().unwrap_or_default().parse()?);
        if request.path() == "/u" {
            self.streamed = Some(responder);
            return Ok(());
        }
        let token = String::from_utf8(request.body().to_vec())?;
        match &token[..1] {
            "n" => responder.answer(Response::text(token)),
            "t" => {
                let timer = ctx.set_timer(after);
                self.own.insert(timer, (responder, token));
            }
            // Refused where too much waits, and the responder is dropped with it.
            "w" => drop(ctx.offload(move || responder.answer(Response::text(token)), |_| ())),
            _ => {
                let ask = Ask {
                    responder,
                    token,
                    after,
                };
                drop(self.backend.send(ask));
            }
        }
        Ok(())
    }

    fn body(&mut self, _: u64, piece: Option<&[u8]>, _: &mut Context<'_, Self>) -> Outcome {
        match piece {
            Some(piece) => self.collected += std::str::from_utf8(piece)?,
            None => {
                let token = std::mem::take(&mut self.collected);
                let responder = self.streamed.take().ok_or("no request")?;
                responder.answer(Response::text(token));
            }
        }
        Ok(())
    }
}

/// One client, what it asks, and what it got.
struct Asker {
    client: Client,
    tokens: Vec<String>,
    /// How much a streamed body has beside its token.
    streamed: usize,
    /// What is not sent yet.
    bytes: Vec<u8>,
    got: Vec<u8>,
}

impl Asker {
    fn new(sim: &mut Simulation, id: usize, piece: usize) -> Asker {
        let client = sim.client(ADDR);
        let (mut tokens, mut bytes) = (Vec::new(), Vec::new());
        for number in 0..sim.random().below(40) {
            let how = *sim.random().pick(&["n", "n", "t", "w", "b", "s", "d", "u"]);
            let mut token = format!("{how}{id}.{number}");
            if sim.random().below(8) == 0 {
                weather::fill(&mut token, 3_000);
            }
            let path = if how == "u" { "/u" } else { "/" };
            let after = sim.random().below(2_000);
            let head = format!("POST {path}?{after} HTTP/1.1\r\nHost: a\r\n");
            bytes.extend_from_slice(head.as_bytes());
            let rest = match sim.random().below(2) {
                0 => format!("Content-Length: {}\r\n\r\n{token}", token.len()),
                _ => {
                    let (start, end) = token.split_at(token.len() / 2);
                    format!(
                        "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{start}\r\n{:x};x\r\n{end}\r\n0\r\n\r\n",
                        start.len(),
                        end.len()
                    )
                }
            };
            bytes.extend_from_slice(rest.as_bytes());
            tokens.push(token);
        }
        Asker {
            client,
            tokens,
            streamed: piece * PIECES,
            bytes,
            got: Vec::new(),
        }
    }

    /// Sends some of what it has to say, or rests, or reads on.
    fn act(&mut self, sim: &mut Simulation) {
        self.got.extend_from_slice(&self.client.received());
        match sim.random().below(6) {
            0 => self.client.stop_reading(),
            1 => self.client.read_on(),
            _ => {
                let most = self.bytes.len() as u64;
                let len = match sim.random().below(3) {
                    0 => most.min(1),
                    1 => sim.random().below(most.min(200) + 1),
                    _ => sim.random().below(most + 1),
                };
                let piece: Vec<u8> = self.bytes.drain(..len as usize).collect();
                self.client.send(piece);
            }
        }
    }

    /// Each answer is that to the request whose turn it is. How many there are.
    fn check(&self) -> usize {
        let mut rest = &self.got[..];
        for (number, token) in self.tokens.iter().enumerate() {
            let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") else {
                return number;
            };
            let head = std::str::from_utf8(&rest[..end + 4]).expect("a head");
            assert!(head.starts_with("HTTP/1.1 "), "{head}");
            let status = &head[9..12];
            let Some((body, len)) = body(head, &rest[end + 4..]) else {
                return number;
            };
            rest = &rest[end + 4 + len..];
            let may_fail = ["w", "b", "s", "d"]
                .iter()
                .any(|how| token.starts_with(how));
            match status {
                "200" => assert!(
                    body.starts_with(token.as_bytes()),
                    "{number} for {token:.20}"
                ),
                "500" => assert!(may_fail, "{token:.20}"),
                status => panic!("{status} for {token:.20}"),
            }
            assert!(status == "500" || !token.starts_with('d'));
            let streamed = usize::from(token.starts_with('s')) * self.streamed;
            assert!(status == "500" || body.len() == token.len() + streamed);
        }
        assert!(rest.is_empty(), "more answers than requests");
        self.tokens.len()
    }
}

/// The body behind a head, and how many bytes it took; `None` where it is not whole.
fn body(head: &str, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    if let Some(len) = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
    {
        let len = len.parse().expect("a number");
        return Some((bytes.get(..len)?.to_vec(), len));
    }
    assert!(
        head.contains("\r\nTransfer-Encoding: chunked\r\n"),
        "{head}"
    );
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let end = at + bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        let data = bytes.get(end + 2..end + 2 + size)?;
        assert_eq!(bytes.get(end + 2 + size..end + 4 + size)?, b"\r\n");
        body.extend_from_slice(data);
        at = end + 4 + size;
        if size == 0 {
            return Some((body, at));
        }
    }
}

fn scenario(sim: &mut Simulation, weather: Weather) {
    let system = weather::system(sim, weather);
    // Longer than what may be held back of it, now and then.
    let piece = *sim
        .random()
        .pick(&[300, 300, 300, 300, 300, 300, 300, 30_000]);
    let backend = system.spawn(move || Backend {
        piece,
        ..Backend::default()
    });
    let pending = *sim.random().pick(&[1, 2, 8, 32]);
    let hour = secs(36_000);
    let options = Options::new()
        .pending_max(pending)
        .head_timeout(hour)
        .body_timeout(hour)
        .keep_alive(hour);
    let options = Arc::new(options);
    let limits = ListenOptions::new().connection(
        ConnectionOptions::new()
            .incomplete_timeout(None)
            .first_bytes_timeout(None)
            // Longer than a client rests. Whose socket has failed is held back until then.
            .stuck_timeout(secs(300))
            .flush_timeout(secs(300)),
    );
    let make = move |_| {
        let site = Site {
            backend: backend.clone(),
            own: HashMap::new(),
            collected: String::new(),
            streamed: None,
        };
        Http::with_options(site, options.clone())
    };
    system
        .listen_with(ADDR, limits, make)
        .expect("the address is free");

    let clients = sim.random().range(1..6) as usize;
    let mut askers: Vec<_> = (0..clients).map(|id| Asker::new(sim, id, piece)).collect();
    for _ in 0..sim.random().below(200) {
        let at = sim.random().below(clients as u64) as usize;
        askers[at].act(sim);
        let time = sim.random().duration(millis(300));
        sim.run_for(time);
    }
    for asker in &mut askers {
        asker.client.read_on();
        let rest = std::mem::take(&mut asker.bytes);
        asker.client.send(rest);
        asker.client.half_close();
    }
    sim.run_until(LIMIT, |_| {
        askers.iter().all(|asker| asker.client.is_closed())
    });
    for (id, asker) in askers.iter_mut().enumerate() {
        asker.got.extend_from_slice(&asker.client.received());
        let answered = asker.check();
        let is_whole = answered == asker.tokens.len();
        assert!(
            is_whole || weather.is_rough(),
            "client {id} got {answered} answers to {} requests",
            asker.tokens.len()
        );
        assert!(weather.is_rough() || !asker.client.is_reset());
    }
    drop(askers);
    sim.finish(secs(30));
    assert_eq!(
        (system.stats().requests_refused, system.stats().panics),
        (0, 0)
    );
}

#[test]
fn each_request_is_answered_once_and_in_its_turn() {
    for_each_seed(60, |sim| {
        let weather = Weather::draw(sim.random());
        scenario(sim, weather);
    });
}
