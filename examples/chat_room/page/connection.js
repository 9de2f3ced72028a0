// A WebSocket that comes back by itself.

// Milliseconds before the first new attempt, and at most. Each attempt doubles the time, and a part
// of it is left to chance: else all pages of a server that was restarted would come at once.
const RETRY_FIRST = 500;
const RETRY_MOST = 15_000;

// How often something is asked that the server answers, and how long it may take: a network that
// has gone away says nothing by itself.
const ASK_EVERY = 20_000;
const ANSWER_WITHIN = 10_000;

export class Connection {
  #on;
  #socket = null;
  #attempts = 0;
  #retry = 0;
  #ask = 0;
  #answer = 0;

  // `on.opened()`, `on.event(event)`, `on.lost(code, milliseconds until it is tried again)`, and
  // `on.ask()`, which is to send something that is answered.
  constructor(on) {
    this.#on = on;
    addEventListener("online", () => this.retry());
    document.addEventListener("visibilitychange", () => document.hidden || this.retry());
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  open() {
    this.close();
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/ws`);
    this.#socket = socket;
    this.#expectAnswer();
    socket.onopen = () => {
      this.#answered();
      this.#ask = setInterval(() => this.#askSomething(), ASK_EVERY);
      this.#on.opened();
    };
    socket.onmessage = (message) => {
      this.#answered();
      this.#on.event(JSON.parse(message.data));
    };
    socket.onclose = ({ code }) => this.#lost(code);
  }

  // Closes, and does not come back before it is opened again.
  close() {
    clearTimeout(this.#retry);
    clearInterval(this.#ask);
    clearTimeout(this.#answer);
    this.#retry = 0;
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
      this.#socket = null;
    }
  }

  // Tries again at once, if it waits for that.
  retry() {
    if (this.#retry) this.open();
  }

  // The server is well: what comes next is a first attempt again.
  settled() {
    this.#attempts = 0;
  }

  // Whether it was handed to the socket; what becomes of it only an answer tells.
  send(line) {
    if (!this.isOpen) return false;
    this.#socket.send(line);
    return true;
  }

  #askSomething() {
    this.#on.ask();
    this.#expectAnswer();
  }

  #expectAnswer() {
    this.#answer ||= setTimeout(() => this.#lost(1006), ANSWER_WITHIN);
  }

  #answered() {
    clearTimeout(this.#answer);
    this.#answer = 0;
  }

  #lost(code) {
    this.close();
    const most = Math.min(RETRY_FIRST * 2 ** this.#attempts, RETRY_MOST);
    const wait = most / 2 + Math.random() * (most / 2);
    this.#attempts += 1;
    this.#retry = setTimeout(() => this.open(), wait);
    this.#on.lost(code, wait);
  }
}
