// A question that must be answered before something is done.

import { make } from "../app/dom.js";

/** Ask; return a promise of true for the action, of false for anything else. */
export function confirmed({ title, text, action }) {
  return new Promise((done) => {
    const close = (answer) => {
      dialog.close();
      dialog.remove();
      done(answer);
    };
    const dialog = make(
      "dialog",
      { "aria-labelledby": "confirm-title", oncancel: () => close(false) },
      make("h2", { id: "confirm-title", text: title }),
      make("p", { class: "soft", text }),
      make("div", { class: "buttons" }, make("button", { class: "ordinary", text: "Cancel", onclick: () => close(false) }), make("button", { class: "strong", text: action, onclick: () => close(true) })),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
