"use strict";

const get = id => document.getElementById(id);
const setup = JSON.parse(document.body.dataset.setup);
const SETTINGS = ["temperature", "top_p", "length", "seed"];
const KEY = `chat: ${get("about").textContent}`;  // where this tab keeps the conversation with this model
const AT_END = 40;  // pixels from the end at which the reader still follows what is written

// A turn: {message, pieces: [{text, tokens: [[text, probability, [[text, probability], …]], …]}, …], note, goes_on}.
let turns = [], running = null;

/* The text of the conversation */

const replyOf = turn => turn.pieces.map(piece => piece.text).join("");
const lines = (...parts) => parts.filter(Boolean).join("\n");
const textOf = some => some.reduce((text, turn) => lines(text, turn.message) + separator(turn) + replyOf(turn), "");
const separator = turn => setup.continues || !turn.message ? "" : "\n";

/* What is shown */

function make(tag, kind, content = "") {
  const element = document.createElement(tag);
  element.className = kind;
  element.textContent = content;
  return element;
}

function addPiece(place, piece) {
  const shown = make("span", "piece", piece.text);
  shown.tokens = piece.tokens;
  place.append(shown);
}

function addTurn(turn) {
  const section = make("div", "turn"), you = make("span", "you", turn.message), model = make("span", "model");
  for (const [part, label] of [[you, "You"], [model, "The model"]]) {
    part.setAttribute("role", "group");
    part.setAttribute("aria-label", label);
  }
  model.tabIndex = 0;
  turn.pieces.forEach(piece => addPiece(model, piece));
  section.append(...(turn.message ? [you, model] : [model]));
  get("turns").append(section);
}

function showAll() {
  hideToken();
  get("turns").replaceChildren();
  turns.forEach(addTurn);
  showNote();
  showEnd();
}

function showNote() {
  const last = turns[turns.length - 1];
  get("start").hidden = Boolean(last);
  get("note").hidden = !last || !last.note;
  get("note-words").textContent = last ? last.note : "";
  get("continue").hidden = !last || !last.goes_on;
}

const follows = () => get("log").scrollHeight - get("log").scrollTop - get("log").clientHeight < AT_END;
function showEnd() {
  get("log").scrollTop = get("log").scrollHeight;
  get("newest").hidden = true;
}

// Runs a change of the page; a reader who was at the end stays there, one who had scrolled back stays where they were.
function keepingPlace(change) {
  const following = follows();
  change();
  if (following) showEnd();
}

function say(sentence, error = false) {
  if (get("status").textContent !== sentence) get("status").textContent = sentence;  // said once to who listens
  get("rate").textContent = "";
  get("status").classList.toggle("error", error);
}

function showBusy() {
  const some = turns.length > 0;
  get("send").hidden = Boolean(running);
  get("stop").hidden = !running;
  get("new").disabled = get("again").disabled = get("continue").disabled = Boolean(running) || !some;
  get("copy").disabled = !some;
  document.querySelectorAll("#examples button").forEach(button => { button.disabled = Boolean(running); });
  get("log").setAttribute("aria-busy", String(Boolean(running)));
}

/* What this tab keeps over a reload */

function save() {
  const settings = Object.fromEntries(SETTINGS.map(name => [name, get(name).value]));
  try {
    sessionStorage.setItem(KEY, JSON.stringify({turns, settings, draft: get("message").value}));
  } catch {
    say("The browser keeps no more of this conversation: it will be lost if the page is loaded again.");
  }
}

function restore() {
  let kept = {};
  try {
    kept = JSON.parse(sessionStorage.getItem(KEY)) || {};
  } catch { /* nothing is kept, or nothing may be kept */ }
  turns = kept.turns || [];
  get("temperature").max = Math.max(2, setup.settings.temperature);
  get("length").max = get("longest").textContent = setup.longest;
  for (const name of SETTINGS) get(name).value = kept.settings ? kept.settings[name] : setup.settings[name] ?? "";
  if (!kept.settings) get("length").value = Math.min(setup.settings.length, setup.longest);
  get("message").value = kept.draft || "";
}

/* Asking and reading a reply */

// The numbers that are sent, or null after a sentence about one that cannot be.
function settings() {
  for (const name of ["length", "seed"]) {
    if (get(name).checkValidity() && (name === "seed" || get(name).value)) continue;
    get("settings").open = true;
    const expected = name === "seed" ? "a whole number from 0, or nothing" : `a whole number from 1 to ${setup.longest}`;
    say(`The ${name} must be ${expected}.`, true);
    get(name).focus();
    return null;
  }
  const chosen = Object.fromEntries(SETTINGS.map(name => [name, Number(get(name).value)]));
  return {...chosen, seed: get("seed").value === "" ? null : chosen.seed};
}

async function* linesOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  // A connection that breaks is an end without the server's last line.
  const next = () => reader.read().catch(error => {
    if (error.name === "AbortError") throw error;
    return {done: true};
  });
  for (let part = await next(); !part.done; part = await next()) {
    const whole = (rest + part.value).split("\n");
    rest = whole.pop();
    for (const line of whole) yield JSON.parse(line);
  }
}

const DEAD = "Start it again in the terminal (make chat), then try again here; the conversation and your text are kept.";
const WAITING = "The model is busy with another reply, perhaps in another tab. Yours begins when that one is done.";
const CUT = "The reply was cut off.";

async function request(body, signal) {
  const options = {method: "POST", signal, headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)};
  let answer;
  try {
    answer = await fetch("/reply", options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(`The chat's server does not answer: it was probably stopped. ${DEAD}`);
  }
  if (!answer.ok) throw new Error(`This did not work: ${await answer.text()}.`);
  return answer;
}

// Writes what the server streams into the last turn; `begin` shows that turn once the first piece is there.
async function receive(answer, turn, begin) {
  let count = 0, start = 0, ended = null;
  const told = () => {
    const seconds = (performance.now() - start) / 1000;
    const rate = count > 1 && seconds > 0 ? `, ${((count - 1) / seconds).toFixed(1)} per second` : "";
    return `${count} token${count === 1 ? "" : "s"}${rate}`;
  };
  try {
    for await (const line of linesOf(answer)) {
      if (line.error !== undefined) throw new Error(`This did not work: ${line.error}.`);
      if (line.waiting) say(WAITING);
      if (line.ended !== undefined) ended = line.ended;
      if (line.text === undefined) continue;
      keepingPlace(() => {
        if (!count) {
          start = performance.now();
          begin();
          say("The model is writing.");
        }
        turn.pieces.push(line);
        addPiece(get("turns").lastElementChild.lastElementChild, line);
      });
      count += line.tokens.length;
      get("rate").textContent = told();
    }
    if (ended === null) {
      throw new Error(`The chat's server stopped ${count ? "in the middle of" : "before"} the reply. ${DEAD}`);
    }
    if (!count) begin();
    turn.note = count ? `${told()}.` : "The model ended its reply at once.";
    if (ended === "length") turn.note += " The reply has reached its length.";
    turn.goes_on = ended === "length";
  } catch (error) {
    if (count) turn.note = `${told()}. ${error.name === "AbortError" ? "You stopped it." : CUT}`;
    throw error;
  }
}

// Asks for a reply to `message` after the turns `earlier`; `begun` is a turn whose reply goes on.
async function ask(message, earlier, begun = null) {
  const chosen = running ? null : settings();
  if (!chosen) return;
  const turn = begun || {message, pieces: [], note: "", goes_on: false};
  running = new AbortController();
  showBusy();
  say("The model is reading.");
  try {
    const answer = await request({text: textOf(earlier), message, begun: replyOf(turn), ...chosen}, running.signal);
    await receive(answer, turn, () => {
      if (get("message").value === message) get("message").value = "";  // it stays in the box until the reply begins
      turns = [...earlier, turn];
      if (!begun) showAll();
      get("note").hidden = true;
      Object.assign(turn, {note: CUT, goes_on: true});  // what is kept if the page is closed now
    });
    say("");
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else say(error.message, true);
  }
  running = null;
  keepingPlace(() => { showNote(); showBusy(); });
  save();
  if (document.activeElement === document.body) get("message").focus({preventScroll: true});
}

function send() {
  const message = get("message").value;
  if (running) say("The model is still writing. Press Stop first.");
  else if (message.trim()) ask(message, turns);
  else if (!turns.length) say("Write something first, or choose one of the examples.");
  else say(turns[turns.length - 1].goes_on ? "Write something first, or press Continue." : "Write something first.");
}

/* The probability of a token */

function percent(share) {
  if (share < 0.001) return "under 0.1 %";
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

const quoted = text => `“${text.replaceAll("\n", "⏎") || "no text"}”`;

function showToken(piece) {
  document.querySelectorAll(".chosen").forEach(other => other.classList.remove("chosen"));
  piece.classList.add("chosen");
  const card = get("token");
  card.replaceChildren();
  for (const [text, probability, likeliest] of piece.tokens) {
    card.append(make("p", "", `${quoted(text)} had a probability of ${percent(probability)}. Most probable here:`));
    const list = make("ol", "");
    for (const [rival, share] of likeliest) {
      const row = make("li", rival === text ? "this" : "");
      row.append(make("span", "", quoted(rival)), make("span", "", percent(share)));
      list.append(row);
    }
    card.append(list);
  }
  card.hidden = false;
  placeToken();
}

function placeToken() {
  const piece = document.querySelector(".chosen"), log = get("log").getBoundingClientRect(), card = get("token");
  const place = piece && piece.getClientRects()[0];
  if (!place || place.bottom < log.top || place.top > log.bottom) return hideToken();
  const {width, height} = card.getBoundingClientRect();
  const top = place.bottom + 6 + height < innerHeight ? place.bottom + 6 : Math.max(8, place.top - height - 6);
  card.style.left = `${Math.max(8, Math.min(place.left, innerWidth - width - 8))}px`;
  card.style.top = `${top}px`;
}

function hideToken() {
  document.querySelectorAll(".chosen").forEach(other => other.classList.remove("chosen"));
  get("token").hidden = true;
}

function walk(event) {
  const reply = event.target.closest(".model"), step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (event.key === "Escape") hideToken();
  if (!reply || !step) return;
  const pieces = [...reply.children], now = pieces.findIndex(piece => piece.classList.contains("chosen"));
  const next = pieces[now < 0 ? (step > 0 ? 0 : pieces.length - 1) : now + step];
  if (!next) return;
  event.preventDefault();
  next.scrollIntoView({block: "nearest"});
  showToken(next);
  const [text, probability] = next.tokens[0];
  if (!running) say(`${quoted(text)}: ${percent(probability)}`);
}

/* Wiring */

for (const text of setup.examples) {
  const button = make("button", "", text);
  button.type = "button";
  button.addEventListener("click", () => ask(text, []));
  get("examples").append(button);
}
get("start-words").textContent = setup.continues
  ? "Write the beginning of a text, and the model goes on. For example:" : "Ask the model for something. For example:";
get("message").placeholder = setup.continues ? "Write a text; Enter lets the model go on" : "Write a message, and press Enter";

get("form").addEventListener("submit", event => { event.preventDefault(); send(); });
get("message").addEventListener("keydown", event => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
get("stop").addEventListener("click", () => { if (running) running.abort(); });
get("continue").addEventListener("click", () => {
  const last = turns[turns.length - 1];
  ask(last.message, turns.slice(0, -1), last);
});
get("again").addEventListener("click", () => ask(turns[turns.length - 1].message, turns.slice(0, -1)));
get("new").addEventListener("click", () => {
  turns = [];
  showAll();
  showBusy();
  say("");
  save();
  get("message").focus();
});
get("copy").addEventListener("click", () => {
  navigator.clipboard.writeText(textOf(turns)).then(
    () => say("The conversation is copied."), () => say("The browser does not allow copying here.", true));
});

get("log").addEventListener("scroll", () => { get("newest").hidden = follows(); placeToken(); });
get("newest").addEventListener("click", showEnd);
for (const kind of ["pointerover", "click"]) {
  get("turns").addEventListener(kind, event => { if (event.target.tokens) showToken(event.target); });
}
get("turns").addEventListener("pointerleave", hideToken);
get("turns").addEventListener("focusout", hideToken);
get("turns").addEventListener("keydown", walk);

for (const name of SETTINGS) {
  get(name).addEventListener("input", () => { showNumbers(); save(); });
}
function showNumbers() {
  for (const name of ["temperature", "top_p"]) {
    document.querySelector(`output[for=${name}]`).value = Number(get(name).value).toFixed(2);
  }
}

const wide = matchMedia("(min-width: 62rem)");
const unfold = () => { get("settings").open = wide.matches; };
wide.addEventListener("change", unfold);
new ResizeObserver(() => { if (get("newest").hidden) showEnd(); }).observe(get("log"));
addEventListener("pagehide", save);

unfold();
restore();
showNumbers();
showAll();
showBusy();
