// Label mode: paint what changed on a patch, both dates side by side, with a brush that takes a whole roof.

import { get, type LabelFolder, type PairList, type Patch, Refusal, request } from "./api";
import { h, isTyping, keyButton, labelled, listCommands, option, showHelp, tell } from "./dom";
import { NEXT_STEPS } from "./review";

type Tool = "smart" | "brush" | "outline";
type Source = "before" | "after";
const CHANGED = 255;
const UNKNOWN = 128;
const UNCHANGED = 0;
const TOOLS: [Tool, string, string][] = [
  ["smart", "Smart brush", "1"],
  ["brush", "Brush", "2"],
  ["outline", "Outline", "3"],
];
const VALUES: [number, string, string][] = [
  [CHANGED, "Changed", "D"],
  [UNCHANGED, "Unchanged", "E"],
  [UNKNOWN, "Not known", "Q"],
];
const HELP: [string, string][] = [
  ["1 2 3", "smart brush, brush, outline"],
  ["D E Q", "paint changed, unchanged (erase), not known"],
  ["click / Space", "apply the tool at the pointer / at the cross"],
  ["arrows", "move the cross (Shift: by 1 px)"],
  ["[ ]", "smaller, larger brush; coarser, finer segments"],
  ["U", "undo"],
  ["Enter", "close the outline, else store and go on"],
  ["S", "store and go on to the next patch without a label"],
  ["N / B", "next / previous patch; what is not stored stays on this page"],
  ["F", "flicker: exchange the dates"],
  ["H", "hide or show the paint"],
  ["P / C", "back to the proposal / clear"],
];
const HINT = "Paint what changed between the dates. The paint begins with a proposal: correct it, then store (S).";
const DETAILS = ["coarse", "medium", "fine"];

/** What was painted on patches and not stored: it is there again when the patch is shown again, until the page is closed. */
const unstored = new Map<string, { mask: Uint8Array<ArrayBuffer>; version: string }>();

/** Label mode; returns what to do when it is left, and null where it is not wanted any more. */
export async function showLabelling(app: HTMLElement, list: PairList, isWanted: () => boolean): Promise<(() => void) | null> {
  app.replaceChildren(h("p", { class: "loading" }, "Choosing patches where a label would help most ..."));
  const folder = await get<LabelFolder>("/api/labels");
  if (!isWanted()) return null;
  const labelling = new Labelling(app, folder, list);
  return () => labelling.close();
}

interface Pane {
  date: Source;
  box: HTMLElement;
  picture: HTMLCanvasElement;
  paint: HTMLCanvasElement;
  name: HTMLElement;
}

class Labelling {
  private patch: Patch | null = null;
  private at = 0;
  private tool: Tool = "smart";
  private value = CHANGED;
  private brushPx = 6;
  private detail = 1;
  private mask: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  private undoStack: Uint8Array<ArrayBuffer>[] = [];
  private dirty = false;
  private showsPaint = true;
  private flipped = false;
  private busy = false;
  private cross: [number, number] = [0, 0];
  private outline: [number, number][] = [];
  private painting: number | null = null;
  private images: Partial<Record<Source, ImageBitmap>> = {};
  private segments: Partial<Record<Source, Uint32Array>> = {};
  private readonly panes: Pane[];
  private readonly toolbox = h("div", { class: "toolbox", role: "group", "aria-label": "Tool" });
  private readonly valuebox = h("div", { class: "toolbox", role: "group", "aria-label": "Paint" });
  private readonly title = h("strong");
  private readonly note = h("p", { class: "quiet" });
  private readonly progress = h("div", { class: "progress", "aria-live": "polite" });
  private readonly closer = keyButton("Close the outline", "Enter", () => this.closeOutline());
  private readonly next = h("section", { class: "next" });
  private readonly chooser = h("select", { "aria-label": "Patch" });
  private readonly size = h("input", { type: "range", min: 1, max: 30, value: 6 });
  private readonly detailBox = h("select", {}, ...DETAILS.map((each) => option(each)));
  private readonly onKey = (event: KeyboardEvent): void => this.key(event);
  private readonly onResize = (): void => this.fit();
  private readonly onUnload = (event: BeforeUnloadEvent): void => {
    if (this.dirty || unstored.size) event.preventDefault();
  };

  constructor(
    private readonly app: HTMLElement,
    private folder: LabelFolder,
    list: PairList,
  ) {
    this.panes = (["before", "after"] as Source[]).map((date) => this.makePane(date));
    document.title = "semicdvl label";
    this.build(list);
    document.addEventListener("keydown", this.onKey);
    window.addEventListener("resize", this.onResize);
    window.addEventListener("beforeunload", this.onUnload);
    const first = folder.patches.findIndex((patch) => !patch.labelled);
    void this.open(first < 0 ? 0 : first);
    Object.defineProperty(app, "labelling", { value: { mask: () => this.mask, patch: () => this.patch, busy: () => this.busy }, configurable: true });
  }

  // ---------------------------------------------------------------------------------------- layout
  private makePane(date: Source): Pane {
    const picture = h("canvas", { class: "picture" });
    const paint = h("canvas", { class: "paint", tabindex: 0, "aria-label": `Paint on the ${date} image` });
    const name = h("div", { class: "date-name" }, date);
    const box = h("div", { class: "pane" }, h("div", { class: "stack" }, picture, paint), name);
    const pane = { date, box, picture, paint, name };
    paint.addEventListener("pointerdown", (event) => this.pointerDown(event, pane));
    paint.addEventListener("pointermove", (event) => this.pointerMove(event, pane));
    paint.addEventListener("pointerup", () => (this.painting = null));
    paint.addEventListener("pointercancel", () => (this.painting = null));
    paint.addEventListener("dblclick", () => this.closeOutline());
    return pane;
  }

  private build(list: PairList): void {
    for (const [tool, word, key] of TOOLS) {
      const button = keyButton(word, key, () => this.choose(tool));
      button.dataset.tool = tool;
      this.toolbox.append(button);
    }
    for (const [value, word, key] of VALUES) {
      const button = keyButton(word, key, () => this.chooseValue(value));
      button.dataset.value = String(value);
      this.valuebox.append(button);
    }
    this.chooser.append(...this.folder.patches.map((patch, at) => option(String(at), patch.name)));
    this.chooser.addEventListener("change", () => this.leaveFor(Number(this.chooser.value)));
    this.size.addEventListener("input", () => (this.brushPx = Number(this.size.value)));
    this.detailBox.value = DETAILS[this.detail];
    this.detailBox.addEventListener("change", () => this.setDetail(DETAILS.indexOf(this.detailBox.value)));
    const help = h("button", { type: "button", class: "round", "aria-label": "Keys", click: () => showHelp("Keys", HELP) }, "?");
    const place = list.folder.split("/").pop() ?? "";
    const back = list.pairs.length ? h("a", { href: `#/pair/${encodeURIComponent(list.pairs[0].name)}`, class: "back" }, "Review") : null;
    const header = h("header", {}, back, h("h1", { title: list.folder }, `Labels of ${place}`), this.progress, help);
    const panel = h(
      "aside",
      { "aria-label": "Label" },
      h("section", { class: "card" }, this.title, h("p", {}, HINT), labelled("Patch", this.chooser), this.note),
      this.toolbox,
      this.valuebox,
      this.closer,
      labelled("Brush (px)", this.size),
      labelled("Segments", this.detailBox),
      h(
        "div",
        { class: "actions", role: "group", "aria-label": "Patch" },
        keyButton("Store", "S", () => void this.store(), "accept"),
        keyButton("Undo", "U", () => this.undo()),
        keyButton("Proposal", "P", () => void this.loadProposal()),
        keyButton("Back", "B", () => this.step(-1)),
        keyButton("Next", "N", () => this.step(1)),
        keyButton("Clear", "C", () => this.clear()),
      ),
      this.next,
    );
    const main = h("main", { class: "panes" }, ...this.panes.map((pane) => pane.box));
    this.app.replaceChildren(h("div", { class: "review labelling" }, header, main, panel));
    this.choose(this.tool);
    this.chooseValue(this.value);
    this.showFolder();
  }

  private showFolder(): void {
    const { labelled: done, patches, commands, message } = this.folder;
    const bar = h("progress", { max: patches.length, value: done, "aria-label": "labelled" });
    this.progress.replaceChildren(h("strong", {}, `${this.at + 1} of ${patches.length}`), bar, h("span", { class: "quiet" }, `${done} labelled`));
    [...this.chooser.options].forEach((each, at) => (each.textContent = `${patches[at].labelled ? "✓ " : ""}${patches[at].name}${unstored.has(patches[at].name) ? " (not stored)" : ""}`));
    const head = done ? `${done} ${done === 1 ? "patch" : "patches"} labelled: what comes next` : "What comes next";
    const rows = commands.length ? [h("p", { class: "quiet" }, "Type in a terminal, whenever you have labelled enough:"), listCommands(commands, NEXT_STEPS)] : [];
    this.next.replaceChildren(h("h2", {}, head), ...(message ? [h("p", { class: "quiet" }, message)] : []), ...rows);
  }

  private choose(tool: Tool): void {
    this.tool = tool;
    this.outline = [];
    for (const button of this.toolbox.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    this.closer.hidden = tool !== "outline";
    this.draw();
  }

  private chooseValue(value: number): void {
    this.value = value;
    for (const button of this.valuebox.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.value === String(value)));
  }

  private setDetail(detail: number): void {
    this.detail = Math.min(DETAILS.length - 1, Math.max(0, detail));
    this.detailBox.value = DETAILS[this.detail];
    void this.loadSegments();
  }

  // ---------------------------------------------------------------------------------------- loading
  private async open(at: number): Promise<void> {
    const row = this.folder.patches[at];
    if (!row || this.busy) return;
    this.busy = true;
    this.at = at;
    this.chooser.value = String(at);
    this.title.textContent = `Patch ${at + 1}`;
    this.note.textContent = [row.labelled ? "labelled" : "not labelled", row.note].filter(Boolean).join("  ·  ");
    this.showFolder();
    try {
      this.patch = await get<Patch>(this.path(row.name));
      const { width_px: width, height_px: height } = this.patch;
      this.mask = new Uint8Array(width * height);
      this.undoStack = [];
      this.outline = [];
      this.dirty = false;
      this.cross = [Math.floor(width / 2), Math.floor(height / 2)];
      for (const pane of this.panes) for (const canvas of [pane.picture, pane.paint]) [canvas.width, canvas.height] = [width, height];
      await Promise.all([this.loadImages(), this.fetchMask("stored"), this.loadSegments()]);
      this.dirty = false;
      this.undoStack = [];
      this.restoreUnstored();
    } catch (error) {
      this.patch = null; // half a patch must not be stored
      this.note.textContent = "This patch could not be loaded. Choose it again.";
      this.explain(error);
    } finally {
      this.busy = false;
      this.fit();
    }
  }

  private restoreUnstored(): void {
    const before = unstored.get((this.patch as Patch).name);
    if (before?.mask.length !== this.mask.length) return;
    this.mask = before.mask;
    (this.patch as Patch).version = before.version;
    this.dirty = true;
    this.note.textContent = "as you left it, not stored yet";
  }

  private path(name: string): string {
    return `/api/labels/${encodeURIComponent(name)}`;
  }

  private async bitmap(address: string): Promise<ImageBitmap> {
    const answer = await request(address);
    return createImageBitmap(await answer.blob(), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  }

  private async loadImages(): Promise<void> {
    const name = (this.patch as Patch).name;
    for (const date of ["before", "after"] as Source[]) this.images[date] = await this.bitmap(`${this.path(name)}/images/${date}`);
    this.drawPictures();
  }

  private async loadProposal(): Promise<void> {
    try {
      await this.fetchMask("proposal");
    } catch (error) {
      this.explain(error);
    }
  }

  private async fetchMask(source: "stored" | "proposal"): Promise<void> {
    if (!this.patch) return;
    const pixels = readPixels(await this.bitmap(`${this.path(this.patch.name)}/mask?source=${source}`));
    this.remember();
    for (let at = 0; at < this.mask.length; at++) this.mask[at] = pixels[4 * at];
    this.dirty = true;
    this.draw();
  }

  private async loadSegments(): Promise<void> {
    if (!this.patch) return;
    const { name } = this.patch;
    for (const date of ["before", "after"] as Source[]) {
      const pixels = readPixels(await this.bitmap(`${this.path(name)}/segments/${date}?detail=${DETAILS[this.detail]}`));
      const numbers = new Uint32Array(this.mask.length);
      for (let at = 0; at < numbers.length; at++) numbers[at] = pixels[4 * at] + 256 * pixels[4 * at + 1] + 65536 * pixels[4 * at + 2];
      this.segments[date] = numbers;
    }
  }

  private explain(error: unknown): void {
    if (!(error instanceof Refusal)) throw error;
    tell(error.message, "problem");
  }

  // ---------------------------------------------------------------------------------------- painting
  private find(event: PointerEvent, pane: Pane): [number, number] {
    const box = pane.paint.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * pane.paint.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * pane.paint.height);
    return [Math.min(pane.paint.width - 1, Math.max(0, x)), Math.min(pane.paint.height - 1, Math.max(0, y))];
  }

  private shownDate(pane: Pane): Source {
    return this.flipped ? (pane.date === "before" ? "after" : "before") : pane.date;
  }

  private pointerDown(event: PointerEvent, pane: Pane): void {
    if (!this.patch || event.button !== 0) return;
    pane.paint.setPointerCapture(event.pointerId);
    const at = this.find(event, pane);
    this.painting = event.pointerId;
    if (this.tool !== "outline") this.remember();
    this.apply(at, this.shownDate(pane));
  }

  private pointerMove(event: PointerEvent, pane: Pane): void {
    this.cross = this.find(event, pane);
    if (this.painting === event.pointerId && this.tool !== "outline") this.apply(this.cross, this.shownDate(pane));
    else this.draw();
  }

  private apply([x, y]: [number, number], date: Source): void {
    if (this.tool === "outline") this.outline.push([x + 0.5, y + 0.5]);
    else if (this.tool === "brush") this.fillDisc(x, y);
    else this.fillSegment(x, y, date);
    this.draw();
  }

  private fillDisc(x: number, y: number): void {
    const { width_px: width, height_px: height } = this.patch as Patch;
    const radius = this.brushPx;
    for (let row = Math.max(0, y - radius); row <= Math.min(height - 1, y + radius); row++)
      for (let col = Math.max(0, x - radius); col <= Math.min(width - 1, x + radius); col++)
        if ((row - y) ** 2 + (col - x) ** 2 <= radius ** 2) this.mask[row * width + col] = this.value;
    this.dirty = true;
  }

  private fillSegment(x: number, y: number, date: Source): void {
    const numbers = this.segments[date];
    if (!numbers) return tell("The segments are still being computed.");
    const wanted = numbers[y * (this.patch as Patch).width_px + x];
    for (let at = 0; at < numbers.length; at++) if (numbers[at] === wanted) this.mask[at] = this.value;
    this.dirty = true;
  }

  /** Fill the outline: every pixel whose centre lies inside. */
  private closeOutline(): void {
    if (this.outline.length < 3) return;
    this.remember();
    const { width_px: width, height_px: height } = this.patch as Patch;
    for (let row = 0; row < height; row++)
      for (let col = 0; col < width; col++) if (isInside(this.outline, col + 0.5, row + 0.5)) this.mask[row * width + col] = this.value;
    this.outline = [];
    this.dirty = true;
    this.draw();
  }

  private remember(): void {
    this.undoStack.push(this.mask.slice());
    if (this.undoStack.length > 60) this.undoStack.shift();
  }

  private undo(): void {
    if (this.outline.length) this.outline.pop();
    else {
      const earlier = this.undoStack.pop();
      if (!earlier) return tell("There is nothing to undo on this patch.");
      this.mask = earlier;
      this.dirty = true;
    }
    this.draw();
  }

  private clear(): void {
    this.remember();
    this.mask.fill(UNCHANGED);
    this.dirty = true;
    this.draw();
  }

  // ---------------------------------------------------------------------------------------- drawing
  private fit(): void {
    if (!this.patch) return;
    for (const pane of this.panes) {
      const box = pane.box.getBoundingClientRect();
      const scale = Math.max(0.5, Math.min((box.width - 8) / pane.paint.width, (box.height - 8) / pane.paint.height));
      const stack = pane.paint.parentElement as HTMLElement;
      stack.style.width = `${Math.floor(pane.paint.width * scale)}px`;
      stack.style.height = `${Math.floor(pane.paint.height * scale)}px`;
    }
    this.draw();
  }

  private drawPictures(): void {
    for (const pane of this.panes) {
      const date = this.shownDate(pane);
      const image = this.images[date];
      if (image) (pane.picture.getContext("2d") as CanvasRenderingContext2D).drawImage(image, 0, 0);
      pane.name.textContent = date;
      pane.name.dataset.date = date;
    }
  }

  private draw(): void {
    if (!this.patch || !this.mask.length) return;
    const { width_px: width, height_px: height } = this.patch;
    const shown = new ImageData(width, height);
    const pixels = new Uint32Array(shown.data.buffer);
    const [inside, edge, doubt] = [0x502884ff, 0xff1e78ff, 0x90c8b4a0];
    if (this.showsPaint)
      for (let at = 0; at < this.mask.length; at++) {
        const value = this.mask[at];
        if (value === UNCHANGED) continue;
        if (value === UNKNOWN) {
          if ((at + Math.floor(at / width)) % 4 < 2) pixels[at] = doubt;
          continue;
        }
        const col = at % width;
        const isEdge = col === 0 || col === width - 1 || this.mask[at - 1] !== value || this.mask[at + 1] !== value || this.mask[at - width] !== value || this.mask[at + width] !== value;
        pixels[at] = isEdge ? edge : inside;
      }
    for (const pane of this.panes) {
      const context = pane.paint.getContext("2d") as CanvasRenderingContext2D;
      context.putImageData(shown, 0, 0);
      this.drawPointer(context);
    }
  }

  private drawPointer(context: CanvasRenderingContext2D): void {
    const [x, y] = [this.cross[0] + 0.5, this.cross[1] + 0.5];
    context.lineWidth = 0.8;
    context.strokeStyle = "#ffffff";
    context.beginPath();
    if (this.tool === "brush") context.arc(x, y, this.brushPx, 0, 2 * Math.PI);
    else for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 2 * dx, y + 2 * dy);
      context.lineTo(x + 5 * dx, y + 5 * dy);
    }
    context.stroke();
    if (!this.outline.length) return;
    context.strokeStyle = "#7fdcff";
    context.beginPath();
    this.outline.forEach(([col, row], index) => (index ? context.lineTo(col, row) : context.moveTo(col, row)));
    context.lineTo(x, y);
    context.stroke();
  }

  // ---------------------------------------------------------------------------------------- storing
  private async store(): Promise<void> {
    if (!this.patch || this.busy) return;
    this.busy = true;
    const { name, version } = this.patch;
    try {
      const body = await encodeMask(this.mask, this.patch.width_px, this.patch.height_px);
      await request(`${this.path(name)}?version=${encodeURIComponent(version)}`, { method: "PUT", headers: { "Content-Type": "image/png" }, body });
      this.folder = await get<LabelFolder>("/api/labels");
      tell(`${name} is stored.`);
      unstored.delete(name);
      this.dirty = false;
    } catch (error) {
      if (error instanceof Refusal && error.status === 409) await this.adoptVersion(error.message);
      else this.explain(error);
      this.busy = false;
      return;
    }
    this.busy = false;
    const todo = (at: number): boolean => !this.folder.patches[at].labelled;
    const order = this.folder.patches.map((_, index) => (this.at + 1 + index) % this.folder.patches.length);
    const next = order.find(todo);
    if (next === undefined) {
      tell("All patches are labelled. The commands that learn from them are in the panel.");
      this.showFolder();
      await this.open(this.at);
    } else await this.open(next);
  }

  /** Somebody else labelled the patch: storing again is then meant. */
  private async adoptVersion(message: string): Promise<void> {
    try {
      const now = await get<Patch>(this.path((this.patch as Patch).name));
      (this.patch as Patch).version = now.version;
      tell(`${message} S stores yours in its place.`, "problem");
    } catch (error) {
      this.explain(error);
    }
  }

  private step(by: number): void {
    const at = this.at + by;
    if (at < 0 || at >= this.folder.patches.length) return tell(by > 0 ? "This is the last patch." : "This is the first patch.");
    this.leaveFor(at);
  }

  private leaveFor(at: number): void {
    if (this.busy) return;
    this.keepUnstored();
    void this.open(at);
  }

  private keepUnstored(): void {
    if (this.dirty && this.patch) unstored.set(this.patch.name, { mask: this.mask, version: this.patch.version });
  }

  // ---------------------------------------------------------------------------------------- keys
  private key(event: KeyboardEvent): void {
    if (document.querySelector("dialog[open]") || isTyping(event)) return;
    const focus = document.activeElement;
    if ((event.key === "Enter" || event.key === " ") && focus instanceof HTMLButtonElement) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = this.findAction(key, event.shiftKey);
    if (!act) return;
    event.preventDefault();
    act();
  }

  private findAction(key: string, shift: boolean): (() => void) | undefined {
    const tool = TOOLS.find((row) => row[2] === key);
    if (tool) return () => this.choose(tool[0]);
    const value = VALUES.find((row) => row[2].toLowerCase() === key);
    if (value) return () => this.chooseValue(value[0]);
    const by = shift ? 1 : 8;
    const actions: Record<string, () => void> = {
      ArrowLeft: () => this.moveCross(-by, 0),
      ArrowRight: () => this.moveCross(by, 0),
      ArrowUp: () => this.moveCross(0, -by),
      ArrowDown: () => this.moveCross(0, by),
      " ": () => this.applyAtCross(),
      Enter: () => (this.outline.length >= 3 ? this.closeOutline() : void this.store()),
      Escape: () => {
        this.outline = [];
        this.draw();
      },
      s: () => void this.store(),
      u: () => this.undo(),
      p: () => void this.loadProposal(),
      c: () => this.clear(),
      n: () => this.step(1),
      b: () => this.step(-1),
      h: () => {
        this.showsPaint = !this.showsPaint;
        this.draw();
      },
      f: () => {
        this.flipped = !this.flipped;
        this.drawPictures();
      },
      "[": () => this.resize(-1),
      "]": () => this.resize(1),
      "?": () => showHelp("Keys", HELP),
    };
    return actions[key];
  }

  private applyAtCross(): void {
    if (!this.patch) return;
    if (this.tool !== "outline") this.remember();
    this.apply(this.cross, this.flipped ? "before" : "after");
  }

  private resize(by: number): void {
    if (this.tool === "smart") return this.setDetail(this.detail + by);
    this.brushPx = Math.min(30, Math.max(1, this.brushPx + by));
    this.size.value = String(this.brushPx);
    this.draw();
  }

  private moveCross(x: number, y: number): void {
    const { width_px: width, height_px: height } = this.patch as Patch;
    this.cross = [Math.min(width - 1, Math.max(0, this.cross[0] + x)), Math.min(height - 1, Math.max(0, this.cross[1] + y))];
    this.draw();
  }

  close(): void {
    this.keepUnstored();
    document.removeEventListener("keydown", this.onKey);
    window.removeEventListener("resize", this.onResize);
    window.removeEventListener("beforeunload", this.onUnload);
  }
}

function readPixels(image: ImageBitmap): Uint8ClampedArray {
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d", { willReadFrequently: true }) as OffscreenCanvasRenderingContext2D;
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height).data;
}

async function encodeMask(mask: Uint8Array, width: number, height: number): Promise<Blob> {
  const image = new ImageData(width, height);
  for (let at = 0; at < mask.length; at++) image.data.set([mask[at], mask[at], mask[at], 255], 4 * at);
  const canvas = new OffscreenCanvas(width, height);
  (canvas.getContext("2d") as OffscreenCanvasRenderingContext2D).putImageData(image, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

/** Whether a point lies inside a ring (even-odd rule). */
function isInside(ring: [number, number][], x: number, y: number): boolean {
  let inside = false;
  for (let at = 0, last = ring.length - 1; at < ring.length; last = at++) {
    const [[x1, y1], [x2, y2]] = [ring[at], ring[last]];
    if (y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) inside = !inside;
  }
  return inside;
}
