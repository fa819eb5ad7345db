// One text, or a pair: the answer, its probabilities as bars, and the words that decided.
import { ask, askPatiently, byId, make, show } from "./ask.js";

const FEW = 10; // labels that are shown at first

export function percent(share) { return `${(100 * share).toFixed(1)} %`; }

/** A number of regression, to six digits. */
export function plain(value) { return String(Number(value.toPrecision(6))); }

/** What the server is asked about a row of the page: one text, or a pair of them. */
export function inputOf(texts) { return texts.length === 2 ? texts : texts[0]; }

/** The answer in words: labels that hold, or the number. `elements` as /predict gives them. */
export function wordsOf(elements, info) {
  if (info.kind === "regression") return plain(elements[0].score);
  const held = elements.filter((element) => element.holds).map((element) => element.label);
  return held.join(", ") || "none of the labels";
}

function outcome(elements, info) {
  const words = wordsOf(elements, info), first = elements.find((element) => element.holds);
  if (elements[0].unsure) return `Unsure: perhaps ${words}`;
  return info.kind === "single" && first ? `${words}, ${percent(first.score)}` : words;
}

function notes(elements, info) {
  const lines = [], limit = info.unsure_below;
  if (elements[0].unsure) {
    const share = limit !== null && limit <= 1 ? ` than the ${percent(limit)} that were asked for` : "";
    lines.push(`The model is less sure${share}: take this for no answer.`);
  }
  if (elements[0].truncated) {
    lines.push("The text is longer than the model reads, so a part of it did not count.");
  }
  return lines.map((line) => make("p", "warning", line));
}

function bar(element) {
  const item = make("li", element.holds ? "holds" : "");
  const track = make("div", "track"), fill = make("div", "fill");
  fill.style.width = `${100 * Math.min(1, Math.max(0, element.score))}%`;
  track.append(fill);
  item.append(make("span", "", element.label), make("span", "", percent(element.score)), track);
  return item;
}

function bars(elements) {
  const list = make("ul", "bars");
  list.setAttribute("aria-label", "Probabilities");
  list.append(...elements.slice(0, FEW).map(bar));
  if (elements.length <= FEW) return [list];
  const rest = make("button", "", `Show all ${elements.length} labels`);
  rest.addEventListener("click", () => {
    list.append(...elements.slice(FEW).map(bar));
    rest.remove();
  });
  return [list, rest];
}

/** A text with its words marked; `pieces` count code points. */
export function marked(text, pieces, strongest) {
  const letters = Array.from(text), box = make("p", "marked");
  box.dir = "auto";
  box.tabIndex = 0; // a long one scrolls, by keyboard too
  let place = 0;
  for (const piece of [...pieces].sort((one, other) => one.start - other.start)) {
    const level = Math.ceil(3 * Math.abs(piece.weight) / strongest);
    if (piece.start < place || level < 1) continue;
    box.append(letters.slice(place, piece.start).join(""));
    const side = piece.weight > 0 ? "for" : "against";
    const mark = make("mark", `${side}${Math.min(3, level)}`, letters.slice(piece.start, piece.end).join(""));
    mark.title = `${side} it: ${piece.weight.toFixed(2)}`;
    box.append(mark);
    place = piece.end;
  }
  box.append(letters.slice(place).join(""));
  return box;
}

const MARKED = 0.1; // of the strongest word, what is worth a mark

function wordsThatDecided(explained, texts, info) {
  const words = explained.pieces.filter((piece) => piece.unit === "word");
  const strongest = Math.max(0, ...words.map((piece) => Math.abs(piece.weight)));
  if (!strongest) return [make("p", "note", "No single word decides here.")];
  const worth = words.filter((piece) => Math.abs(piece.weight) >= MARKED * strongest);
  const boxes = texts.map((text, side) => marked(text, worth.filter((piece) => piece.side === side), strongest));
  const what = info.kind === "regression" ? "makes the number larger" : `speaks for ${explained.label}`;
  const legend = `Underlined ${what}, dotted against it: what changes most when it is left out.`;
  return [make("h3", "", "The words that decided"), ...boxes, make("p", "note", legend)];
}

let running = new AbortController();

async function label(info) {
  running.abort();
  running = new AbortController();
  const { signal } = running, answer = byId("answer"), words = byId("words");
  const texts = [byId("text").value, ...(info.pairs ? [byId("pair").value] : [])];
  const busy = setTimeout(() => answer.replaceChildren(make("p", "note", "Asking …")), 300);
  words.replaceChildren();
  try {
    const elements = await askPatiently("/predict", { inputs: inputOf(texts) }, signal, (seconds) => {
      answer.replaceChildren(make("p", "note", `The server is busy; asking again in ${seconds} s.`));
    });
    clearTimeout(busy);
    show(null);
    const shown = info.kind === "regression" ? [] : bars(elements);
    answer.replaceChildren(make("p", "outcome", outcome(elements, info)), ...notes(elements, info), ...shown);
    words.replaceChildren(make("p", "note", "Looking for the words that decided …"));
    const explained = await ask("/explain", { inputs: inputOf(texts) }, signal);
    words.replaceChildren(...wordsThatDecided(explained, texts, info));
  } catch (error) {
    clearTimeout(busy);
    if (error.name === "AbortError") return; // somebody asked something else meanwhile
    if (!words.childElementCount) answer.replaceChildren();
    words.replaceChildren();
    show(error);
  }
}

export function startLabels(info) {
  byId("one").hidden = false;
  if (info.pairs) {
    byId("text-label").textContent = "First text";
    byId("second").hidden = false;
    byId("pair").required = true;
  }
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    label(info);
  });
  byId("ask").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ask").requestSubmit();
  });
}
