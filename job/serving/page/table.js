// A CSV file: read here, labelled in batches, saved with the answers beside its own columns.
import { askPatiently, byId, make, Refused, show } from "./ask.js";
import { decode, guessDelimiter, parseCsv, writeCsv } from "./csv.js";
import { inputOf, wordsOf } from "./labels.js";

const BATCH = 64; // rows asked for at a time, if the server takes as many
const LIKELY = ["text", "review", "sentence", "comment", "message", "content", "body", "title"];
const PAIR = ["text_pair", "text2", "sentence2", "hypothesis", "second"];

let table = null; // {name, delimiter, head, rows}
let running = null; // what stops the labelling that goes on

function count(number, word) { return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`; }

/** The column of the texts: by its name, else the one with most letters in the first rows. */
function likely(head, rows, names, but = -1) {
  const lower = head.map((name) => name.trim().toLowerCase());
  for (const name of names) if (lower.includes(name) && lower.indexOf(name) !== but) return lower.indexOf(name);
  const letters = (i) => (i === but ? -1 : rows.slice(0, 50).reduce((sum, row) => sum + (row[i] ?? "").length, 0));
  return head.reduce((best, _, i) => (letters(i) > letters(best) ? i : best), but === 0 ? head.length - 1 : 0);
}

function fill(select, head, chosen) {
  select.replaceChildren(...head.map((name, i) => {
    const option = make("option", "", name || `column ${i + 1}`);
    option.value = i;
    return option;
  }));
  select.value = chosen;
}

async function read(file, info) {
  byId("columns").hidden = true;
  table = null;
  const { text, encoding } = decode(await file.arrayBuffer());
  const delimiter = guessDelimiter(text), [head, ...rows] = parseCsv(text, delimiter);
  if (!head || !rows.length) throw new Error("The file has no rows below the names of its columns.");
  if (info.pairs && head.length < 2) throw new Error("This run takes pairs of texts; the file has one column.");
  table = { name: file.name, delimiter, head, rows };
  const first = likely(head, rows, LIKELY);
  fill(byId("column"), head, first);
  if (info.pairs) fill(byId("column-pair"), head, likely(head, rows, PAIR, first));
  byId("column-second").hidden = !info.pairs;
  byId("columns").hidden = false;
  const note = encoding === "UTF-8" ? "" : `, read as ${encoding}`;
  byId("file-note").textContent = `${count(rows.length, "row")}, ${count(head.length, "column")}${note}.`;
}

/** Batches of places in `texts` (null where a row cannot be asked), small enough for the server. */
export function batches(texts, most, mostBytes) {
  const made = [], encoder = new TextEncoder();
  let batch = [], bytes = 0;
  texts.forEach((text, place) => {
    if (text === null) return;
    const size = encoder.encode(JSON.stringify(text)).length + 4;
    if (batch.length && (batch.length >= most || bytes + size > mostBytes)) {
      made.push(batch);
      batch = [];
      bytes = 0;
    }
    batch.push(place);
    bytes += size;
  });
  return batch.length ? [...made, batch] : made;
}

/** The columns that answers add, with how each is worked out from a row's elements. */
export function columnsOf(info) {
  const columns = info.kind === "regression"
    ? [["value", (elements) => String(elements[0].score)]]
    : [["label", (elements) => wordsOf(elements, info)]];
  if (info.unsure_below !== null && info.kind !== "regression") {
    columns.push(["unsure", (elements) => String(elements[0].unsure)]);
  }
  columns.push(["truncated", (elements) => String(elements[0].truncated)]);
  for (const name of info.labels) {
    columns.push([`probability_${name}`, (elements) => String(elements.find((e) => e.label === name)?.score ?? "")]);
  }
  return columns;
}

/** The table with the answers: `answered` holds a row's elements, an error as text, or nothing yet. */
export function joined(head, rows, answered, info) {
  const columns = columnsOf(info), own = [...columns.map(([name]) => name), "error"];
  const kept = head.map((name) => {
    while (own.includes(name)) name = `input_${name}`;
    return name;
  });
  const lines = rows.map((row, place) => {
    const answer = answered[place], fits = Array.isArray(answer);
    const cells = columns.map(([, cell]) => (fits ? cell(answer) : ""));
    const error = fits ? "" : answer ?? "not asked";
    return [...head.map((_, i) => row[i] ?? ""), ...cells, error];
  });
  return [[...kept, ...own], ...lines];
}

function offer({ name, delimiter, head, rows }, answered, info) {
  const link = byId("save");
  if (link.href) URL.revokeObjectURL(link.href);
  const content = writeCsv(joined(head, rows, answered, info), delimiter);
  link.href = URL.createObjectURL(new Blob([content], { type: "text/csv" }));
  link.download = `${name.replace(/\.[^.]*$/, "")}_labelled${delimiter === "\t" ? ".tsv" : ".csv"}`;
  link.hidden = false;
}

/** Why a row cannot be asked; null where it can. */
function fault(row, head, places) {
  if (row.length !== head.length) return `${count(row.length, "cell")}; the first row has ${head.length}`;
  return places.some((place) => !row[place].trim()) ? "no text" : null;
}

async function labelBatch(batch, texts, answered, info, signal) {
  const waits = (seconds) => {
    if (!signal.aborted) byId("done").textContent = `The server is busy; going on in ${seconds} s.`;
  };
  const inputs = batch.map((place) => texts[place]);
  try {
    const answers = await askPatiently("/predict", { inputs, partial: true }, signal, waits);
    batch.forEach((place, i) => {
      answered[place] = answers[i][0]?.error ?? answers[i];
    });
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 413 || batch.length > 1) throw error;
    answered[batch[0]] = error.message; // a single text that the server finds too long
  }
}

async function labelAll(info) {
  const own = new AbortController(), file = table, { head, rows } = file;
  const most = Math.min(BATCH, info.max_client_batch_size);
  const places = [byId("column"), ...(info.pairs ? [byId("column-pair")] : [])].map((select) => Number(select.value));
  const answered = rows.map((row) => fault(row, head, places) ?? undefined);
  const texts = rows.map((row, i) => (answered[i] ? null : places.map((place) => row[place])));
  running = own;
  const bar = byId("bar");
  bar.max = rows.length;
  bar.value = answered.filter(Boolean).length;
  byId("going").hidden = byId("halt").hidden = false;
  byId("save").hidden = true;
  byId("done").textContent = "";
  show(null);
  try {
    for (const batch of batches(texts, most, info.max_body_bytes / 2)) {
      await labelBatch(batch, texts, answered, info, own.signal);
      if (running !== own) return; // another file was chosen meanwhile
      bar.value += batch.length;
    }
    byId("done").textContent = `${count(rows.length, "row")} labelled${errorsOf(answered)}.`;
  } catch (error) {
    if (running !== own) return;
    const left = answered.filter((answer) => answer === undefined).length;
    byId("done").textContent = `Stopped: ${count(left, "row")} without an answer.`;
    show(error);
  }
  offer(file, answered, info);
  byId("halt").hidden = true;
  running = null;
}

function errorsOf(answered) {
  const errors = answered.filter((answer) => typeof answer === "string").length;
  return errors ? `, ${errors.toLocaleString("en")} of them with an error in place of a label` : "";
}

export function startTable(info) {
  byId("table").hidden = false;
  byId("file").addEventListener("change", async (event) => {
    running?.abort();
    running = null;
    byId("save").hidden = byId("going").hidden = byId("halt").hidden = true;
    byId("done").textContent = byId("file-note").textContent = "";
    try {
      if (event.target.files.length) await read(event.target.files[0], info);
      show(null);
    } catch (error) {
      show(error);
    }
  });
  byId("columns").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!running) labelAll(info);
  });
  byId("halt").addEventListener("click", () => running?.abort());
}
