// What every part of the page asks the server by. The token lives in this variable and nowhere else.
let token = "";

export function byId(id) { return document.getElementById(id); }

/** An element with a class and a text: text is text, whatever stands in it. */
export function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

export function useToken(value) { token = value; }

/** What went wrong with an answer: its status, the server's own sentence, seconds to wait. */
export class Refused extends Error {
  constructor(status, sentence, wait) {
    super(sentence);
    this.status = status;
    this.wait = wait;
  }
}

function sentenceOf(body, status) {
  let error = null;
  try { error = JSON.parse(body).error; } catch { /* a proxy's page */ }
  if (error && typeof error === "object") error = error.message;
  return typeof error === "string" && error ? error : `The server answered with status ${status}.`;
}

/** Seconds of a Retry-After header; a second where it has none, a minute at most. */
export function secondsOf(header) {
  const seconds = Number(header);
  return header && Number.isFinite(seconds) ? Math.min(60, Math.max(0.2, seconds)) : 1;
}

/** The response to GET, or to POST where there is a body. Throws Refused for any but a 2xx. */
export async function open(path, body, signal) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const request = { headers, signal, cache: "no-store" };
  if (body !== undefined) {
    request.method = "POST";
    request.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Is it still running?", 1);
  }
  if (response.ok) return response;
  const sentence = sentenceOf(await response.text(), response.status);
  throw new Refused(response.status, sentence, secondsOf(response.headers.get("Retry-After")));
}

export async function ask(path, body, signal) { return (await open(path, body, signal)).json(); }

/** A while that ends early where `signal` is aborted, with its AbortError. */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); });
  });
}

/** ask() that waits and asks again while the server is busy or going down; `waits(seconds)` says so. */
export async function askPatiently(path, body, signal, waits) {
  for (;;) {
    try {
      return await ask(path, body, signal);
    } catch (error) {
      if (!(error instanceof Refused) || ![429, 503].includes(error.status)) throw error;
      waits(error.wait);
      await pause(error.wait, signal);
    }
  }
}

let asksForToken = () => {};
export function whenTokenIsWrong(action) { asksForToken = action; }

/** Say what went wrong where everybody looks; null takes it away. */
export function show(error) {
  const trouble = byId("trouble"), closed = error instanceof Refused && error.status === 401;
  trouble.hidden = error === null || error.name === "AbortError" || (closed && !token); // not asked yet
  trouble.textContent = trouble.hidden ? "" : error.message;
  if (closed) asksForToken();
}
