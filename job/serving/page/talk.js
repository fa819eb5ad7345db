// A conversation, its replies shown while they are written.
import { byId, make, open, show } from "./ask.js";

let messages = []; // without the system prompt, which is read anew for each message
let running = null;

/** The objects of a stream of server-sent events, whatever chunks it comes in. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    held += done ? "\n" : value;
    const lines = held.split(/\r\n|\n|\r(?!$)/);
    held = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
    if (done) return;
  }
}

function turn(who, text, mine) {
  const box = make("div", mine ? "turn mine" : "turn"), words = make("p", "", text);
  words.dir = "auto";
  box.append(make("h3", "", who), words);
  byId("log").append(box);
  box.scrollIntoView({ block: "nearest" });
  return words;
}

function toSend(info) {
  if (info.texts) return messages.slice(-1); // a run on plain texts goes on with one
  const system = byId("system").value.trim();
  return [...(system ? [{ role: "system", content: system }] : []), ...messages];
}

/** Show the reply as it comes, in `words`; how it ended. `reply.text` grows along. */
async function stream(info, words, reply, signal) {
  const body = { model: info.model_id, messages: toSend(info), stream: true };
  const response = await open("/v1/chat/completions", body, signal);
  let reason = null;
  for await (const chunk of events(response.body)) {
    if (chunk.error) throw new Error(chunk.error.message);
    const choice = chunk.choices?.[0];
    if (!choice) continue;
    reply.text += choice.delta?.content ?? "";
    words.textContent = reply.text;
    reason = choice.finish_reason ?? reason;
  }
  return reason;
}

function busy(is) {
  byId("stop").disabled = !is;
  byId("say").querySelector(".main").disabled = is;
  byId("log").setAttribute("aria-busy", String(is));
}

async function send(info) {
  const text = byId("message").value, own = new AbortController(), reply = { text: "" };
  if (running || !text.trim()) return;
  running = own;
  show(null);
  byId("talk-note").textContent = "";
  messages.push({ role: "user", content: text });
  byId("message").value = "";
  turn("You", text, true);
  const words = turn(info.model_id, "", false);
  words.classList.add("waits");
  busy(true);
  let note = null, failed = null;
  try {
    const reason = await stream(info, words, reply, own.signal);
    if (reason === "length") note = "Cut: it had no room left for more.";
    else if (!reply.text) note = "It said nothing.";
  } catch (error) {
    failed = error.name === "AbortError" ? null : error;
    note = failed ? "Broken off." : "Stopped.";
  }
  words.classList.remove("waits");
  if (note) words.after(make("p", "note", note));
  if (running !== own) return; // begun anew meanwhile
  if (reply.text) messages.push({ role: "assistant", content: reply.text });
  else messages.pop(); // many templates refuse two messages of the user in a row
  if (!reply.text && failed) byId("message").value = text; // so that it can be sent again
  running = null;
  busy(false);
  show(failed);
  byId("message").focus();
}

function reset() {
  running?.abort();
  running = null;
  messages = [];
  byId("log").replaceChildren();
  byId("talk-note").textContent = "A new conversation.";
  busy(false);
  show(null);
  byId("message").focus();
}

export function startTalk(info) {
  byId("talk").hidden = false;
  byId("talk").querySelector("details").hidden = info.texts;
  byId("say").addEventListener("submit", (event) => {
    event.preventDefault();
    send(info);
  });
  byId("message").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("say").requestSubmit();
  });
  byId("stop").addEventListener("click", () => running?.abort());
  byId("reset").addEventListener("click", reset);
}
