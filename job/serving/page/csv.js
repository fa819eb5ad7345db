// CSV as RFC 4180 has it, with any of the usual delimiters; line ends may be \r\n, \n or \r.

const DELIMITERS = [",", ";", "\t", "|"];

/** Rows of cells. Blank lines are left out. Throws an Error that names the row of a broken quote. */
export function parseCsv(text, delimiter) {
  const rows = [];
  let row = [], cell = "", state = "begin", place = 0; // begin, bare, quoted or closed
  function endCell() { row.push(cell); cell = ""; state = "begin"; }
  function endRow() {
    const blank = row.length === 0 && cell === "" && state === "begin";
    if (!blank) { endCell(); rows.push(row); }
    row = [];
  }
  for (; place < text.length; place++) {
    const letter = text[place];
    if (state === "quoted") {
      if (letter !== '"') cell += letter;
      else if (text[place + 1] === '"') { cell += letter; place++; }
      else state = "closed";
    } else if (letter === delimiter) {
      endCell();
    } else if (letter === "\n" || letter === "\r") {
      if (letter === "\r" && text[place + 1] === "\n") place++;
      endRow();
    } else if (letter === '"' && state === "begin") {
      state = "quoted";
    } else if (state === "closed") {
      throw new Error(`Row ${rows.length + 1}: letters behind the quote that ends a cell.`);
    } else {
      cell += letter;
      state = "bare";
    }
  }
  if (state === "quoted") throw new Error(`Row ${rows.length + 1}: a quote is never closed.`);
  endRow();
  return rows;
}

/** The delimiter that gives the first row most cells. */
export function guessDelimiter(text) {
  const first = (delimiter) => {
    let quoted = false, count = 1;
    for (const letter of text) {
      if (letter === '"') quoted = !quoted;
      else if (!quoted && (letter === "\n" || letter === "\r")) break;
      else if (!quoted && letter === delimiter) count++;
    }
    return count;
  };
  return DELIMITERS.reduce((best, other) => (first(other) > first(best) ? other : best));
}

/** Bytes as text: UTF-8 with or without its mark, UTF-16 with it, else Windows' western letters. */
export function decode(bytes) {
  const [one, two] = new Uint8Array(bytes.slice(0, 2));
  const wide = one === 0xff && two === 0xfe ? "utf-16le" : one === 0xfe && two === 0xff ? "utf-16be" : null;
  if (wide) return { text: new TextDecoder(wide).decode(bytes), encoding: "UTF-16" };
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes), encoding: "UTF-8" };
  } catch {
    return { text: new TextDecoder("windows-1252").decode(bytes), encoding: "Windows-1252" };
  }
}

const FORMULA = /^[=+\-@\t\r]/, NUMBER = /^[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?$/;

/** A cell that no table program takes for a formula: an apostrophe stands before one, as OWASP has it. */
export function harmless(cell) { return FORMULA.test(cell) && !NUMBER.test(cell) ? `'${cell}` : cell; }

function writeCell(cell, delimiter) {
  const text = harmless(cell);
  return text.includes(delimiter) || /["\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Rows of cells as a file. A row of one empty cell is quoted: it would be a blank line. */
export function writeCsv(rows, delimiter) {
  const lines = rows.map((row) => row.map((cell) => writeCell(cell, delimiter)).join(delimiter) || '""');
  return lines.map((line) => `${line}\r\n`).join("");
}
