// What has been said. All that comes from others is set as text, never as markup.

// Entries that are kept; the oldest make room.
const ENTRIES_MOST = 1000;

// Pixels from the end at which one still reads along.
const NEAR = 60;

export class Log {
  #log;
  #button;
  #unreadChanged;
  #unread = 0;
  #following = true;

  constructor(log, button, unreadChanged) {
    this.#log = log;
    this.#button = button;
    this.#unreadChanged = unreadChanged;
    log.addEventListener("scroll", () => {
      this.#following = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;
      this.#look();
    });
    button.addEventListener("click", () => {
      this.toEnd();
      log.focus();
    });
    document.addEventListener("visibilitychange", () => this.#look());
    // The keyboard of a phone makes the log shorter.
    new ResizeObserver(() => this.#following && this.toEnd()).observe(log);
  }

  clear() {
    this.#log.replaceChildren();
    this.toEnd();
  }

  // While it is, a screen reader keeps silent: nobody wants to be read a whole history.
  set busy(busy) {
    this.#log.setAttribute("aria-busy", String(busy));
  }

  toEnd() {
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#following = true;
    this.#look();
  }

  // A line that somebody has said.
  said(from, text, at, isMine) {
    const entry = this.#entry(from, text);
    this.#confirm(entry, at, isMine);
    this.#add(entry, !isMine);
  }

  // A line of one's own that the server has not pushed yet.
  pending(from, text) {
    const entry = this.#entry(from, text);
    entry.classList.add("mine", "pending");
    this.#add(entry, false);
    this.toEnd();
    return entry;
  }

  // It has: the line takes its place behind all that came before it.
  confirm(entry, at) {
    entry.classList.remove("pending");
    this.#confirm(entry, at, true);
    if (entry !== this.#log.lastElementChild) this.#add(entry, false);
  }

  // It never will. `again` sends it anew, or says that it cannot.
  fail(entry, why, again) {
    entry.classList.replace("pending", "failed");
    const told = make("span", "error", why);
    const button = make("button", "", "Send again");
    button.type = "button";
    button.addEventListener("click", () => {
      if (again()) entry.remove();
    });
    entry.append(told, button);
    this.#follow();
  }

  // Something about the chat itself: `kind` is "", "marker" or "bad".
  told(text, kind = "") {
    const entry = make("p", "told", text);
    if (kind) entry.classList.add(kind);
    this.#add(entry, false);
  }

  #entry(from, text) {
    const entry = make("div", "said");
    const name = make("bdi", "from", from);
    const body = make("span", "text", text);
    body.dir = "auto";
    entry.append(name, body);
    return entry;
  }

  #confirm(entry, at, isMine) {
    const time = make("time", "", new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
    time.dateTime = new Date(at).toISOString();
    entry.querySelector(".from").after(time);
    entry.classList.toggle("mine", isMine);
  }

  #add(entry, isUnread) {
    this.#log.append(entry);
    if (this.#log.childElementCount > ENTRIES_MOST) this.#dropFirst();
    this.#follow();
    if (isUnread && !(this.#following && !document.hidden)) {
      this.#unread += 1;
      this.#show();
    }
  }

  // What is being read stays where it is.
  #dropFirst() {
    const before = this.#log.scrollHeight;
    this.#log.firstElementChild.remove();
    if (!this.#following) this.#log.scrollTop -= before - this.#log.scrollHeight;
  }

  #follow() {
    if (this.#following) this.#log.scrollTop = this.#log.scrollHeight;
  }

  #look() {
    if (this.#following && !document.hidden) {
      this.#unread = 0;
      this.#show();
    }
  }

  #show() {
    const lines = this.#unread === 1 ? "1 new line" : `${this.#unread} new lines`;
    this.#button.textContent = `${lines} \u2193`;
    this.#button.hidden = this.#unread === 0 || this.#following;
    this.#unreadChanged(this.#unread);
  }
}

export function make(tag, className, text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}
