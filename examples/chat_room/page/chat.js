// The page of the chat room. It sends the lines that a terminal would send, and is told events; what
// they are is in `event.rs`.

import { Connection } from "./connection.js";
import { Log, make } from "./log.js";

const LINE_MAX = 4096;

// A nickname may be held for a while by a connection of one's own that the server has not missed yet:
// that takes it 50 seconds at most.
const NAME_RETRY = 2_000;
const NAME_RETRIES = 30;

const at = (id) => document.getElementById(id);

// What one is called and where one is, or wants to be.
let name = "";
let room = "";
// Under which name the room knows us: it hears of a change between two lines.
let speaker = "";
// The last line that was seen there: where to go on from.
let since = null;
// Whether the server has let us in, on this connection; and before.
let isIn = false;
let wasIn = false;
// How many lines of the past are still to come.
let toCome = 0;
let nameRetries = 0;
// What the server said when it ended the connection.
let farewell = "";
// Lines of one's own that have not come back yet.
let pending = [];
let people = new Set();
let peopleCount = 0;

const log = new Log(at("log"), at("unread"), showTitle);
let unread = 0;

const connection = new Connection({
  opened() {
    isIn = false;
    farewell = "";
    comeIn();
  },
  event(event) {
    events[event.type]?.(event);
  },
  lost(code, wait) {
    const why = farewell || (code === 1001 ? "The server is stopping." : "The connection is lost.");
    if (isIn) log.told(why, "bad");
    isIn = false;
    showStatus(`${why} Trying again in ${Math.ceil(wait / 1000)} s.`, "offline");
    at("retry").hidden = false;
  },
  ask() {
    connection.send("/rooms");
  },
});

function comeIn() {
  showStatus("Coming in\u2026");
  at("retry").hidden = true;
  connection.send(`/join ${room} ${since ?? "0"}`);
  connection.send(`/nick ${name}`);
}

// ---- what the server tells ----------------------------------------------------------------------

const events = {
  named(event) {
    name = event.name;
    nameRetries = 0;
    remember(name);
    at("new-name").value = name;
    if (isIn) log.told(`You are now ${name}.`);
  },

  entered(event) {
    connection.settled();
    if (!wasIn || event.room !== room || !since) log.clear();
    log.busy = event.lines > 0;
    if (event.restarted) {
      log.told("The server does not know any more what was said before; what it still has follows.", "marker");
    } else if (event.missed > 0) {
      log.told(`${event.missed} lines were said that the server does not keep any more.`, "marker");
    }
    room = event.room;
    since = `${event.epoch}.${event.last - event.lines}`;
    toCome = event.lines;
    speaker = name;
    people = new Set(event.names);
    peopleCount = event.count;
    isIn = wasIn = true;
    history.replaceState(null, "", `#${room}`);
    showChat();
    showPeople();
    showStatus("Connected", "online");
    connection.send("/rooms");
    if (toCome === 0) caughtUp();
  },

  line(event) {
    since = `${since.split(".")[0]}.${event.id}`;
    const isMine = event.from === speaker;
    const place = isMine ? pending.findIndex(({ text }) => text === event.text) : -1;
    if (place >= 0) {
      const [{ entry }] = pending.splice(place, 1);
      log.confirm(entry, event.at);
    } else {
      log.said(event.from, event.text, event.at, isMine);
    }
    if (toCome > 0 && --toCome === 0) caughtUp();
  },

  joined(event) {
    people.add(event.name);
    peopleCount += 1;
    log.told(`${event.name} has joined ${event.room}.`);
    showPeople();
  },

  left(event) {
    people.delete(event.name);
    peopleCount -= 1;
    log.told(`${event.name} has left ${event.room}.`);
    showPeople();
  },

  renamed(event) {
    people.delete(event.from);
    people.add(event.to);
    if (event.from === speaker) speaker = event.to;
    else log.told(`${event.from} is now ${event.to}.`);
    showPeople();
  },

  rooms(event) {
    const list = at("rooms");
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.room : null;
    list.replaceChildren(...event.rooms.map(({ name, count }) => {
      const button = make("button", "");
      button.type = "button";
      button.dataset.room = name;
      button.append(make("bdi", "", name), make("span", "count", `${count} here`));
      if (name === room) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => goTo(name));
      const item = make("li", "");
      item.append(button);
      return item;
    }));
    if (focused) list.querySelector(`[data-room="${CSS.escape(focused)}"]`)?.focus();
  },

  who(event) {
    log.told(`${event.count} in ${event.room}: ${event.names.join(", ")}`);
  },

  note(event) {
    log.told(event.text);
  },

  refused(event) {
    const place = pending.findIndex(({ text }) => text === event.line);
    if (place >= 0) {
      const [{ entry, text }] = pending.splice(place, 1);
      log.fail(entry, event.why, () => sayAgain(text));
    } else if (!isIn && event.what === "name") {
      nameRefused(event.why);
    } else {
      log.told(event.why, "bad");
    }
  },

  closing(event) {
    farewell = `${event.text[0].toUpperCase()}${event.text.slice(1)}.`;
    if (event.reason === "flooding" || event.reason === "quit") {
      // Not without being asked to.
      connection.close();
      isIn = false;
      showDoor(event.text);
    }
  },
};

// All of the past has come: what was not among it has never been said.
function caughtUp() {
  log.busy = false;
  for (const { entry, text } of pending.splice(0)) {
    log.fail(entry, "This line did not arrive.", () => sayAgain(text));
  }
}

function nameRefused(why) {
  nameRetries += 1;
  if (wasIn && nameRetries <= NAME_RETRIES) {
    showStatus("Your nickname is still in use; waiting for it\u2026");
    setTimeout(() => connection.send(`/nick ${name}`), NAME_RETRY);
  } else {
    nameRetries = 0;
    showDoor(why);
  }
}

// ---- what the user does -------------------------------------------------------------------------

on("enter", (form) => {
  name = at("name").value.trim();
  room = at("first-room").value.trim();
  if (!isName(name) || !isName(room)) {
    at("name-error").textContent = "A name has 1 to 20 letters, digits, - and _";
    (isName(name) ? at("first-room") : at("name")).focus();
    return;
  }
  at("name-error").textContent = "";
  since = null;
  wasIn = false;
  if (connection.isOpen) comeIn();
  else {
    showStatus("Connecting\u2026");
    connection.open();
  }
});

on("send", () => {
  const text = at("say").value;
  if (text && say(text)) at("say").value = "";
});

on("go", () => {
  const wanted = at("room").value.trim();
  if (goTo(wanted)) at("room").value = "";
});

on("rename", () => {
  const wanted = at("new-name").value.trim();
  if (wanted !== name) connection.send(`/nick ${wanted}`);
  closeSide();
});

at("leave").addEventListener("click", () => {
  if (connection.send("/quit")) return;
  connection.close();
  showDoor("");
});
at("retry").addEventListener("click", () => connection.retry());
at("menu").addEventListener("click", () => (at("side").classList.contains("open") ? closeSide() : openSide()));

// As its link would, but for the address, where the room stays.
at("skip").addEventListener("click", (event) => {
  event.preventDefault();
  at("say").focus();
});

addEventListener("keydown", (key) => {
  if (key.key !== "Escape" || at("chat").hidden) return;
  if (at("side").classList.contains("open")) closeSide();
  else {
    log.toEnd();
    at("say").focus();
  }
});

// Whether the line is on its way. If not, it stays in the box.
function say(text) {
  at("say-error").textContent = "";
  const [, command, argument] = /^(\/join) +(\S+) *$/.exec(text) ?? [];
  if (command) return goTo(argument);
  if (new TextEncoder().encode(text).length > LINE_MAX) {
    at("say-error").textContent = `That is longer than ${LINE_MAX} bytes.`;
    return false;
  }
  if (!isIn || !connection.send(text)) {
    at("say-error").textContent = "Not connected: your line is kept here until you are.";
    return false;
  }
  if (!text.startsWith("/")) pending.push({ text, entry: log.pending(name, text) });
  return true;
}

// The button for that goes with the line, so the focus goes elsewhere.
function sayAgain(text) {
  at("say").focus();
  return say(text);
}

function goTo(wanted) {
  if (!isName(wanted)) {
    log.told("A room's name has 1 to 20 letters, digits, - and _", "bad");
    return false;
  }
  closeSide();
  at("say").focus();
  return wanted === room || connection.send(`/join ${wanted} 0`);
}

function on(id, submitted) {
  at(id).addEventListener("submit", (event) => {
    event.preventDefault();
    submitted(event.target);
  });
}

function isName(text) {
  return /^[A-Za-z0-9_-]{1,20}$/.test(text);
}

// ---- what is seen -------------------------------------------------------------------------------

function showDoor(error) {
  closeSide();
  at("chat").hidden = true;
  at("menu").hidden = at("skip").hidden = true;
  at("retry").hidden = true;
  at("door").hidden = false;
  at("title").textContent = "Chat room";
  at("name-error").textContent = error;
  wasIn = false;
  showStatus("");
  showTitle(0);
  at("name").focus();
}

function showChat() {
  const isNew = at("chat").hidden;
  at("door").hidden = true;
  at("chat").hidden = false;
  at("menu").hidden = at("skip").hidden = false;
  at("retry").hidden = true;
  at("title").textContent = room;
  at("log").setAttribute("aria-label", `Messages in ${room}`);
  showTitle(unread);
  if (isNew) at("say").focus();
}

function showStatus(text, className = "") {
  at("status").textContent = text;
  at("status").className = className;
}

function showTitle(count) {
  unread = count;
  const place = at("chat").hidden ? "Chat room" : `${room} - Chat room`;
  document.title = count > 0 ? `(${count}) ${place}` : place;
}

function showPeople() {
  const names = [...people].sort((one, other) => one.localeCompare(other));
  const items = names.map((who) => make("li", "", who === name ? `${who} (you)` : who));
  if (peopleCount > people.size) items.push(make("li", "count", `and ${peopleCount - people.size} more`));
  at("people").replaceChildren(...items);
  at("people-title").textContent = `Here (${peopleCount})`;
}

function openSide() {
  at("side").classList.add("open");
  at("talk").inert = true;
  at("menu").setAttribute("aria-expanded", "true");
  at("rooms").querySelector("button")?.focus();
}

function closeSide() {
  if (!at("side").classList.contains("open")) return;
  at("side").classList.remove("open");
  at("talk").inert = false;
  at("menu").setAttribute("aria-expanded", "false");
  at("menu").focus();
}

// On a wide window both are seen anyway.
matchMedia("(min-width: 48.01rem)").addEventListener("change", closeSide);

// A browser may keep nothing for us; then the name is typed again.
function remember(name) {
  try {
    localStorage.setItem("name", name);
  } catch {}
}

function remembered() {
  try {
    return localStorage.getItem("name") ?? "";
  } catch {
    return "";
  }
}

at("name").value = remembered();
at("first-room").value = isName(location.hash.slice(1)) ? location.hash.slice(1) : "lobby";
at("name").focus();
