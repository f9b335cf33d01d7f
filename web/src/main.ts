import "ol/ol.css";
import "./style.css";
import { get, type PairList, Refusal } from "./api";
import { h } from "./dom";
import { showLabelling } from "./label";
import { showPairs } from "./pairs";
import { showReview } from "./review";

const app = document.getElementById("app") as HTMLElement;
let leave: (() => void) | null = null;

async function route(): Promise<void> {
  leave?.();
  leave = null;
  try {
    const list = await get<PairList>("/api/pairs");
    const wanted = decodeURIComponent(location.hash.replace(/^#\/?(pair\/)?/, ""));
    const only = list.pairs.length === 1 ? list.pairs[0].name : "";
    const pair = list.pairs.find((row) => row.name === (wanted || only) && row.failure === null);
    if (list.mode === "label") leave = await showLabelling(app, list);
    else if (pair) leave = await showReview(app, list, pair.name);
    else showPairs(app, list);
  } catch (error) {
    const text = error instanceof Refusal ? error.message : `The page failed: ${error}`;
    app.replaceChildren(h("main", { class: "message" }, h("h1", {}, "semicdvl review"), h("p", { role: "alert" }, text)));
    if (!(error instanceof Refusal)) throw error;
  }
}

window.addEventListener("hashchange", () => void route());
void route();
