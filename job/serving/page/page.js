// Asks what the server has, and shows the parts of the page that fit.
import { ask, byId, show, useToken, whenTokenIsWrong } from "./ask.js";
import { startLabels } from "./labels.js";
import { startTable } from "./table.js";
import { startTalk } from "./talk.js";

let started = false;

function aboutLine(info) {
  const read = info.max_input_length ? `reads up to ${info.max_input_length.toLocaleString("en")} tokens` : "";
  const labels = info.labels && info.labels.length ? `${info.labels.length} labels` : "";
  const kind = info.task === "chat" ? "a language model" : info.kind === "regression" ? "answers with a number" : labels;
  return [kind, read, info.device && `on ${info.device}`, info.model_dtype].filter(Boolean).join(" · ");
}

function begin(info) {
  byId("name").textContent = info.model_id;
  byId("about").textContent = aboutLine(info);
  document.title = `${info.model_id} – openloop`;
  byId("key").hidden = true;
  if (started) return;
  started = true;
  if (info.task === "chat") return startTalk(info);
  startLabels(info);
  startTable(info);
}

async function look() {
  try {
    const info = await ask("/info");
    show(null);
    begin(info);
  } catch (error) {
    byId("about").textContent = "";
    show(error);
  }
}

whenTokenIsWrong(() => {
  byId("key").hidden = false;
  byId("token").focus();
});
byId("key").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(byId("token").value.trim());
  byId("token").value = "";
  look();
});
look();
