import "ol/ol.css";
import "./style.css";
import { get, type PairList, Refusal } from "./api";
import { h, tell } from "./dom";
import { showLabelling } from "./label";
import { showPairs } from "./pairs";
import { showReview } from "./review";

const app = document.getElementById("app") as HTMLElement;
let leave: (() => void) | null = null;
let visit = 0;

/** What an address asks for: `#/label`, `#/pair/NAME`, `#/pair/NAME/CHANGE`. */
function readAddress(): { label: boolean; pair: string; change: number | null } {
  const [kind, pair, change] = location.hash.replace(/^#\/?/, "").split("/");
  let name = "";
  try {
    if (kind === "pair") name = decodeURIComponent(pair ?? "");
  } catch {
    // not an address of this page: show what there is
  }
  return { label: kind === "label", pair: name, change: Number.parseInt(change ?? "", 10) || null };
}

async function route(): Promise<void> {
  const mine = ++visit;
  leave?.();
  leave = null;
  try {
    const address = location.hash; // it changes before its event: a page that is built in between would write over the new address
    const isWanted = (): boolean => mine === visit && location.hash === address;
    const list = await get<PairList>("/api/pairs");
    if (!isWanted()) return;
    const wanted = readAddress();
    const only = list.pairs.length === 1 ? list.pairs[0] : null;
    const pair = list.pairs.find((row) => row.name === wanted.pair && row.failure === null) ?? only;
    if (wanted.pair && pair?.name !== wanted.pair) tell(`There is no pair ${wanted.pair} here.`, "problem");
    let close: (() => void) | null = null;
    if (list.labels && (wanted.label || (list.mode === "label" && !wanted.pair))) close = await showLabelling(app, list, isWanted);
    else if (pair) close = await showReview(app, list, pair.name, wanted.change, isWanted);
    else showPairs(app, list);
    if (close) leave = close;
  } catch (error) {
    if (mine !== visit) return;
    const text = error instanceof Refusal ? error.message : `The page failed: ${error}`;
    const again = h("button", { type: "button", click: () => void route() }, "Try again");
    app.replaceChildren(h("main", { class: "message" }, h("h1", {}, "semicdvl review"), h("p", { role: "alert" }, text), again));
    if (!(error instanceof Refusal)) throw error;
  }
}

window.addEventListener("hashchange", () => void route());
void route();
