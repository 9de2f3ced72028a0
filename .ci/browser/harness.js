// A server that can be killed and started again, somebody at a terminal, a network that can be cut,
// and browsers.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import net from "node:net";
import tls from "node:tls";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

// Only a test that fails waits for so long.
export const PATIENCE = 30_000;

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export class Server {
  constructor(program, options = []) {
    this.program = program;
    this.options = options;
    this.lines = "127.0.0.1:0";
    this.page = "127.0.0.1:0";
  }

  // On the same ports as before.
  async start() {
    const args = ["--addr", this.lines, "--http", this.page, "--pollers", "2", ...this.options];
    this.process = spawn(this.program, args, { stdio: ["ignore", "pipe", "inherit"] });
    const output = createInterface({ input: this.process.stdout });
    const [line] = await within("the server starts", once(output, "line"));
    this.lines = /listening on ([0-9.:]+)/.exec(line)[1];
    [, this.scheme, this.page] = /(https?):\/\/([0-9.:]+)/.exec(line);
    this.certificate = /-CAfile (\S+)/.exec(line)?.[1];
    return this;
  }

  get url() {
    return `${this.scheme}://${this.page}`;
  }

  async end(signal) {
    const ended = once(this.process, "exit");
    this.process.kill(signal);
    await within(`the server ends at ${signal}`, ended);
  }
}

// Speaks in lines, as `nc` would.
export class Terminal {
  static async open(server, name) {
    const terminal = new Terminal();
    const [host, port] = server.lines.split(":");
    terminal.socket = server.certificate
      ? tls.connect({ host, port: Number(port), ca: readFileSync(server.certificate) })
      : net.connect(Number(port), host);
    terminal.heard = [];
    terminal.waiting = () => {};
    createInterface({ input: terminal.socket }).on("line", (line) => {
      terminal.heard.push(line);
      terminal.waiting();
    });
    terminal.socket.on("error", () => {});
    terminal.say(name);
    await terminal.hears(`* ${name} has joined lobby`);
    return terminal;
  }

  say(...lines) {
    this.socket.write(lines.map((line) => `${line}\n`).join(""));
  }

  // Waits for this line, and forgets it and those before.
  async hears(line) {
    await within(`a terminal hears ${JSON.stringify(line)}`, new Promise((heard) => {
      this.waiting = () => {
        const place = this.heard.indexOf(line);
        if (place < 0) return;
        this.heard.splice(0, place + 1);
        this.waiting = () => {};
        heard();
      };
      this.waiting();
    }));
  }

  close() {
    this.socket.destroy();
  }
}

// Lies between a browser and the server.
export class Cable {
  static async lay(to) {
    const cable = new Cable();
    const [host, port] = to.split(":");
    cable.sockets = new Set();
    cable.pairs = new Set();
    cable.isCut = false;
    cable.server = net.createServer((near) => {
      if (cable.isCut) return near.destroy();
      const far = net.connect(Number(port), host);
      const pair = { near, far };
      cable.pairs.add(pair);
      near.on("close", () => cable.pairs.delete(pair));
      for (const [from, to] of [[near, far], [far, near]]) {
        cable.sockets.add(from);
        from.on("error", () => {});
        from.on("close", () => {
          cable.sockets.delete(from);
          to.destroy();
        });
        from.pipe(to);
      }
    });
    cable.server.listen(0, "127.0.0.1");
    await once(cable.server, "listening");
    cable.addr = `127.0.0.1:${cable.server.address().port}`;
    return cable;
  }

  // From here on nothing gets through in one direction, until it is cut.
  loseUp() {
    for (const { near, far } of this.pairs) near.unpipe(far).pause();
  }

  loseDown() {
    for (const { near, far } of this.pairs) far.unpipe(near).pause();
  }

  // The browser's side is gone, and the server has not noticed.
  vanish() {
    for (const { near, far } of this.pairs) {
      near.unpipe(far).removeAllListeners("close").destroy();
      far.unpipe(near).resume();
      this.vanished = far;
    }
    this.pairs.clear();
  }

  cut() {
    this.isCut = true;
    for (const socket of this.sockets) socket.destroy();
  }

  mend() {
    this.isCut = false;
  }

  remove() {
    this.cut();
    this.server.close();
  }
}

export function browser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  });
}

// Somebody at a browser of his own.
export class Visitor {
  static async come(browser, url, name, options = {}) {
    const visitor = new Visitor();
    visitor.context = await browser.newContext({ viewport: { width: 1100, height: 720 }, ignoreHTTPSErrors: true, ...options });
    visitor.context.setDefaultTimeout(PATIENCE);
    visitor.page = await visitor.context.newPage();
    visitor.faults = [];
    visitor.page.on("pageerror", (error) => visitor.faults.push(String(error)));
    visitor.page.on("console", (message) => {
      // That nobody answers while the server is down is shown by the page.
      if (message.type() === "error" && !/WebSocket|ERR_/.test(message.text())) visitor.faults.push(message.text());
    });
    await visitor.page.goto(url);
    if (name) await visitor.enter(name);
    return visitor;
  }

  async enter(name, room = "lobby") {
    await this.page.getByLabel("Nickname", { exact: true }).fill(name);
    await this.page.getByLabel("Room", { exact: true }).fill(room);
    await this.page.getByRole("button", { name: "Enter" }).click();
    await this.isIn(room);
  }

  async isIn(room = "lobby") {
    await this.page.locator("#status", { hasText: /^Connected$/ }).waitFor();
    await this.page.locator("#title", { hasText: new RegExp(`^${room}$`) }).waitFor();
  }

  async say(text) {
    await this.page.getByLabel("Message", { exact: true }).fill(text);
    await this.page.getByRole("button", { name: "Send", exact: true }).click();
  }

  // A line of somebody, confirmed by the server.
  async sees(from, text) {
    const line = this.page.locator(".said:has(time)", {
      has: this.page.locator(".from", { hasText: new RegExp(`^${from}$`) }),
      hasText: text,
    });
    await line.first().waitFor();
  }

  async told(text) {
    await this.page.locator(".told", { hasText: text }).last().waitFor();
  }

  // The texts of all lines, in their order.
  lines() {
    return this.page.locator(".said .text").allTextContents();
  }

  // Waits until this holds in the page.
  until(what, condition, argument) {
    return this.page.waitForFunction(condition, argument, { timeout: PATIENCE }).catch((error) => {
      throw new Error(`in vain until ${what}: ${error.message}`);
    });
  }

  people(names) {
    return this.until(`${names} are here`, (names) => {
      const shown = [...document.querySelectorAll("#people li")].map((who) => who.textContent.replace(" (you)", ""));
      return shown.join() === names;
    }, [...names].sort().join());
  }

  // What axe finds fault with.
  async axe() {
    await this.page.evaluate(AXE);
    const { violations } = await this.page.evaluate(() =>
      axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }));
    return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ target }) => target).join("; ")}`);
  }

  // Pixels by which the page is wider than the window.
  excess() {
    return this.page.evaluate(() =>
      Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - innerWidth);
  }

  async leave() {
    await this.context.close();
    if (this.faults.length > 0) throw new Error(`the page has faults: ${this.faults.join("; ")}`);
  }
}

export async function within(what, promise, patience = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`in vain until ${what}`)), patience);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
