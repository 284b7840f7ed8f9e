// Requests to this server -> its answers, or an error that says what to do.

/** What went wrong with a request, in words for a person; `code` and `status` are the server's. */
export class ServerError extends Error {
  constructor(message, code = "", status = 0) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

const KEY = "vssl-key";
let asking = null;

function headers(given) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...given, "X-API-Key": key } : { ...given };
}

/** Ask for the key once, however many requests wait for it. */
function askKey(problem) {
  asking ??= new Promise((done) => {
    const dialog = document.getElementById("key-dialog");
    const said = document.getElementById("key-problem");
    const input = document.getElementById("key");
    said.hidden = !problem;
    said.textContent = problem ? "The server does not accept that key. Check it with whoever runs the server." : "";
    document.getElementById("key-form").onsubmit = () => {
      sessionStorage.setItem(KEY, input.value.trim());
      input.value = "";
    };
    dialog.onclose = () => {
      asking = null;
      done(Boolean(sessionStorage.getItem(KEY)));
    };
    dialog.oncancel = () => sessionStorage.removeItem(KEY);
    dialog.showModal();
  });
  return asking;
}

/** Send a request; a path is relative to the page. Raises ServerError. */
export async function call(path, options = {}) {
  let answer;
  const used = sessionStorage.getItem(KEY);
  try {
    answer = await fetch(path, { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(
      "The server does not answer. Start it again (vssl serve), or check the connection; then try again.",
      "unreachable",
    );
  }
  if (answer.ok) return answer;
  if (answer.status === 401) {
    const newer = sessionStorage.getItem(KEY) !== used;
    if (!newer) sessionStorage.removeItem(KEY);
    if (newer || (await askKey(Boolean(used)))) return call(path, options);
    throw new ServerError("This server answers only with an API key. Reload the page to enter one.", "invalid_api_key", 401);
  }
  const body = await answer.json().catch(() => null);
  const { code = "", message = `The server answered ${answer.status}.` } = body?.error ?? {};
  throw new ServerError(inWords(code, message, answer), code, answer.status);
}

function inWords(code, message, answer) {
  if (code === "too_many_bytes") return `The picture is too large for this server: ${message}. Send a smaller one.`;
  if (code === "undecodable") return `The picture is damaged and cannot be read: ${message}.`;
  if (code === "unsupported_type") return `That is no picture this server reads: ${message}.`;
  if (code === "too_many_pixels") return `The picture has too many pixels for this server: ${message}.`;
  if (answer.status === 429) return "The server is busy. Try again in a few seconds.";
  if (answer.status === 503) return "The server is starting or ending. Try again in a few seconds.";
  return message;
}

/** Return the JSON that a GET answers. */
export const read = async (path) => (await call(path)).json();

/** Return the JSON that a POST of a JSON body answers. */
export async function post(path, body, options = {}) {
  const sent = { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  return (await call(path, { ...sent, ...options })).json();
}

/** Return the path of an item below a route: its id is encoded; its slashes stay, unless a `..` would lead elsewhere. */
export const itemPath = (route, id) => {
  const parts = id.split("/").map(encodeURIComponent);
  return `${route}/${parts.join(parts.some((part) => part === "." || part === "..") ? "%2F" : "/")}`;
};

/** Return little-endian float32 numbers of base64. */
export function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}
