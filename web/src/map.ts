// Two dates of one place: swipe, side by side, flicker. The map is in pixels of the result (x = column, y = -row), so
// that every projection, and none, works alike; only what is shown as text is in map coordinates.

import Feature from "ol/Feature";
import OlMap from "ol/Map";
import View from "ol/View";
import MultiPolygon from "ol/geom/MultiPolygon";
import type Geometry from "ol/geom/Geometry";
import { defaults as defaultControls } from "ol/control/defaults";
import { defaults as defaultInteractions } from "ol/interaction/defaults";
import TileLayer from "ol/layer/Tile";
import VectorLayer from "ol/layer/Vector";
import type Layer from "ol/layer/Layer";
import Projection from "ol/proj/Projection";
import TileImage from "ol/source/TileImage";
import VectorSource from "ol/source/Vector";
import Fill from "ol/style/Fill";
import Stroke from "ol/style/Stroke";
import Style from "ol/style/Style";
import TileGrid from "ol/tilegrid/TileGrid";
import type { Coordinate } from "ol/coordinate";
import type { Extent } from "ol/extent";
import type RenderEvent from "ol/render/Event";
import { type Change, type PairInfo, type Position, pairPath, type State } from "./api";
import { h } from "./dom";

export type Mode = "swipe" | "side" | "flicker";
export type ColourBy = "state" | "kind" | "class";

export const STATE_COLOURS: Record<State, string> = {
  open: "#ffd24a",
  accepted: "#3ddc84",
  rejected: "#ff6b57",
  skipped: "#b9a3f5",
};

const CONTEXT = 3.2;
const LEAST_FRAME_PX = 110;

export class PairMap {
  readonly element: HTMLElement;
  readonly main: OlMap;
  readonly side: OlMap;
  readonly view: View;
  readonly changes = new VectorSource<Feature<Geometry>>();
  mode: Mode = "swipe";
  colourBy: ColourBy = "state";
  showOutlines = true;
  private swipeAt = 0.5;
  private showsAfter = true;
  private current: number | null = null;
  private hidden: (id: number) => boolean = () => false;
  private readonly grid: TileGrid;
  private readonly layers: Record<string, TileLayer<TileImage>> = {};
  private readonly vectors: VectorLayer[] = [];
  private readonly handle: HTMLElement;
  private readonly status: HTMLElement;
  private readonly dates: HTMLElement;
  private readonly styles = new Map<string, Style[]>();

  constructor(private readonly info: PairInfo) {
    const { width_px: width, height_px: height, levels } = info;
    const extent: Extent = [0, -height, width, 0];
    const projection = new Projection({ code: "semicdvl-pixels", units: "m", extent });
    const resolutions = Array.from({ length: levels }, (_, at) => 2 ** (levels - 1 - at));
    this.grid = new TileGrid({ extent, origin: [0, 0], resolutions, tileSize: info.tile_px });
    this.view = new View({
      projection,
      center: [width / 2, -height / 2],
      resolution: Math.max(width / 700, height / 500),
      minResolution: 1 / 16,
      maxResolution: 2 ** levels,
      constrainResolution: false,
      enableRotation: false,
      extent: [-width, -2 * height, 2 * width, height],
    });
    const left = h("div", { class: "map side", hidden: true });
    const right = h("div", { class: "map main", role: "group", tabindex: 0, "aria-label": "Map of both dates" });
    this.handle = h("div", { class: "swipe-handle", role: "slider", tabindex: 0, "aria-label": "Swipe between the dates" });
    this.status = h("div", { class: "map-status", "aria-live": "off" });
    this.dates = h("div", { class: "date-names", "aria-live": "polite" });
    const north = h("div", { class: "north", title: "North is up", role: "img", "aria-label": "North is up" }, "N");
    north.hidden = info.crs === null;
    this.element = h("div", { class: "maps" }, left, right, this.handle, this.dates, north, this.status, this.makeZoom());
    for (const name of info.layers) this.layers[name] = this.makeLayer(name, projection);
    this.layers.change.setVisible(false);
    this.layers.score?.setVisible(false);
    this.side = this.makeMap(left, [this.makeLayer("before", projection)]);
    const overlays = [this.layers.score, this.layers.change].filter((layer) => layer !== undefined);
    this.main = this.makeMap(right, [this.layers.before, this.layers.after, ...overlays]);
    this.prepareSwipe();
    this.main.on("pointermove", (event) => this.showStatus(event.coordinate));
    this.view.on("change:resolution", () => this.showStatus(null));
    this.setMode("swipe");
  }

  private makeZoom(): HTMLElement {
    const button = (word: string, name: string, act: () => void): HTMLElement => h("button", { type: "button", "aria-label": name, title: name, click: act }, word);
    return h(
      "div",
      { class: "zoom", role: "group", "aria-label": "Zoom" },
      button("+", "Zoom in (+)", () => this.zoom(0.7)),
      button("−", "Zoom out (−)", () => this.zoom(1 / 0.7)),
      button("◎", "Frame the object (Z)", () => this.current !== null && this.frameChange(this.current)),
      button("▢", "Frame the whole (W)", () => this.frameAll()),
    );
  }

  zoom(by: number): void {
    this.view.setResolution((this.view.getResolution() ?? 1) * by);
  }

  private makeMap(target: HTMLElement, layers: Layer[]): OlMap {
    const vector = new VectorLayer({
      source: this.changes,
      style: (feature) => this.findStyle(feature as Feature),
      updateWhileAnimating: true,
      updateWhileInteracting: true,
      renderBuffer: 60,
    });
    this.vectors.push(vector);
    const map = new OlMap({
      layers: [...layers, vector],
      view: this.view,
      controls: defaultControls({ attribution: false, rotate: false, zoom: false }),
      interactions: defaultInteractions({ altShiftDragRotate: false, pinchRotate: false, keyboard: false }),
    });
    map.setTarget(target);
    return map;
  }

  private makeLayer(name: string, projection: Projection): TileLayer<TileImage> {
    const source = new TileImage({
      projection,
      tileGrid: this.grid,
      interpolate: name !== "change",
      transition: 0,
      tileUrlFunction: ([z, x, y]) => this.tileAddress(name, z, x, y),
    });
    return new TileLayer({ source, preload: 1, opacity: name === "before" || name === "after" ? 1 : 0.6 });
  }

  private tileAddress(layer: string, z: number, x: number, y: number): string {
    return `${pairPath(this.info.name)}/tiles/${layer}/${this.info.levels - 1 - z}/${y}/${x}?map=${this.info.key}`;
  }

  // ---------------------------------------------------------------------------------------- coordinates
  toPixels([x, y]: Position): Position {
    const [a, b, c, d, e, f] = this.info.transform;
    const determinant = a * e - b * d;
    return [(e * (x - c) - b * (y - f)) / determinant, -((a * (y - f) - d * (x - c)) / determinant)];
  }

  toMap([x, y]: Coordinate): Position {
    const [a, b, c, d, e, f] = this.info.transform;
    return [a * x + b * -y + c, d * x + e * -y + f];
  }

  // ---------------------------------------------------------------------------------------- dates
  setMode(mode: Mode): void {
    this.mode = mode;
    this.element.dataset.mode = mode;
    (this.side.getTargetElement() as HTMLElement).hidden = mode !== "side";
    this.handle.hidden = mode !== "swipe";
    this.layers.before.setVisible(mode !== "side");
    this.showDate(true);
    this.placeHandle();
    this.side.updateSize();
    this.main.updateSize();
    this.main.render();
  }

  /** Toggle the dates; in the other modes, enter flicker first. */
  flicker(): void {
    if (this.mode !== "flicker") {
      this.setMode("flicker");
      this.showDate(false);
    } else this.showDate(!this.showsAfter);
  }

  private showDate(after: boolean): void {
    this.showsAfter = after;
    this.layers.after.setVisible(after);
    const shown = this.mode === "flicker" ? [after ? "after" : "before"] : ["before", "after"];
    this.dates.replaceChildren(...shown.map((date) => h("span", { class: "date-name", "data-date": date }, date)));
  }

  moveSwipe(by: number): void {
    this.swipeAt = Math.min(1, Math.max(0, this.swipeAt + by));
    this.placeHandle();
  }

  private placeHandle(): void {
    this.handle.style.left = `${this.swipeAt * 100}%`;
    this.dates.style.left = this.mode === "swipe" ? `${this.swipeAt * 100}%` : "";
    this.handle.setAttribute("aria-valuenow", String(Math.round(this.swipeAt * 100)));
    this.main.render();
  }

  private prepareSwipe(): void {
    this.layers.after.on("prerender", (event: RenderEvent) => {
      const context = event.context as CanvasRenderingContext2D;
      context.save();
      if (this.mode !== "swipe") return;
      const [width, height] = [context.canvas.width, context.canvas.height];
      context.beginPath();
      context.rect(width * this.swipeAt, 0, width * (1 - this.swipeAt), height);
      context.clip();
    });
    this.layers.after.on("postrender", (event: RenderEvent) => (event.context as CanvasRenderingContext2D).restore());
    const follow = (event: PointerEvent): void => {
      const box = this.element.getBoundingClientRect();
      this.swipeAt = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      this.placeHandle();
    };
    this.handle.addEventListener("pointerdown", (event) => {
      this.handle.setPointerCapture(event.pointerId);
      this.handle.onpointermove = follow;
    });
    this.handle.addEventListener("pointerup", () => (this.handle.onpointermove = null));
    this.handle.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.05, ArrowRight: 0.05 }[event.key];
      if (step === undefined) return;
      event.stopPropagation();
      event.preventDefault();
      this.moveSwipe(step);
    });
    this.placeHandle();
  }

  setOverlay(name: string, opacity: number): void {
    this.layers[name]?.setVisible(opacity > 0);
    if (opacity > 0) this.layers[name]?.setOpacity(opacity);
  }

  toggleOverlay(name: string): boolean {
    const layer = this.layers[name];
    layer?.setVisible(!layer.getVisible());
    return layer?.getVisible() ?? false;
  }

  // ---------------------------------------------------------------------------------------- objects
  put(change: Change): void {
    const found = this.changes.getFeatureById(change.id);
    if (!change.live) {
      if (found) this.changes.removeFeature(found as Feature);
      return;
    }
    const shape = new MultiPolygon(
      change.geometry.coordinates.map((polygon) => polygon.map((ring) => ring.map((at) => this.toPixels(at)))),
    );
    if (found) {
      (found as Feature).setGeometry(shape);
      (found as Feature).set("change", change);
      return;
    }
    const feature = new Feature<Geometry>({ geometry: shape, change });
    feature.setId(change.id);
    this.changes.addFeature(feature);
  }

  putAll(changes: Change[]): void {
    this.changes.clear(true);
    const features = changes.map((change) => {
      const polygons = change.geometry.coordinates.map((rings) => rings.map((ring) => ring.map((at) => this.toPixels(at))));
      const feature = new Feature<Geometry>({ geometry: new MultiPolygon(polygons), change });
      feature.setId(change.id);
      return feature;
    });
    this.changes.addFeatures(features);
  }

  feature(id: number): Feature<Geometry> | null {
    return this.changes.getFeatureById(id) as Feature<Geometry> | null;
  }

  redraw(): void {
    this.styles.clear();
    for (const vector of this.vectors) vector.changed();
  }

  select(id: number | null): void {
    const before = this.current;
    this.current = id;
    for (const one of [before, id]) if (one !== null) this.feature(one)?.changed();
  }

  hide(test: (id: number) => boolean): void {
    this.hidden = test;
    this.redraw();
  }

  private findStyle(feature: Feature): Style[] {
    const change = feature.get("change") as Change | undefined;
    if (!change) return [];
    const chosen = change.id === this.current;
    if (!chosen && (!this.showOutlines || this.hidden(change.id))) return [];
    const colour = this.findColour(change);
    const key = `${colour}/${chosen}/${change.state}/${this.showOutlines}`;
    const known = this.styles.get(key);
    if (known) return known;
    const dash = change.state === "rejected" ? [5, 4] : undefined;
    const made = chosen
      ? [
          new Style({ stroke: new Stroke({ color: "rgba(0,0,0,0.75)", width: 5 }), zIndex: 2 }),
          new Style({ stroke: new Stroke({ color: this.showOutlines ? colour : `${colour}66`, width: 2.5, lineDash: dash }), zIndex: 3 }),
        ]
      : [new Style({ stroke: new Stroke({ color: colour, width: 1.5, lineDash: dash }), fill: new Fill({ color: `${colour}14` }) })];
    this.styles.set(key, made);
    return made;
  }

  private findColour(change: Change): string {
    if (this.colourBy === "kind") return this.info.kinds.find((kind) => kind.name === change.kind)?.colour ?? "#aaaaaa";
    if (this.colourBy === "class") {
      const name = change.to_class ?? change.from_class;
      return this.info.classes.find((each) => each.name === name)?.colour ?? "#aaaaaa";
    }
    return STATE_COLOURS[change.state];
  }

  // ---------------------------------------------------------------------------------------- framing
  /** Frame an object on both dates, with context. */
  frame(extent: Extent): void {
    const [width, height] = this.main.getSize() ?? [800, 600];
    const wide = Math.max(extent[2] - extent[0], LEAST_FRAME_PX / CONTEXT) * CONTEXT;
    const tall = Math.max(extent[3] - extent[1], LEAST_FRAME_PX / CONTEXT) * CONTEXT;
    this.view.cancelAnimations();
    this.view.setCenter([(extent[0] + extent[2]) / 2, (extent[1] + extent[3]) / 2]);
    this.view.setResolution(Math.max(wide / width, tall / height));
  }

  frameChange(id: number): void {
    const extent = this.feature(id)?.getGeometry()?.getExtent();
    if (extent) this.frame(extent);
  }

  frameAll(): void {
    const { width_px: width, height_px: height } = this.info;
    this.view.setCenter([width / 2, -height / 2]);
    const [wide, tall] = this.main.getSize() ?? [800, 600];
    this.view.setResolution(Math.max(width / wide, height / tall) * 1.05);
  }

  /** Let the browser fetch what the next object will need. */
  prefetch(id: number): void {
    const extent = this.feature(id)?.getGeometry()?.getExtent();
    if (!extent) return;
    const [width, height] = this.main.getSize() ?? [800, 600];
    const wide = Math.max(extent[2] - extent[0], LEAST_FRAME_PX / CONTEXT) * CONTEXT;
    const tall = Math.max(extent[3] - extent[1], LEAST_FRAME_PX / CONTEXT) * CONTEXT;
    const resolution = Math.max(wide / width, tall / height);
    const z = this.grid.getZForResolution(resolution);
    const [x, y] = [(extent[0] + extent[2]) / 2, (extent[1] + extent[3]) / 2];
    const half = [(width * resolution) / 2, (height * resolution) / 2];
    this.grid.forEachTileCoord([x - half[0], y - half[1], x + half[0], y + half[1]], z, ([, col, row]) => {
      const side = this.info.tile_px * this.grid.getResolution(z);
      if (col < 0 || row < 0 || col * side >= this.info.width_px || row * side >= this.info.height_px) return;
      for (const date of ["before", "after"]) new Image().src = this.tileAddress(date, z, col, row);
    });
  }

  // ---------------------------------------------------------------------------------------- status
  private showStatus(at: Coordinate | null): void {
    const resolution = this.view.getResolution() ?? 1;
    const unit = this.info.gsd_m ?? 1;
    const target = resolution * unit * 110;
    const power = 10 ** Math.floor(Math.log10(target));
    const length = [1, 2, 5, 10].map((step) => step * power).filter((step) => step <= target).pop() ?? power;
    const bar = h("span", { class: "scale-bar" });
    bar.style.width = `${Math.round(length / resolution / unit)}px`;
    const word = this.info.gsd_m === null ? `${length} px` : length >= 1000 ? `${length / 1000} km` : `${length} m`;
    const parts: (Node | string)[] = [bar, h("span", { class: "scale-word" }, word)];
    if (at) {
      const [x, y] = this.toMap(at);
      const digits = this.info.crs === null ? 0 : Math.abs(this.info.transform[0]) < 0.01 ? 6 : 1;
      const name = this.info.crs ?? "col, row";
      parts.push(h("span", { class: "coordinates" }, `${x.toFixed(digits)}, ${y.toFixed(digits)}  ${name}`));
    }
    this.status.replaceChildren(...parts);
  }

  close(): void {
    this.main.setTarget(undefined);
    this.side.setTarget(undefined);
  }
}
