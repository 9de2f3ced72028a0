// The chat room's page, in a browser: node chat.js PROGRAM [--screenshots FOLDER]

import assert from "node:assert/strict";
import { Cable, Server, Terminal, Visitor, browser, within } from "./harness.js";

const [program, option, folder] = process.argv.slice(2);

// Lines that a room keeps.
const KEPT = 200;

const scenarios = {
  async "two browsers and a terminal talk"({ server, url, chromium }) {
    const [alice, bob] = [await Visitor.come(chromium, url, "alice"), await Visitor.come(chromium, url, "bob")];
    const carol = await Terminal.open(server, "carol");
    for (const visitor of [alice, bob]) await visitor.people(["alice", "bob", "carol"]);

    await alice.say("hello, all");
    await alice.sees("alice", "hello, all");
    await bob.sees("alice", "hello, all");
    await carol.hears("alice: hello, all");
    carol.say("hello from a terminal");
    for (const visitor of [alice, bob]) await visitor.sees("carol", "hello from a terminal");
    await bob.say("\u05e9\u05dc\u05d5\u05dd (hello)");
    await carol.hears("bob: \u05e9\u05dc\u05d5\u05dd (hello)");

    // Rooms are shared, and who comes later sees what was said.
    carol.say("/join den", "anybody?");
    await alice.people(["alice", "bob"]);
    await alice.page.getByLabel("Another room").fill("den");
    await alice.page.getByRole("button", { name: "Go", exact: true }).click();
    await alice.isIn("den");
    await alice.sees("carol", "anybody?");
    await alice.people(["alice", "carol"]);
    assert.deepEqual(await alice.lines(), ["anybody?"]);
    await bob.told("alice has left lobby");

    // Names are nobody else's, and can be changed.
    const late = await Visitor.come(chromium, url);
    await late.page.getByLabel("Nickname", { exact: true }).fill("Alice");
    await late.page.getByRole("button", { name: "Enter" }).click();
    await late.page.getByRole("alert").filter({ hasText: "Alice is taken" }).waitFor();
    await late.enter("late", "den");
    await alice.people(["alice", "carol", "late"]);
    await late.page.getByLabel("Your nickname").fill("dora");
    await late.page.getByRole("button", { name: "Change" }).click();
    await late.told("You are now dora.");
    await alice.told("late is now dora");
    await alice.people(["alice", "carol", "dora"]);
    await carol.hears("* late is now dora");

    await late.page.getByRole("button", { name: "Leave" }).click();
    await late.page.getByRole("heading", { name: "Come in" }).waitFor();
    await alice.people(["alice", "carol"]);
    carol.close();
    await alice.people(["alice"]);
    for (const visitor of [alice, bob, late]) await visitor.leave();
  },

  async "lines that come while one reads further up are counted"({ server, url, chromium }) {
    const alice = await Visitor.come(chromium, url, "alice");
    const carol = await Terminal.open(server, "carol");
    carol.say(...Array.from({ length: 60 }, (_, n) => `line ${n}`));
    await alice.sees("carol", "line 59");
    await alice.until("the end is shown", () => {
      const log = document.getElementById("log");
      return log.scrollHeight - log.scrollTop - log.clientHeight < 2;
    });
    await alice.page.evaluate(() => { document.getElementById("log").scrollTop = 0; });
    await alice.until("the scroll is noticed", () => new Promise((seen) => requestAnimationFrame(() => seen(true))));
    carol.say("one", "two", "three");
    const button = alice.page.getByRole("button", { name: /3 new lines/ });
    await button.waitFor();
    assert.equal(await alice.page.evaluate(() => document.getElementById("log").scrollTop), 0, "what is read stays");
    await button.click();
    await button.waitFor({ state: "hidden" });

    // In another tab meanwhile: the title counts.
    const hide = (hidden) => alice.page.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
    await hide(true);
    carol.say("are you there?");
    await alice.until("the title counts", () => document.title.startsWith("(1) lobby"));
    await hide(false);
    await alice.until("the title is as before", () => document.title.startsWith("lobby"));
    carol.close();
    await alice.leave();
  },

  async "who was away is told what was missed"({ server, chromium }) {
    const cable = await Cable.lay(server.page);
    const alice = await Visitor.come(chromium, `http://${cable.addr}`, "alice");
    const bob = await Visitor.come(chromium, server.url, "bob");
    const carol = await Terminal.open(server, "carol");
    carol.say("before");
    await alice.sees("carol", "before");
    const away = async () => {
      cable.cut();
      await alice.page.locator("#status.offline").waitFor();
      await bob.people(["bob", "carol"]);
    };
    const back = async () => {
      cable.mend();
      await alice.page.getByRole("button", { name: "Reconnect now" }).click({ timeout: 2000 }).catch(() => {});
      await alice.isIn();
      await bob.people(["alice", "bob", "carol"]);
    };

    await away();
    await bob.say("missed by alice");
    await carol.hears("bob: missed by alice");
    carol.say("and this one");
    await bob.sees("carol", "and this one");
    // What one says meanwhile stays in the box.
    await alice.say("can you hear me?");
    await alice.page.getByRole("alert").filter({ hasText: "Not connected" }).waitFor();
    assert.deepEqual(await alice.axe(), [], "offline");
    await back();
    await alice.sees("carol", "and this one");
    assert.deepEqual(await alice.lines(), ["before", "missed by alice", "and this one"]);
    await alice.page.getByRole("button", { name: "Send", exact: true }).click();
    await carol.hears("alice: can you hear me?");

    // More than the room keeps: the page says that something is missing.
    await away();
    carol.say(...Array.from({ length: KEPT + 7 }, (_, n) => `many ${n}`));
    await bob.sees("carol", `many ${KEPT + 6}`);
    await back();
    await alice.sees("carol", `many ${KEPT + 6}`);
    await alice.told("7 lines were said that the server does not keep any more");
    const many = (await alice.lines()).filter((line) => line.startsWith("many"));
    assert.deepEqual(many, Array.from({ length: KEPT }, (_, n) => `many ${n + 7}`));
    assert.deepEqual(await alice.axe(), [], "with a marker");
    carol.close();
    await alice.leave();
    await bob.leave();
    cable.remove();
  },

  async "a line that was under way when the connection broke is neither lost nor said twice"({ server, chromium }) {
    const cable = await Cable.lay(server.page);
    const alice = await Visitor.come(chromium, `http://${cable.addr}`, "alice");
    const carol = await Terminal.open(server, "carol");
    const breaks = async () => {
      cable.cut();
      await alice.page.locator("#status.offline").waitFor();
      cable.mend();
      await alice.isIn();
    };
    await alice.told("carol has joined");

    // The server got it, and its answer did not arrive.
    cable.loseDown();
    await alice.say("heard");
    await carol.hears("alice: heard");
    await alice.page.locator(".said.pending", { hasText: "heard" }).waitFor();
    await breaks();
    await alice.sees("alice", "heard");
    assert.deepEqual(await alice.lines(), ["heard"]);

    // It did not get to the server: the page says so, and can send it again.
    cable.loseUp();
    await alice.say("unheard");
    await alice.page.locator(".said.pending", { hasText: "unheard" }).waitFor();
    await breaks();
    await alice.page.locator(".said.failed", { hasText: "This line did not arrive." }).waitFor();
    assert.deepEqual(await alice.axe(), [], "with a line that failed");
    // Not while there is nobody to send it to.
    cable.cut();
    await alice.page.locator("#status.offline").waitFor();
    await alice.page.getByRole("button", { name: "Send again" }).click();
    await alice.page.getByRole("alert").filter({ hasText: "Not connected" }).waitFor();
    assert.deepEqual(await alice.lines(), ["heard", "unheard"]);
    cable.mend();
    await alice.isIn();
    await alice.page.getByRole("button", { name: "Send again" }).click();
    assert.equal(await alice.page.evaluate(() => document.activeElement.id), "say");
    await carol.hears("alice: unheard");
    await alice.sees("alice", "unheard");
    assert.deepEqual(await alice.lines(), ["heard", "unheard"]);
    carol.close();
    await alice.leave();
    cable.remove();
  },

  async "a nickname that a lost connection still holds is waited for"({ server, chromium }) {
    const cable = await Cable.lay(server.page);
    const alice = await Visitor.come(chromium, `http://${cable.addr}`, "alice");
    const carol = await Terminal.open(server, "carol");
    cable.vanish();
    await alice.page.locator("#status", { hasText: "still in use" }).waitFor();
    carol.say("unseen so far");
    cable.vanished.destroy();
    await carol.hears("* alice has left lobby");
    await alice.isIn();
    await alice.sees("carol", "unseen so far");
    await alice.people(["alice", "carol"]);
    carol.close();
    await alice.leave();
    cable.remove();
  },

  async "a server that is killed and started again has them all back"({ server, url, chromium }) {
    const [alice, bob] = [await Visitor.come(chromium, url, "alice"), await Visitor.come(chromium, url, "bob")];
    await alice.say("before the crash");
    await bob.sees("alice", "before the crash");
    await server.end("SIGKILL");
    for (const visitor of [alice, bob]) await visitor.told("The connection is lost.");
    await server.start();
    for (const visitor of [alice, bob]) {
      await visitor.isIn();
      await visitor.told("The server does not know any more what was said before");
      await visitor.people(["alice", "bob"]);
    }
    const carol = await Terminal.open(server, "carol");
    await bob.say("after the crash");
    await alice.sees("bob", "after the crash");
    await carol.hears("bob: after the crash");
    // What they had seen is still there.
    assert.deepEqual(await alice.lines(), ["before the crash", "after the crash"]);

    await server.end("SIGTERM");
    for (const visitor of [alice, bob]) await visitor.told("the server is stopping");
    await alice.page.locator("#status", { hasText: /^The server is stopping\. Trying again in [0-9]+ s\.$/ }).waitFor();
    await carol.hears("* the server is stopping");
    await server.start();
    for (const visitor of [alice, bob]) await visitor.isIn();
    await alice.people(["alice", "bob"]);
    await alice.leave();
    await bob.leave();
  },

  async "both ports over TLS"({ program, chromium }) {
    const server = await new Server(program, ["--tls"]).start();
    assert.equal(server.scheme, "https");
    const alice = await Visitor.come(chromium, server.url, "alice");
    const carol = await Terminal.open(server, "carol");
    carol.say("by TLS");
    await alice.sees("carol", "by TLS");
    await alice.say("so am I");
    await carol.hears("alice: so am I");
    await server.end("SIGTERM");
    await alice.told("the server is stopping");
    await carol.hears("* the server is stopping");
    await alice.leave();
  },

  async "who floods is told so, dropped, and does not come back by himself"({ program, chromium }) {
    const server = await new Server(program).start();
    const alice = await Visitor.come(chromium, server.url, "alice");
    // However slow the machine is, it goes on until that is too much; and the page has time between to
    // hear of it.
    await alice.page.evaluate(() => {
      const [box, form] = [document.getElementById("say"), document.getElementById("send")];
      const flood = setInterval(() => {
        for (let n = 0; n < 20; n += 1) {
          box.value = `flood ${n}`;
          form.requestSubmit();
        }
        box.value = "";
        if (document.getElementById("chat").hidden) clearInterval(flood);
      }, 100);
    });
    await alice.page.getByRole("alert").filter({ hasText: "you have been dropped" }).waitFor();
    await alice.page.getByRole("heading", { name: "Come in" }).waitFor();
    await alice.enter("alice");
    await alice.leave();
    await server.end("SIGTERM");
  },

  async "markup in names and lines is text"({ server, url, chromium }) {
    const alice = await Visitor.come(chromium, url, "alice");
    const carol = await Terminal.open(server, "carol");
    const attacks = [
      "<script>window.hacked = 1</script>",
      "<img src=x onerror=\"window.hacked = 1\">",
      "\"><svg onload=window.hacked=1>",
      "javascript:window.hacked=1",
      "</script><style>body{display:none}</style>",
      "{\"type\":\"closing\",\"reason\":\"quit\",\"text\":\"x\"}",
    ];
    for (const attack of attacks) {
      carol.say(attack);
      await alice.sees("carol", attack);
      carol.say(`/nick ${attack}`);
      await carol.hears("! a name has 1 to 20 letters, digits, - and _");
      await alice.say(attack);
      await alice.sees("alice", attack);
    }
    const found = await alice.page.evaluate(() => ({
      hacked: window.hacked,
      inLog: document.querySelectorAll("#log :is(script, img, svg, style, a, iframe)").length,
      scripts: document.scripts.length,
    }));
    assert.deepEqual(found, { hacked: undefined, inLog: 0, scripts: 1 });
    // The second wall: what is not from a file of the server is not run.
    await alice.page.evaluate(() => {
      addEventListener("securitypolicyviolation", ({ violatedDirective }) => { window.refused = violatedDirective; });
      const script = document.createElement("script");
      script.textContent = "window.hacked = 2";
      document.body.append(script);
    });
    await alice.until("the script is refused", () => window.refused === "script-src-elem");
    assert.equal(await alice.page.evaluate(() => window.hacked), undefined);
    alice.faults = alice.faults.filter((fault) => !fault.includes("Content Security Policy"));
    carol.close();
    await alice.leave();
  },

  async "nothing scrolls sideways on a phone"({ server, url, chromium }) {
    const phone = await Visitor.come(chromium, url, null, { viewport: { width: 360, height: 640 }, hasTouch: true, isMobile: true });
    assert.equal(await phone.excess(), 0, "the door");
    await phone.enter("12345678901234567890", "abcdefghijklmnopqrst");
    const carol = await Terminal.open(server, "carol");
    carol.say("/join abcdefghijklmnopqrst", "w".repeat(4000), "\u05d0".repeat(300), "https://example.org/" + "a/".repeat(200), "last");
    await phone.sees("carol", "last");
    await phone.told("carol has joined abcdefghijklmnopqrst");
    assert.equal(await phone.excess(), 0, "the log");
    const wide = await phone.page.evaluate(() => {
      const log = document.getElementById("log");
      return log.scrollWidth - log.clientWidth;
    });
    assert.equal(wide, 0, "long words");
    await phone.page.getByRole("button", { name: "Rooms and people" }).click();
    await phone.page.getByRole("button", { name: /^lobby/ }).waitFor();
    assert.equal(await phone.excess(), 0, "rooms and people");
    // Who leaves from there and comes in again is shown what is said.
    await phone.page.getByRole("button", { name: "Leave" }).click();
    await phone.page.getByRole("heading", { name: "Come in" }).waitFor();
    await phone.enter("phone");
    await phone.say("here again");
    await phone.sees("phone", "here again");
    carol.close();
    await phone.leave();
  },

  async "the keyboard is enough"({ url, chromium }) {
    for (const viewport of [{ width: 1100, height: 720 }, { width: 360, height: 640 }]) {
      const bob = await Visitor.come(chromium, url, "bob");
      const alice = await Visitor.come(chromium, url, null, { viewport });
      const keys = alice.page.keyboard;
      const focused = () => alice.page.evaluate(() => document.activeElement.id || document.activeElement.textContent);
      const press = async (...names) => { for (const name of names) await keys.press(name); };
      // The nickname has the focus from the start.
      assert.equal(await focused(), "name");
      await keys.type("alice");
      await press("Enter");
      await alice.isIn();
      assert.equal(await focused(), "say");
      await keys.type("by keyboard");
      await press("Enter");
      await bob.sees("alice", "by keyboard");

      // Around the page, backwards: each stop can be seen, and none is a trap. The first of all is a
      // link that leads to the message box.
      const stops = [];
      while (await focused() !== "skip") {
        await press("Shift+Tab");
        const outline = await alice.page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
        stops.push(await focused());
        assert.equal(outline, "solid", `the focus on ${stops.at(-1)} is seen`);
        assert.ok(stops.length < 40, `${stops}`);
      }
      assert.ok(stops.includes("log"), `${stops}`);
      await press("Enter");
      assert.equal(await focused(), "say");
      assert.equal(await alice.page.evaluate(() => location.hash), "#lobby", "the room stays in the address");

      if (viewport.width < 700) {
        await alice.page.getByRole("button", { name: "Rooms and people" }).focus();
        await press("Enter");
        assert.match(await focused(), /^lobby/);
        await press("Escape");
        assert.equal(await focused(), "menu");
        await press("Enter");
        assert.match(await focused(), /^lobby/);
      }
      await alice.page.getByLabel("Another room").focus();
      await keys.type("attic");
      await press("Enter");
      await alice.isIn("attic");
      assert.equal(await focused(), "say");
      // Escape leads back to what is new.
      await press("Shift+Tab");
      assert.equal(await focused(), "log");
      await press("Escape");
      assert.equal(await focused(), "say");
      await alice.leave();
      await bob.leave();
    }
  },

  async "axe finds nothing"({ server, url, chromium }) {
    const carol = await Terminal.open(server, "carol");
    for (const colorScheme of ["light", "dark"]) {
      for (const viewport of [{ width: 1100, height: 720 }, { width: 360, height: 640 }]) {
        const where = `${colorScheme}, ${viewport.width} wide`;
        const alice = await Visitor.come(chromium, url, null, { colorScheme, viewport, reducedMotion: "reduce" });
        assert.deepEqual(await alice.axe(), [], `the door, ${where}`);
        await alice.page.getByLabel("Nickname", { exact: true }).fill("a b");
        await alice.page.getByRole("button", { name: "Enter" }).click();
        assert.deepEqual(await alice.axe(), [], `the door with an error, ${where}`);
        await alice.enter("alice");
        await alice.say("hello");
        await alice.sees("alice", "hello");
        carol.say("hello, alice");
        await alice.sees("carol", "hello, alice");
        await alice.say("/dance");
        await alice.told("there is no such command");
        await alice.say("x".repeat(4000) + "\u00e9".repeat(100));
        assert.deepEqual(await alice.axe(), [], `the chat, ${where}`);
        if (viewport.width < 700) {
          await alice.page.getByRole("button", { name: "Rooms and people" }).click();
          assert.deepEqual(await alice.axe(), [], `rooms and people, ${where}`);
        }
        await alice.leave();
        await carol.hears("* alice has left lobby");
      }
    }
    const log = { role: "log", live: "polite" };
    const alice = await Visitor.come(chromium, url, "alice");
    assert.deepEqual(await alice.page.evaluate(() => {
      const log = document.getElementById("log");
      return { role: log.getAttribute("role"), live: log.getAttribute("aria-live") };
    }), log);
    await alice.leave();
    carol.close();
  },
};

async function screenshots({ server, url, chromium }) {
  const carol = await Terminal.open(server, "carol");
  const bob = await Visitor.come(chromium, url, "bob");
  const desktop = await Visitor.come(chromium, url, "alice", { viewport: { width: 960, height: 600 }, colorScheme: "light" });
  await bob.say("Good evening! Is anybody here by terminal?");
  await desktop.sees("bob", "by terminal?");
  carol.say("I am: nc 127.0.0.1 9000");
  await desktop.sees("carol", "nc 127.0.0.1 9000");
  await desktop.say("And I am in a browser. Same room, same actor.");
  await desktop.sees("alice", "Same room");
  carol.say("\u05e9\u05dc\u05d5\u05dd, \u0645\u0631\u062d\u0628\u0627");
  await bob.say("<b>Markup</b> is text here.");
  await desktop.sees("bob", "is text here.");
  const dora = await Terminal.open(server, "dora");
  dora.say("/join den");
  await desktop.told("dora has left lobby");
  await desktop.page.reload();
  await desktop.page.getByRole("button", { name: "Enter" }).click();
  await desktop.isIn();
  await desktop.page.getByRole("button", { name: /^den/ }).waitFor();
  await desktop.page.screenshot({ path: `${folder}/chat_room.png` });
  const phone = await Visitor.come(chromium, url, "erin", { viewport: { width: 360, height: 640 }, colorScheme: "dark", isMobile: true, hasTouch: true });
  await phone.sees("bob", "is text here.");
  await phone.page.screenshot({ path: `${folder}/chat_room_phone.png` });
  for (const visitor of [bob, desktop, phone]) await visitor.leave();
  for (const terminal of [carol, dora]) terminal.close();
}

const chromium = await browser();
let failed = 0;
const all = option === "--screenshots" ? { "screenshots": screenshots } : scenarios;
for (const [name, scenario] of Object.entries(all)) {
  if (option === "--only" && !name.includes(folder)) continue;
  // Each has a server of its own, whose clients may send any number of lines.
  const server = await new Server(program, ["--rate", "0"]).start();
  try {
    await within(name, scenario({ program, server, url: server.url, chromium }), 120_000);
    console.log(`ok: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED: ${name}\n${error.stack}`);
  }
  await server.end("SIGKILL");
}
await chromium.close();
process.exit(failed === 0 ? 0 : 1);
