import {
  type Change,
  type Coloured,
  type Estimate,
  get,
  getReviewer,
  type Interval,
  type PairInfo,
  type PairList,
  pairPath,
  type Place,
  type Position,
  Refusal,
  send,
  setReviewer,
  type State,
  type TrainingSet,
  type Written,
} from "./api";
import { h, isTyping, keyButton, labelled, listCommands, option, showHelp, tell } from "./dom";
import { Editing, type Tool } from "./edit";
import { type ColourBy, type Mode, PairMap, STATE_COLOURS } from "./map";
import { arrange, type Filter, type Order, ORDERS, passes } from "./queue";

const HELP: [string, string][] = [
  ["A", "accept"],
  ["R", "reject"],
  ["S", "skip"],
  ["→ ↓ / ← ↑", "next / previous"],
  ["U", "undo my last action"],
  ["F", "flicker: toggle the dates"],
  ["V", "side by side, swipe"],
  ["[ ]", "move the swipe line"],
  ["Z / W", "frame the object / the whole"],
  ["+ −", "zoom"],
  ["H", "hide or show outlines"],
  ["M / O", "change map / score"],
  ["C", "comment"],
  ["K, 1, 2", "kind of change, class before, class after"],
  ["Esc / Enter", "leave a field"],
  ["E", "edit the outline"],
  ["N", "draw a missed change"],
  ["X", "cut in two"],
  ["G", "merge with another: G, then click it (or G again on the next one)"],
  ["P", "check unchanged ground, for recall and area"],
  ["D", "write reviewed.gpkg"],
  ["T", "make a training set of what is decided"],
  ["?", "this help"],
];
const FILTER = "semicdvl-queue";
export const NEXT_STEPS = ["1. Learn from them", "2. Map the place anew", "3. Review that map"];
const DECIDED: Record<string, State> = { a: "accepted", r: "rejected", s: "skipped" };

/** The review of one pair; returns what to do when it is left, and null where it is not wanted any more. */
export async function showReview(
  app: HTMLElement,
  list: PairList,
  name: string,
  change: number | null,
  isWanted: () => boolean,
): Promise<(() => void) | null> {
  const base = pairPath(name);
  const [info, found] = await Promise.all([get<PairInfo>(base), get<{ changes: Change[] }>(`${base}/changes`)]);
  if (!isWanted()) return null;
  const review = new Review(app, list, info, found.changes, change);
  return () => review.close();
}

class Review {
  private readonly base: string;
  private panel!: HTMLElement;
  private readonly map: PairMap;
  private readonly all = new Map<number, Change>();
  private order: number[] = [];
  private current: number | null = null;
  private filter: Filter;
  private editing: Editing | null = null;
  private merging: number | null = null;
  private places: Place[] | null = null;
  private placeAt = 0;
  private waiting = 0;
  private turn: Promise<void> = Promise.resolve();
  private estimateTimer = 0;
  private address: string | null = location.hash; // null once the page is left
  private isEstimating = false;
  private readonly card = h("section", { class: "card", "aria-label": "Change" });
  private readonly progress = h("div", { class: "progress", "aria-live": "polite" });
  private readonly drafts = new Map<number, string>();
  private readonly actions = h("div", { class: "actions", role: "group", "aria-label": "Decide" });
  private readonly tools = h("div", { class: "tools", role: "group", "aria-label": "Redraw" });
  private readonly orderBox = h("select", {}, ...(Object.keys(ORDERS) as Order[]).map((key) => option(key, ORDERS[key])));
  private readonly estimateBox = h("section", { class: "estimate", "aria-label": "Estimate" });
  private readonly outBox = h("div", { class: "out", "aria-live": "polite" });
  private readonly comment = h("textarea", { rows: 2, maxlength: 2000, placeholder: matchMedia("(pointer: coarse)").matches ? "Comment" : "Comment (C)", "aria-label": "Comment" });
  private readonly onKey = (event: KeyboardEvent): void => this.key(event);
  private readonly onBack = (): void => this.inTurn(() => this.saveDrafts());
  private readonly onUnload = (event: BeforeUnloadEvent): void => {
    if (this.drafts.size || this.editing) event.preventDefault();
  };

  constructor(
    private readonly app: HTMLElement,
    private readonly list: PairList,
    private readonly info: PairInfo,
    changes: Change[],
    wanted: number | null,
  ) {
    this.base = pairPath(info.name);
    this.map = new PairMap(info);
    this.filter = readFilter(info);
    for (const change of changes) this.all.set(change.id, change);
    this.map.putAll(changes);
    document.title = `${info.title} - review`;
    this.build();
    document.addEventListener("keydown", this.onKey);
    window.addEventListener("answers-again", this.onBack);
    window.addEventListener("beforeunload", this.onUnload);
    this.comment.addEventListener("input", () => this.current !== null && this.drafts.set(this.current, this.comment.value));
    this.comment.addEventListener("change", () => this.inTurn(() => this.saveDrafts()));
    this.map.main.on("singleclick", (event) => this.click(event.pixel));
    this.map.hide((id) => !passes(this.all.get(id) as Change, this.filter));
    this.order = arrange(this.all.values(), this.filter);
    const first = this.order.find((id) => this.all.get(id)?.state === "open") ?? this.order[0] ?? null;
    this.map.main.updateSize();
    this.show(wanted !== null && this.all.has(wanted) ? wanted : first);
    if (wanted !== null && !this.all.has(wanted)) tell(`There is no change ${wanted} any more.`, "problem");
    this.scheduleEstimate();
    this.expose();
  }

  // ---------------------------------------------------------------------------------------- layout
  private build(): void {
    const modes = h("div", { class: "modes", role: "group", "aria-label": "How the dates are shown" });
    for (const mode of ["side", "swipe", "flicker"] as Mode[]) {
      const words = { swipe: "Swipe", side: "Side by side", flicker: "Flicker" };
      modes.append(h("button", { type: "button", "data-mode": mode, click: () => this.clickMode(mode) }, words[mode]));
    }
    const back = this.list.pairs.length > 1 ? h("a", { href: "#/", class: "back" }, "All pairs") : null;
    const help = h("button", { type: "button", class: "round", "aria-label": "Keys", click: () => showHelp("Keys", HELP) }, "?");
    const header = h("header", {}, back, h("h1", { title: this.info.title }, this.info.title), this.progress, modes, help);
    this.panel = h("aside", { "aria-label": "Review" }, this.card, this.actions, this.comment, this.tools, this.estimateBox, this.makeOutput(), this.makeFilter(), this.makeView());
    this.showActions();
    this.app.replaceChildren(h("div", { class: "review" }, header, h("main", {}, this.map.element), this.panel));
    this.setMode("side");
  }

  private showActions(): void {
    const [yes, no, skip] = this.places ? ["Changed", "Same", "Skip"] : ["Accept", "Reject", "Skip"];
    this.actions.replaceChildren(
      keyButton(yes, "A", () => this.inTurn(() => this.decide("accepted")), "accept"),
      keyButton(no, "R", () => this.inTurn(() => this.decide("rejected")), "reject"),
      keyButton(skip, "S", () => this.inTurn(() => this.decide("skipped")), "skip"),
      keyButton("Back", "←", () => this.move(-1)),
      keyButton("Next", "→", () => this.move(1)),
      keyButton("Undo", "U", () => this.inTurn(() => this.undo())),
    );
    const draw = keyButton("Draw", "N", () => this.edit("polygon"));
    if (this.places) this.tools.replaceChildren(draw);
    else
      this.tools.replaceChildren(
        keyButton("Edit", "E", () => this.edit("vertices")),
        draw,
        keyButton("Cut", "X", () => this.edit("line")),
        keyButton("Merge", "G", () => this.merge()),
      );
    this.comment.hidden = this.places !== null;
  }

  private makeFilter(): HTMLElement {
    const order = this.orderBox;
    const states = ["all", "todo", "open", "accepted", "rejected", "skipped"].map((each) => option(each, each === "todo" ? "not decided" : each));
    const state = h("select", {}, ...states);
    const kind = h("select", {}, option("", "all"), ...this.info.kinds.map((each) => option(each.name)));
    const name = h("select", {}, option("", "all"), ...this.info.classes.map((each) => option(each.name)));
    const least = h("input", { type: "number", min: 0, step: "any" });
    order.value = this.filter.order;
    state.value = this.filter.state;
    kind.value = this.filter.kind;
    name.value = this.filter.name;
    least.value = String(this.filter.least);
    const update = (): void => {
      this.filter = { order: order.value as Order, state: state.value as Filter["state"], kind: kind.value, name: name.value, least: Number(least.value) || 0 };
      sessionStorage.setItem(FILTER, JSON.stringify(this.filter));
      this.refilter();
    };
    for (const input of [order, state, kind, name, least]) input.addEventListener("change", update);
    return h(
      "details",
      { open: true },
      h("summary", {}, "Queue"),
      labelled("Order", order),
      labelled("State", state),
      labelled("Kind", kind),
      this.info.classes.length ? labelled("Class", name) : null,
      labelled(`At least (${this.info.area_unit})`, least),
    );
  }

  private makeView(): HTMLElement {
    const slider = (layer: string, word: string): HTMLElement => {
      const input = h("input", { type: "range", min: 0, max: 1, step: 0.05, value: 0, "data-layer": layer });
      input.addEventListener("input", () => this.map.setOverlay(layer, Number(input.value)));
      return labelled(word, input);
    };
    const colour = h("select", {}, option("state", "state"), option("kind", "kind of change"), option("class", "class"));
    const legend = h("ul", { class: "legend", "aria-label": "Legend" });
    const showLegend = (): void => {
      const states = Object.entries(STATE_COLOURS).map(([name, of]) => ({ name, colour: of }));
      const rows = { state: states, kind: this.info.kinds, class: this.info.classes }[this.map.colourBy];
      legend.replaceChildren(...rows.map((row) => h("li", {}, makeSwatch(row.colour), row.name)));
    };
    showLegend();
    colour.addEventListener("change", () => {
      this.map.colourBy = colour.value as ColourBy;
      this.map.redraw();
      showLegend();
    });
    const reviewer = h("input", { type: "text", maxlength: 80, value: getReviewer() ?? this.list.reviewer });
    reviewer.addEventListener("change", () => setReviewer(reviewer.value));
    return h(
      "details",
      {},
      h("summary", {}, "View and reviewer"),
      slider("change", "Change map"),
      this.info.layers.includes("score") ? slider("score", "Score") : null,
      labelled("Colours by", colour),
      legend,
      labelled("Reviewer", reviewer),
      ...this.info.notes.map((note) => h("p", { class: "quiet" }, note)),
      h("p", { class: "quiet" }, `Found by ${this.info.detector}`),
    );
  }

  private makeOutput(): HTMLElement {
    const write = keyButton("Write GPKG", "D", () => this.inTurn(() => this.export()), "primary");
    const train = keyButton("Training set", "T", () => this.inTurn(() => this.makeTrainingSet()), "primary");
    const paint = this.list.labels ? h("a", { href: "#/label" }, "Paint labels where the map is uncertain") : null;
    return h("section", { class: "output", "aria-label": "Results" }, h("div", { class: "buttons" }, write, train), this.outBox, paint);
  }

  /** A second click on flicker shows the other date, for those without keys. */
  private clickMode(mode: Mode): void {
    if (mode === "flicker") this.map.flicker();
    else this.map.setMode(mode);
    this.markMode();
  }

  private setMode(mode: Mode): void {
    this.map.setMode(mode);
    this.markMode();
  }

  private markMode(): void {
    for (const button of this.app.querySelectorAll<HTMLElement>(".modes button"))
      button.setAttribute("aria-pressed", String(button.dataset.mode === this.map.mode));
  }

  // ---------------------------------------------------------------------------------------- walking
  private show(id: number | null): void {
    this.current = id;
    this.map.select(id);
    if (id !== null) this.map.frameChange(id);
    else this.map.frameAll();
    this.showCard();
    this.card.scrollIntoView({ block: "nearest" });
    this.writeAddress(id);
    const at = id === null ? -1 : this.order.indexOf(id);
    const next = this.order[at + 1];
    if (next !== undefined) window.setTimeout(() => this.current === id && this.map.prefetch(next), 60);
  }

  /** Keep the shown change in the address, unless the user is on the way to another page. */
  private writeAddress(id: number | null): void {
    if (location.hash !== this.address) return;
    history.replaceState(null, "", `#/pair/${encodeURIComponent(this.info.name)}${id === null ? "" : `/${id}`}`);
    this.address = location.hash;
  }

  private move(by: number): void {
    if (this.places) return this.movePlace(by);
    if (!this.order.length) return;
    const at = this.current === null ? -1 : this.order.indexOf(this.current);
    const next = Math.min(this.order.length - 1, Math.max(0, at + by));
    if (this.order[next] === this.current) tell(by > 0 ? "This is the last one." : "This is the first one.");
    this.show(this.order[next]);
  }

  /** Go to the next change that is not decided; behind the last one, to the first. */
  private advance(): void {
    const at = this.current === null ? -1 : this.order.indexOf(this.current);
    const todo = (id: number): boolean => this.all.get(id)?.state === "open";
    const next = this.order.slice(at + 1).find(todo) ?? this.order.find(todo);
    if (next !== undefined) return this.show(next);
    const filtered = this.order.length < this.all.size;
    tell(filtered ? "All that the queue shows are decided. Choose others under Queue, or write the result (D)." : "All are decided. D writes the result, T makes a training set of it.");
    this.showCard();
  }

  private refilter(): void {
    this.map.hide((id) => !passes(this.all.get(id) as Change, this.filter));
    this.order = arrange(this.all.values(), this.filter);
    this.show(this.order.find((id) => this.all.get(id)?.state === "open") ?? this.order[0] ?? null);
  }

  private showCard(): void {
    this.showProgress();
    if (this.places) return;
    const change = this.current === null ? null : this.all.get(this.current);
    this.comment.disabled = !change;
    for (const button of this.app.querySelectorAll<HTMLButtonElement>(".actions button, .tools button"))
      button.disabled = !change && !["U", "N"].includes(button.getAttribute("aria-keyshortcuts") ?? "");
    if (!change) {
      const none = "The map shows no change. Draw what it missed (N), or check unchanged ground (P).";
      this.card.replaceChildren(h("p", { class: "quiet" }, this.all.size ? "No change passes the filter of the queue." : none));
      this.comment.value = "";
      return;
    }
    const focused = this.card.contains(document.activeElement) ? (document.activeElement as HTMLElement).dataset.field : undefined;
    const classes = h("div", { class: "classes" }, this.makeChoice(change, "kind", this.info.kinds.map((each) => each.name)));
    if (this.info.classes.length) {
      const names = this.info.classes.map((each) => each.name);
      classes.append(this.makeChoice(change, "from_class", names), this.makeChoice(change, "to_class", names));
    }
    const facts = [
      `${change.area.toLocaleString("en", { maximumFractionDigits: 0 })} ${this.info.area_unit}`,
      change.score === null ? change.source : `score ${change.score.toFixed(2)}`,
      change.edited && change.source === "detected" ? "redrawn" : "",
    ].filter(Boolean);
    const who = change.decided ? h("p", { class: "quiet" }, `${change.state} by ${change.reviewer}`) : null;
    this.card.replaceChildren(
      h("div", { class: "card-head" }, h("strong", {}, `Change ${change.id}`), h("span", { class: `state ${change.state}` }, change.state)),
      h("p", { class: "facts" }, facts.join("  ·  ")),
      classes,
      ...(who ? [who] : []),
    );
    if (focused) this.focusField(focused);
    const text = this.drafts.get(change.id) ?? change.comment;
    if (this.comment.value !== text) this.comment.value = text;
  }

  private focusField(field: string): void {
    this.card.querySelector<HTMLElement>(`[data-field="${field}"]`)?.focus();
  }

  private makeChoice(change: Change, field: "kind" | "from_class" | "to_class", names: string[]): HTMLElement {
    const known = change[field];
    const all = known && !names.includes(known) ? [...names, known] : names;
    const select = h("select", { "data-field": field }, ...(field === "kind" ? [] : [option("", "not known")]), ...all.map((name) => option(name)));
    select.value = known ?? "";
    select.addEventListener("change", () => this.inTurn(() => this.patch({ [field]: select.value })));
    const words = { kind: "Kind", from_class: "From", to_class: "To" };
    const colour = [...this.info.classes, ...this.info.kinds].find((each) => each.name === known)?.colour;
    const field_ = labelled(words[field], select);
    field_.firstElementChild?.append(" ", makeSwatch(colour));
    return field_;
  }

  private showProgress(): void {
    const live = this.order.length;
    const states = this.order.map((id) => this.all.get(id)?.state);
    const skipped = states.filter((state) => state === "skipped").length;
    const decided = states.filter((state) => state === "accepted" || state === "rejected").length;
    const words = `${decided} of ${live} decided${skipped ? `, ${skipped} skipped` : ""}`;
    const at = this.current === null ? 0 : this.order.indexOf(this.current) + 1;
    const word = this.places ? `ground ${this.placeAt + 1} of ${this.places.length}` : `${at} of ${live}`;
    const bar = h("progress", { max: Math.max(live, 1), value: decided, "aria-label": "decided" });
    this.progress.replaceChildren(h("strong", {}, word), bar, h("span", { class: "quiet" }, words));
  }

  // ---------------------------------------------------------------------------------------- deciding
  /** Do one thing after the other: keys that come faster than the answers wait, and none is lost. */
  private inTurn(work: () => Promise<void>): void {
    this.waiting += 1;
    const done = this.turn.then(work);
    this.turn = done.catch(() => undefined).finally(() => (this.waiting -= 1)); // a fault of one does not stop the next
  }

  private async act(work: () => Promise<Written>): Promise<Written | null> {
    try {
      const written = await work();
      this.take(written.changes);
      for (const note of written.notes) tell(note);
      this.scheduleEstimate();
      return written;
    } catch (error) {
      await this.explain(error);
      return null;
    }
  }

  private take(changes: Change[]): void {
    for (const change of changes) {
      if (change.live) this.all.set(change.id, change);
      else this.all.delete(change.id);
      this.map.put(change);
    }
    const known = new Set(this.order);
    const added = changes.filter((change) => change.live && !known.has(change.id)).map((change) => change.id);
    const gone = new Set(changes.filter((change) => !change.live).map((change) => change.id));
    if (added.length || gone.size) this.order = arrange(this.all.values(), this.filter);
    this.showCard();
  }

  private async explain(error: unknown): Promise<void> {
    if (!(error instanceof Refusal)) throw error;
    tell(error.message, "problem");
    if ((error.status === 409 || error.status === 404) && this.current !== null) {
      try {
        this.take([await get<Change>(`${this.base}/changes/${this.current}`)]);
      } catch {
        // the message is enough
      }
    }
  }

  private async decide(state: State): Promise<void> {
    if (this.places) return this.answerPlace(state);
    const change = this.current === null ? undefined : this.all.get(this.current);
    if (!change) return;
    const draft = this.drafts.get(change.id);
    const body = { version: change.version, state, ...(draft === undefined ? {} : { comment: draft }) };
    const path = `${this.base}/changes/${change.id}/decision`;
    if (!(await this.act(() => send<Written>("POST", path, body)))) return;
    if (this.drafts.get(change.id) === draft) this.drafts.delete(change.id);
    this.advance();
  }

  private async patch(body: object): Promise<void> {
    const change = this.current === null ? undefined : this.all.get(this.current);
    if (change) await this.act(() => send<Written>("PATCH", `${this.base}/changes/${change.id}`, { version: change.version, ...body }));
  }

  /** Store the comments that were typed; one that is refused stays until the server takes it. */
  private async saveDrafts(): Promise<void> {
    for (const [id, comment] of [...this.drafts]) {
      const change = this.all.get(id);
      const isNew = change && change.comment !== comment;
      const path = `${this.base}/changes/${id}`;
      if (isNew && !(await this.act(() => send<Written>("PATCH", path, { version: change.version, comment })))) continue;
      if (this.drafts.get(id) === comment) this.drafts.delete(id);
    }
  }

  private async undo(): Promise<void> {
    if (this.places) return this.undoPlace();
    const done = await this.act(() => send<Written>("POST", `${this.base}/undo`));
    if (!done) return;
    if (!done.changes.length) return tell("There is nothing of this window to undo.");
    tell(`Undone: ${done.action}.`);
    const back = done.changes.find((change) => change.live);
    this.show(back ? back.id : (this.order[0] ?? null));
  }

  // ---------------------------------------------------------------------------------------- drawing
  private edit(tool: Tool): void {
    if (this.editing || (this.places && tool !== "polygon")) return;
    const change = this.current === null ? undefined : this.all.get(this.current);
    if (tool !== "polygon" && !change) return;
    const shape = change ? (this.map.feature(change.id)?.getGeometry() ?? null) : null;
    this.editing = new Editing(this.map, tool, tool === "vertices" ? shape : null, (drawn) => {
      if (drawn) this.inTurn(() => this.keep(tool, drawn, change?.id));
      else this.stopEditing();
    });
    this.panel.inert = true;
  }

  private stopEditing(): void {
    this.editing?.close();
    this.editing = null;
    this.panel.inert = false;
  }

  /** Store what was drawn; until the server has it, it stays on the map. */
  private async keep(tool: Tool, drawn: Position[][][] | Position[], id: number | undefined): Promise<void> {
    const change = id === undefined ? undefined : this.all.get(id);
    if (!this.editing || (tool !== "polygon" && !change)) return this.stopEditing();
    const written = await this.act(() => this.sendDrawn(tool, drawn, change));
    if (!written) return;
    this.stopEditing();
    const shown = written.changes.find((one) => one.live);
    if (!shown) return;
    const parts = written.changes.filter((one) => one.live).length;
    if (!written.notes.length) tell({ vertices: "Outline kept.", polygon: "Drawn and accepted.", line: `Cut in ${parts} parts.` }[tool]);
    if (this.places) return this.reloadPlaces();
    this.show(shown.id);
  }

  private sendDrawn(tool: Tool, drawn: Position[][][] | Position[], change: Change | undefined): Promise<Written> {
    const path = `${this.base}/changes/${change?.id}`;
    if (tool === "line") return send("POST", `${path}/split`, { version: change?.version, line: { type: "LineString", coordinates: drawn } });
    const geometry = { type: "MultiPolygon", coordinates: drawn };
    return tool === "polygon" ? send("POST", `${this.base}/changes`, { geometry }) : send("PATCH", path, { version: change?.version, geometry });
  }

  private merge(): void {
    if (this.current === null) return;
    if (this.merging === null || this.merging === this.current) {
      this.merging = this.current;
      return tell(`Merge change ${this.current} with: click another one, or go to it and press G. Esc stops.`);
    }
    const ids = [this.merging, this.current];
    this.merging = null;
    const members = ids.map((id) => ({ id, version: this.all.get(id)?.version ?? 0 }));
    this.inTurn(async () => {
      const written = await this.act(() => send<Written>("POST", `${this.base}/merge`, { members }));
      const merged = written?.changes.find((one) => one.live);
      if (!merged) return;
      const parts = merged.geometry.coordinates.length;
      tell(parts > 1 ? `Merged to one change of ${parts} parts that do not touch. U undoes it.` : "Merged.");
      this.show(merged.id);
    });
  }

  private click(pixel: number[]): void {
    if (this.editing || this.places) return;
    const hit = this.map.main.forEachFeatureAtPixel(pixel, (feature) => feature.getId() as number | undefined, { hitTolerance: 4 });
    if (hit === undefined || !this.all.has(hit)) return;
    const merging = this.merging !== null;
    this.current = hit;
    this.map.select(hit);
    this.showCard();
    if (merging) this.merge();
  }

  // ---------------------------------------------------------------------------------------- unchanged ground
  private async startPlaces(): Promise<void> {
    if (this.places) return this.stopPlaces();
    try {
      this.places = (await get<{ places: Place[] }>(`${this.base}/places`)).places;
    } catch (error) {
      return this.explain(error);
    }
    this.placeAt = Math.max(0, this.places.findIndex((place) => place.truth === null));
    this.map.select(null);
    if (this.map.mode === "swipe") this.setMode("side"); // the line would cover the place
    this.showActions();
    this.showPlace();
    this.scheduleEstimate();
  }

  /** What was drawn may answer places: it covers them. */
  private async reloadPlaces(): Promise<void> {
    try {
      this.places = (await get<{ places: Place[] }>(`${this.base}/places`)).places;
      this.showPlace();
    } catch (error) {
      await this.explain(error);
    }
  }

  private stopPlaces(): void {
    this.places = null;
    for (const ring of this.map.element.querySelectorAll(".place")) ring.remove();
    this.showActions();
    this.show(this.current ?? this.order[0] ?? null);
  }

  private showPlace(): void {
    const place = this.places?.[this.placeAt];
    if (!place) return this.stopPlaces();
    const [x, y] = this.map.toPixels([place.x, place.y]);
    this.map.frame([x - 18, y - 18, x + 18, y + 18]);
    if (!this.map.element.querySelector(".place"))
      for (const side of ["right", "left"]) this.map.element.append(h("div", { class: `place ${side}`, "aria-hidden": "true" }));
    const answer = place.truth === null ? "not answered" : place.truth ? "changed" : "unchanged";
    this.card.replaceChildren(
      h("div", { class: "card-head" }, h("strong", {}, "Did the marked place change?"), h("span", { class: "state" }, answer)),
      h("p", {}, "Look inside the circle. The map says that it did not change; these random places show how much the map misses."),
      h("button", { type: "button", click: () => this.stopPlaces() }, "Back to the changes (P)"),
    );
    this.showProgress();
  }

  private movePlace(by: number): void {
    this.placeAt = Math.min((this.places?.length ?? 1) - 1, Math.max(0, this.placeAt + by));
    this.showPlace();
  }

  private async answerPlace(state: State): Promise<void> {
    if (!(await this.sendAnswer(state === "skipped" ? null : state === "accepted"))) return;
    if (this.placeAt + 1 < (this.places?.length ?? 0)) return this.movePlace(1);
    tell("That was the last place.");
    this.stopPlaces();
  }

  private async undoPlace(): Promise<void> {
    if (this.placeAt === 0) return tell("This is the first place.");
    this.movePlace(-1);
    if (await this.sendAnswer(null)) this.showPlace();
  }

  private async sendAnswer(changed: boolean | null): Promise<boolean> {
    const place = this.places?.[this.placeAt];
    if (!place) return false;
    try {
      const estimate = await send<Estimate>("POST", `${this.base}/places/${place.rank}`, { version: place.version, changed });
      place.version += 1;
      place.truth = changed === null ? null : Number(changed);
      this.showEstimate(estimate);
      return true;
    } catch (error) {
      await this.explain(error);
      return false;
    }
  }

  // ---------------------------------------------------------------------------------------- estimate, files
  private scheduleEstimate(): void {
    window.clearTimeout(this.estimateTimer);
    this.estimateTimer = window.setTimeout(() => {
      if (this.isEstimating) return this.scheduleEstimate(); // one at a time: decisions come first
      this.isEstimating = true;
      get<Estimate>(`${this.base}/estimate`)
        .then(
          (estimate) => this.showEstimate(estimate),
          () => undefined,
        )
        .finally(() => (this.isEstimating = false));
    }, 400);
  }

  private showEstimate(estimate: Estimate): void {
    const range = (word: string, interval: Interval | null | undefined, digits: number, unit = ""): HTMLElement | null => {
      if (!interval) return null;
      const text = interval.low === interval.high ? format(interval.value, digits) : `${format(interval.low, digits)}-${format(interval.high, digits)}`;
      return h("p", { class: "figure" }, h("span", {}, word), h("strong", {}, `${text}${unit}`));
    };
    const { area, objects } = estimate;
    const others = objects.decided - objects.sampled;
    const ground = area && area.open_places > 0 ? `${area.open_places} places of unchanged ground wait` : "";
    const rows = [
      range("Precision by area", area?.precision, 2),
      range("Recall by area", area?.recall, 2),
      range("Changed area", area?.changed_area, 0, ` ${estimate.unit}`),
      area && !area.recall ? h("p", { class: "quiet" }, ground) : null,
    ].filter((row): row is HTMLElement => row !== null);
    const gap = others > 0 ? this.describeGap(objects.waits_for, others) : null;
    const random = gap || objects.precision || this.filter.order === "random" ? null : h("button", { type: "button", click: () => this.orderAtRandom() }, "Go on in random order");
    this.estimateBox.replaceChildren(
      h("h2", {}, "Estimate ", h("small", {}, "95 % confidence")),
      h("p", { class: "sentence" }, ...keepFigureTogether(estimate.text)),
      ...rows,
      ...(gap ?? []),
      random ?? "",
      keyButton("Check unchanged ground", "P", () => this.inTurn(() => this.startPlaces())),
    );
  }

  /** Say which object ends the random sample, though others behind it are decided. */
  private describeGap(id: number | null, others: number): HTMLElement[] | null {
    const gap = id === null ? undefined : this.all.get(id);
    if (!gap) return null;
    const words = gap.state === "skipped" ? "was skipped" : "is not decided";
    const rest = others === 1 ? "1 more that is decided does" : `${others} more that are decided do`;
    const text = `Change ${gap.id} comes next in random order and ${words}, so ${rest} not count.`;
    return [h("p", { class: "quiet" }, text), h("button", { type: "button", click: () => this.show(gap.id) }, `Show change ${gap.id}`)];
  }

  private orderAtRandom(): void {
    this.orderBox.value = "random";
    this.orderBox.dispatchEvent(new Event("change"));
    this.scheduleEstimate();
  }

  private async export(): Promise<void> {
    try {
      await this.saveDrafts();
      const { files } = await send<{ files: string[] }>("POST", `${this.base}/export`);
      const open = [...this.all.values()].filter((change) => change.state === "open" || change.state === "skipped").length;
      const rest = open ? ` ${open} of ${this.all.size} are not decided; they are in it as such.` : "";
      this.showOutput(
        h("p", {}, `Written. QGIS opens it coloured by state.${rest}`),
        ...files.map((file) => h("code", {}, file)),
      );
      tell("Written.");
    } catch (error) {
      await this.explain(error);
    }
  }

  private async makeTrainingSet(): Promise<void> {
    try {
      const made = await send<TrainingSet>("POST", `${this.base}/training-set`);
      const painted = made.painted ? `, ${count(made.painted, "painted patch", "painted patches")}` : "";
      const isMostlyRight = made.corrected < (made.accepted + made.rejected) / 5;
      const advice = isMostlyRight && !made.painted
        ? "Most of what the map found is right, so it can learn little from this: draw what it missed (N), or paint labels."
        : "Ground without a change counts as unchanged in them: draw what the map missed there first (N).";
      this.showOutput(
        h("p", {}, `${count(made.patches, "patch", "patches")} with ${count(made.accepted, "accepted change")} and ${made.rejected} rejected${painted}. ${advice} Type in a terminal:`),
        listCommands(made.commands, NEXT_STEPS),
      );
    } catch (error) {
      await this.explain(error);
    }
  }

  private showOutput(...nodes: Node[]): void {
    this.outBox.replaceChildren(...nodes);
    this.outBox.scrollIntoView({ block: "nearest" });
  }

  // ---------------------------------------------------------------------------------------- keys
  private key(event: KeyboardEvent): void {
    if (document.querySelector("dialog[open]")) return;
    if (isTyping(event)) return;
    if (this.editing) {
      this.editing.key(event);
      return;
    }
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = this.findAction(key);
    if (!act) return;
    event.preventDefault();
    act();
  }

  private findAction(key: string): (() => void) | undefined {
    if (key in DECIDED) return () => this.inTurn(() => this.decide(DECIDED[key]));
    const actions: Record<string, () => void> = {
      ArrowRight: () => this.move(1),
      ArrowDown: () => this.move(1),
      ArrowLeft: () => this.move(-1),
      ArrowUp: () => this.move(-1),
      u: () => this.inTurn(() => this.undo()),
      f: () => {
        this.map.flicker();
        this.markMode();
      },
      v: () => this.setMode(this.map.mode === "side" ? "swipe" : "side"),
      "[": () => this.map.moveSwipe(-0.05),
      "]": () => this.map.moveSwipe(0.05),
      z: () => this.current !== null && this.map.frameChange(this.current),
      w: () => this.map.frameAll(),
      "+": () => this.map.zoom(0.7),
      "=": () => this.map.zoom(0.7),
      "-": () => this.map.zoom(1 / 0.7),
      h: () => {
        this.map.showOutlines = !this.map.showOutlines;
        this.map.redraw();
      },
      m: () => this.toggle("change"),
      o: () => this.toggle("score"),
      c: () => this.comment.focus(),
      k: () => this.focusField("kind"),
      "1": () => this.focusField("from_class"),
      "2": () => this.focusField("to_class"),
      d: () => this.inTurn(() => this.export()),
      t: () => this.inTurn(() => this.makeTrainingSet()),
      e: () => this.edit("vertices"),
      n: () => this.edit("polygon"),
      x: () => this.edit("line"),
      g: () => this.merge(),
      p: () => this.inTurn(() => this.startPlaces()),
      Escape: () => {
        this.merging = null;
        if (this.places) this.stopPlaces();
      },
      "?": () => showHelp("Keys", HELP),
    };
    return actions[key];
  }

  private toggle(layer: string): void {
    const on = this.map.toggleOverlay(layer);
    const input = this.app.querySelector<HTMLInputElement>(`input[data-layer="${layer}"]`);
    if (input) input.value = on ? "0.6" : "0";
  }

  /** What tests and benchmarks read: the object that is framed, and whether the map is at rest. */
  private expose(): void {
    Object.defineProperty(this.map.element, "review", { value: { map: this.map, current: () => this.current, idle: () => this.waiting === 0 } });
  }

  close(): void {
    this.address = null;
    document.removeEventListener("keydown", this.onKey);
    window.removeEventListener("answers-again", this.onBack);
    window.removeEventListener("beforeunload", this.onUnload);
    this.inTurn(() => this.saveDrafts());
    this.editing?.close();
    this.map.close();
  }
}

/** A range such as 0.71-0.83 is not broken at its hyphen. */
function keepFigureTogether(text: string): (Node | string)[] {
  const at = text.indexOf("precision");
  return at < 0 ? [text] : [text.slice(0, at), h("strong", { class: "nowrap" }, text.slice(at))];
}

function makeSwatch(colour: string | undefined): HTMLElement {
  const swatch = h("i", { class: "swatch", "aria-hidden": "true" });
  if (colour) swatch.style.background = colour;
  return swatch;
}

function count(many: number, one: string, several = `${one}s`): string {
  return `${many} ${many === 1 ? one : several}`;
}

/** The queue as it was before a reload, or at the last pair, as far as this pair has the same kinds and classes. */
function readFilter(info: PairInfo): Filter {
  const usual: Filter = { order: "random", state: "all", kind: "", name: "", least: 0 };
  const kept: Filter = { ...usual, ...JSON.parse(sessionStorage.getItem(FILTER) ?? "{}") };
  const has = (all: Coloured[], name: string): string => (all.some((each) => each.name === name) ? name : "");
  return { ...kept, kind: has(info.kinds, kept.kind), name: has(info.classes, kept.name) };
}

function format(value: number, digits: number): string {
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
