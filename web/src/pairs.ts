import { type PairList, type PairRow, pairPath } from "./api";
import { h } from "./dom";

/** The list of many pairs. */
export function showPairs(app: HTMLElement, list: PairList): void {
  document.title = "semicdvl review";
  const done = list.pairs.filter((row) => row.states && row.states.open === 0).length;
  const rows = list.pairs.map((row) => h("li", {}, row.failure === null ? showPair(row) : showFailure(row)));
  app.replaceChildren(
    h(
      "main",
      { class: "pairs" },
      h("h1", {}, "Pairs to review"),
      h("p", { class: "quiet" }, `${list.folder}: ${list.pairs.length} pairs, ${done} reviewed`),
      h("ul", {}, ...rows),
    ),
  );
}

function showPair(row: PairRow): HTMLElement {
  const images = ["before", "after"].map((date) =>
    h("img", { src: `${pairPath(row.name)}/thumbnails/${date}`, alt: `${row.name} ${date}`, loading: "lazy", height: 120 }),
  );
  const total = row.states ? Object.values(row.states).reduce((sum, count) => sum + count, 0) : (row.objects ?? 0);
  const decided = row.states ? total - row.states.open : 0;
  const state = decided === 0 ? "not begun" : decided === total ? "reviewed" : `${decided} of ${total} reviewed`;
  const bar = h("progress", { max: Math.max(total, 1), value: decided, "aria-label": "reviewed" });
  return h(
    "a",
    { href: `#/pair/${encodeURIComponent(row.name)}`, class: "pair" },
    h("div", { class: "thumbnails" }, ...images),
    h("strong", {}, row.name),
    h("span", { class: "quiet" }, `${total} objects, ${state}`),
    bar,
  );
}

function showFailure(row: PairRow): HTMLElement {
  return h("div", { class: "pair failed" }, h("strong", {}, row.name), h("span", { class: "quiet" }, `There is no map of this pair: ${row.failure}`));
}
