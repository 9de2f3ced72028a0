//! A listener behind a proxy: whatever comes, there is an actor with one peer and the bytes behind the header, the
//! same however they come, or none.

#![no_main]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::testing::Simulation;
use greenroom::*;
use libfuzzer_sys::fuzz_target;

#[derive(Default, PartialEq, Debug)]
struct Seen {
    peer: Option<Peer>,
    bytes: Vec<u8>,
}

struct Behind {
    seen: Arc<Mutex<Seen>>,
}

impl Actor for Behind {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let before = self
            .seen
            .lock()
            .unwrap()
            .peer
            .replace(ctx.peer().expect("it has a socket"));
        assert_eq!(before, None, "two actors for one connection");
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.seen.lock().unwrap().bytes.extend(input.take_all());
        Ok(())
    }
}

fn run(pieces: &[&[u8]]) -> Seen {
    let mut simulation = Simulation::new(1);
    simulation.keep_trace(0);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let system = simulation.system(System::builder().pollers(1));
    let proxies = ProxyProtocol::trusting(["127.0.0.0/8"])
        .unwrap()
        .max_bytes(536);
    let options = ListenOptions::new().proxy_protocol(proxies);
    let shared = seen.clone();
    let listener = system.listen_with("127.0.0.1:9000", options, move |_peer| Behind {
        seen: shared.clone(),
    });
    listener.unwrap();
    let client = simulation.client("127.0.0.1:9000");
    for piece in pieces {
        client.send(piece);
        simulation.run_for(Duration::from_millis(1));
    }
    client.half_close();
    client.rest(&mut simulation);
    simulation.finish(Duration::from_secs(60));
    std::mem::take(&mut *seen.lock().unwrap())
}

fuzz_target!(|bytes: &[u8]| {
    let whole = greenroom_fuzz::same_however_cut(bytes, run);
    assert!(whole.bytes.len() <= bytes.len());
});
