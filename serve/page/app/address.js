// The view and its state <-> the part of the address after #, so that a link shows the same.

/** Return {view, values}: the view's name and its state, texts by name. */
export function readAddress() {
  const [view, query = ""] = location.hash.slice(1).split("?");
  return { view: view || "search", values: new URLSearchParams(query) };
}

/** Return the address of a view; values that are null, undefined or empty are left out. */
export function addressOf(view, values = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") query.append(name, one);
    }
  }
  const text = query.toString();
  return `#${view}${text ? `?${text}` : ""}`;
}

/** Put a state into the address; a step of its own is one that the browser's Back undoes. */
export function writeAddress(view, values, { step = false } = {}) {
  const target = addressOf(view, values);
  if (target === location.hash) return;
  if (step) history.pushState(null, "", target);
  else history.replaceState(null, "", target);
}

/** Go to a view, as a link to it would. */
export function go(view, values) {
  location.hash = addressOf(view, values);
}
