// Drawing on the map: move vertices, draw a missed change, cut one in two. With the keyboard alone, too.

import Feature from "ol/Feature";
import LineString from "ol/geom/LineString";
import MultiPolygon from "ol/geom/MultiPolygon";
import Point from "ol/geom/Point";
import Polygon from "ol/geom/Polygon";
import type Geometry from "ol/geom/Geometry";
import Draw from "ol/interaction/Draw";
import Modify from "ol/interaction/Modify";
import Snap from "ol/interaction/Snap";
import VectorLayer from "ol/layer/Vector";
import VectorSource from "ol/source/Vector";
import CircleStyle from "ol/style/Circle";
import Fill from "ol/style/Fill";
import Stroke from "ol/style/Stroke";
import Style from "ol/style/Style";
import type { Coordinate } from "ol/coordinate";
import type { Position } from "./api";
import { h, tell } from "./dom";
import type { PairMap } from "./map";

export type Tool = "vertices" | "polygon" | "line";

/** What to do with mouse or finger, and with keys. */
const HINTS: Record<Tool, [string, string]> = {
  vertices: ["Drag a vertex or an edge.", "Alt-click or Delete removes a vertex. Keys: Tab next vertex, arrows move it, S simplifies, Enter keeps, Esc discards."],
  polygon: ["Set the corners of the change.", "Keys: arrows move the map, Space sets a corner at the cross, Backspace removes it, Enter keeps, Esc discards."],
  line: ["Draw the cut from outside to outside.", "Keys: arrows move the map, Space sets a point at the cross, Backspace removes it, Enter cuts, Esc discards."],
};

const SIMPLIFY_PX = 1;
const DRAWN = [
  new Style({ stroke: new Stroke({ color: "rgba(0,0,0,0.8)", width: 5 }) }),
  new Style({
    stroke: new Stroke({ color: "#7fdcff", width: 2.5 }),
    fill: new Fill({ color: "rgba(127,220,255,0.12)" }),
    image: new CircleStyle({ radius: 5, fill: new Fill({ color: "#7fdcff" }), stroke: new Stroke({ color: "#000", width: 1.5 }) }),
  }),
];
const VERTEX = new CircleStyle({ radius: 4, fill: new Fill({ color: "#fff" }), stroke: new Stroke({ color: "#000", width: 1.5 }) });
const CHOSEN = new CircleStyle({ radius: 7, fill: new Fill({ color: "#ff8a3c" }), stroke: new Stroke({ color: "#fff", width: 2 }) });

export class Editing {
  private readonly source = new VectorSource<Feature<Geometry>>();
  private readonly layer: VectorLayer;
  private readonly interactions: (Modify | Draw | Snap)[] = [];
  private draw: Draw | null = null;
  private vertex = -1;
  private readonly bar: HTMLElement;
  private readonly cross: HTMLElement;

  constructor(
    private readonly map: PairMap,
    readonly tool: Tool,
    shape: Geometry | null,
    private readonly finish: (coordinates: Position[][][] | Position[] | null) => void,
  ) {
    this.layer = new VectorLayer({ source: this.source, style: (feature) => this.style(feature as Feature<Geometry>), zIndex: 10 });
    this.map.main.addLayer(this.layer);
    if (shape) this.source.addFeature(new Feature<Geometry>(shape.clone()));
    if (tool === "vertices") this.add(new Modify({ source: this.source, pixelTolerance: 14 }));
    else {
      this.draw = new Draw({ source: this.source, type: tool === "line" ? "LineString" : "Polygon", style: DRAWN });
      this.draw.on("drawstart", () => this.source.clear());
      this.draw.on("drawend", (event) => window.setTimeout(() => this.keepShape(event.feature.getGeometry() ?? null)));
      this.add(this.draw);
    }
    const snap = h("input", { type: "checkbox", change: () => this.toggleSnap(snap.checked) });
    this.bar = h(
      "div",
      { class: "edit-bar", role: "toolbar", "aria-label": "Drawing" },
      h("span", {}, HINTS[tool][0], h("span", { class: "keys" }, ` ${HINTS[tool][1]}`)),
      tool === "vertices" ? h("button", { type: "button", click: () => this.simplify() }, "Simplify") : h("button", { type: "button", click: () => this.removeLast() }, "Back"),
      h("label", {}, snap, " snap to others"),
      h("button", { type: "button", class: "primary", click: () => this.keep() }, tool === "line" ? "Cut" : "Keep"),
      h("button", { type: "button", click: () => this.finish(null) }, "Discard"),
    );
    this.cross = h("div", { class: "cross", "aria-hidden": "true" });
    this.cross.hidden = tool === "vertices";
    this.map.element.append(this.bar, this.cross);
    (this.map.main.getTargetElement() as HTMLElement).focus();
  }

  private add(interaction: Modify | Draw | Snap): void {
    this.map.main.addInteraction(interaction);
    this.interactions.push(interaction);
  }

  private toggleSnap(on: boolean): void {
    for (const one of this.interactions.filter((each) => each instanceof Snap)) this.map.main.removeInteraction(one);
    if (on) this.add(new Snap({ source: this.map.changes }));
  }

  private style(feature: Feature<Geometry>): Style[] {
    const styles = [...DRAWN];
    if (this.tool !== "vertices") return styles;
    this.listVertices(feature).forEach((at, index) => {
      const image = index === this.vertex ? CHOSEN : VERTEX;
      styles.push(new Style({ image, geometry: new Point(at), zIndex: 5 }));
    });
    return styles;
  }

  private get feature(): Feature<Geometry> | undefined {
    return this.source.getFeatures()[0];
  }

  /** Every corner once: a ring names its first corner again at its end. */
  private listVertices(feature: Feature<Geometry>): Coordinate[] {
    const shape = feature.getGeometry();
    return shape instanceof MultiPolygon ? shape.getCoordinates().flatMap((rings) => rings.flatMap((ring) => ring.slice(0, -1))) : [];
  }

  /** Whether a key was meant for the drawing. */
  key(event: KeyboardEvent): boolean {
    const steps: Record<string, Position> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.key === "Escape") this.finish(null);
    else if (event.key === "Enter") this.keep();
    else if (event.key in steps) this.step(steps[event.key], event.shiftKey);
    else if (this.tool === "vertices" && event.key === "Tab") this.nextVertex(event.shiftKey ? -1 : 1);
    else if (this.tool === "vertices" && event.key === "Delete") this.changeVertices((ring, at) => ring.length > 4 && ring.splice(at, 1));
    else if (this.tool === "vertices" && event.key.toLowerCase() === "s") this.simplify();
    else if (this.draw && event.key === " ") this.draw.appendCoordinates([this.map.view.getCenter() as Coordinate]);
    else if (event.key === "Backspace") this.removeLast();
    else return false;
    event.preventDefault();
    return true;
  }

  private step([x, y]: Position, far: boolean): void {
    if (this.tool === "vertices" && this.vertex >= 0) {
      const by = far ? 5 : 1;
      this.changeVertices((ring, at) => (ring[at] = [ring[at][0] + x * by, ring[at][1] + y * by]));
      return;
    }
    const center = this.map.view.getCenter() as Coordinate;
    const by = (this.map.view.getResolution() ?? 1) * (far ? 80 : 12);
    this.map.view.setCenter([center[0] + x * by, center[1] + y * by]);
  }

  private nextVertex(by: number): void {
    const count = this.feature ? this.listVertices(this.feature).length : 0;
    if (!count) return;
    this.vertex = (Math.max(this.vertex, by > 0 ? -1 : 0) + by + count) % count;
    this.layer.changed();
  }

  private changeVertices(change: (ring: Coordinate[], at: number) => void): void {
    const shape = this.feature?.getGeometry();
    if (!(shape instanceof MultiPolygon) || this.vertex < 0) return;
    let left = this.vertex;
    const polygons = shape.getCoordinates();
    for (const rings of polygons)
      for (const [index, ring] of rings.entries()) {
        if (left >= 0 && left < ring.length - 1) {
          const open = ring.slice(0, -1);
          change(open, left);
          rings[index] = [...open, open[0]];
        }
        left -= ring.length - 1;
      }
    shape.setCoordinates(polygons);
  }

  private removeLast(): void {
    if (!this.draw) return;
    this.source.clear();
    this.draw.removeLastPoint();
  }

  /** Leave out the vertices that lie within a pixel of the outline without them: the stairs of a map of pixels. */
  private simplify(): void {
    const shape = this.feature?.getGeometry();
    if (!(shape instanceof MultiPolygon)) return;
    shape.setCoordinates(shape.getCoordinates().map((rings) => rings.map((ring) => simplifyRing(ring, SIMPLIFY_PX))));
    this.vertex = -1;
  }

  private keep(): void {
    if (this.draw && !this.feature) {
      this.draw.finishDrawing();
      window.setTimeout(() => this.feature === undefined && tell("Set at least " + (this.tool === "line" ? "two points." : "three corners.")));
      return;
    }
    this.keepShape(this.feature?.getGeometry() ?? null);
  }

  private keepShape(shape: Geometry | null): void {
    const toMap = (ring: Coordinate[]): Position[] => ring.map((at) => this.map.toMap(at));
    if (shape instanceof LineString) this.finish(toMap(shape.getCoordinates()));
    else if (shape instanceof Polygon) this.finish([shape.getCoordinates().map(toMap)]);
    else if (shape instanceof MultiPolygon) this.finish(shape.getCoordinates().map((rings) => rings.map(toMap)));
    else this.finish(null);
  }

  close(): void {
    for (const one of this.interactions) this.map.main.removeInteraction(one);
    this.map.main.removeLayer(this.layer);
    this.bar.remove();
    this.cross.remove();
  }
}

/** Douglas and Peucker 1973, from the two corners of the ring that lie furthest apart along its axes on. */
function simplifyRing(ring: Coordinate[], tolerance: number): Coordinate[] {
  const open = ring.slice(0, -1);
  const start = open.reduce((best, at, index) => (at[0] + at[1] < open[best][0] + open[best][1] ? index : best), 0);
  const turned = [...open.slice(start), ...open.slice(0, start)];
  const far = turned.reduce((best, at, index) => (distance(at, turned[0]) > distance(turned[best], turned[0]) ? index : best), 0);
  const halves = [simplifyLine(turned.slice(0, far + 1), tolerance), simplifyLine([...turned.slice(far), turned[0]], tolerance)];
  const made = [...halves[0], ...halves[1].slice(1)];
  return made.length < 4 ? ring : made;
}

function simplifyLine(line: Coordinate[], tolerance: number): Coordinate[] {
  const [first, last] = [line[0], line[line.length - 1]];
  const long = distance(first, last) || 1;
  let worst = 0;
  let most = tolerance;
  for (let at = 1; at < line.length - 1; at++) {
    const off = Math.abs((last[0] - first[0]) * (line[at][1] - first[1]) - (last[1] - first[1]) * (line[at][0] - first[0])) / long;
    if (off > most) [worst, most] = [at, off];
  }
  if (!worst) return [first, last];
  return [...simplifyLine(line.slice(0, worst + 1), tolerance).slice(0, -1), ...simplifyLine(line.slice(worst), tolerance)];
}

function distance(one: Coordinate, other: Coordinate): number {
  return Math.hypot(one[0] - other[0], one[1] - other[1]);
}
