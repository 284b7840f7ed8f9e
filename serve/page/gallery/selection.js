// The chosen pictures -> what can be done with them: tag, export, remove and undo.

import { count, make } from "../app/dom.js";
import { call, post } from "../app/server.js";
import { confirmed } from "./confirm.js";

const MOST_CHANGED = 1000; // items of one request
const undone = []; // removals of this page that can be undone, the latest last

/** Return ids in parts that one request may carry. */
function parts(ids) {
  return Array.from({ length: Math.ceil(ids.length / MOST_CHANGED) }, (_, at) => ids.slice(at * MOST_CHANGED, (at + 1) * MOST_CHANGED));
}

/** Return {element, draw()}.
 *
 * selected: a Set of rows. all(): the rows that are shown. source(): the columns they belong to.
 * chosen(): called when the choice changed here. changed(): called when the gallery did. choose(is): switches
 * between opening and choosing, where a view has both.
 */
export function selectionBar(context, { selected, all, source, chosen, changed, choose = null }) {
  const writable = context.gallery.writable;
  const said = make("span", { class: "small num", role: "status" });
  const needing = []; // buttons that need a choice
  const button = (text, onclick, { needs = false, ...more } = {}) => {
    const made = make("button", { class: "ordinary", text, onclick, ...more });
    if (needs) needing.push(made);
    return made;
  };
  const toggle = button("Choose", () => {
    const is = toggle.getAttribute("aria-pressed") !== "true";
    toggle.setAttribute("aria-pressed", String(is));
    choose(is);
  }, { "aria-pressed": "false" });
  const everything = button("All shown", () => [all().forEach((row) => selected.add(row)), draw(), chosen()]);
  const nothing = button("None", () => [selected.clear(), draw(), chosen()], { needs: true });

  const guarded = (work) => async () => {
    try {
      await work();
    } catch (error) {
      context.tell(error);
    }
  };
  const ids = async () => {
    const items = await Promise.all(source().items([...selected]));
    return items.map(({ id }) => id);
  };

  // --- export --------------------------------------------------------------------------------

  const save = (format) =>
    guarded(async () => {
      const body = JSON.stringify({ rows: [...selected], generation: source().generation, format });
      const answer = await call("exports", { method: "POST", body, headers: { "Content-Type": "application/json" } });
      const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? "selection";
      const link = make("a", { href: URL.createObjectURL(await answer.blob()), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
      files.open = false;
    });
  const files = make(
    "details",
    { class: "menu" },
    make("summary", { text: "Export" }),
    make("div", { class: "card menu-list" }, button("CSV", save("csv"), { needs: true }), button("JSON", save("json"), { needs: true }), button("List for vssl train and extract", save("list"), { needs: true })),
  );

  // --- tags ----------------------------------------------------------------------------------

  const name = make("input", { type: "text", maxLength: 40, pattern: "[A-Za-z0-9_\\-]+", required: true, placeholder: "tag", "aria-label": "Tag" });
  const tag = (present) =>
    guarded(async () => {
      if (!name.reportValidity()) return;
      for (const part of parts(await ids())) await post("tags", { ids: part, tag: name.value, present });
      tags.open = false;
      await changed();
    });
  const tags = make(
    "details",
    { class: "menu", hidden: !writable },
    make("summary", { text: "Tag" }),
    make("div", { class: "card menu-list" }, name, button("Add to the chosen", tag(true), { needs: true }), button("Take from the chosen", tag(false), { needs: true })),
  );

  // --- removal -------------------------------------------------------------------------------

  const remove = button(
    "Remove",
    guarded(async () => {
      const number = selected.size;
      const sure = await confirmed({
        title: `Remove ${count(number)} ${number === 1 ? "picture" : "pictures"} from the gallery?`,
        text: "Their files stay where they are. You can undo this until you leave the page.",
        action: "Remove",
      });
      if (!sure) return;
      const removal = { tokens: [], removed: 0 };
      undone.push(removal);
      for (const part of parts(await ids())) {
        const { undo: token, removed } = await post("removals", { ids: part });
        removal.tokens.push(token);
        removal.removed += removed;
      }
      selected.clear();
      await changed();
    }),
    { needs: true, hidden: !writable },
  );
  const undo = button(
    "",
    guarded(async () => {
      const last = undone[undone.length - 1];
      while (last.tokens.length) await post("restorations", { undo: last.tokens.pop() });
      undone.pop();
      await changed();
    }),
    { class: "ordinary undo" },
  );

  const draw = () => {
    said.textContent = selected.size ? `${count(selected.size)} chosen` : "";
    for (const one of needing) one.disabled = !selected.size;
    const last = undone[undone.length - 1];
    undo.hidden = !last;
    undo.textContent = last ? `Undo: put ${count(last.removed)} back` : "";
  };
  draw();
  const locked = make("span", { class: "small soft", text: "read-only", title: "This server does not change its gallery", hidden: writable });
  return { element: make("div", { class: "selection" }, said, choose ? toggle : null, everything, nothing, files, tags, remove, undo, locked), draw };
}
