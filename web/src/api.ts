// The REST interface of the server; its OpenAPI description is at /api/openapi.json.

import { reportAway, reportBack, reportStranger } from "./connection";

export type State = "open" | "accepted" | "rejected" | "skipped";
export type Position = [number, number];

export interface Change {
  id: number;
  version: number;
  live: boolean;
  state: State;
  source: string;
  parents: number[];
  kind: string | null;
  from_class: string | null;
  to_class: string | null;
  score: number | null;
  uncertainty: number | null;
  random_rank: number;
  area: number;
  edited: boolean;
  comment: string;
  reviewer: string;
  decided: string;
  geometry: { type: "MultiPolygon"; coordinates: Position[][][] };
}

export interface Coloured {
  name: string;
  colour: string;
}

export interface PairInfo {
  name: string;
  title: string;
  key: string;
  width_px: number;
  height_px: number;
  transform: [number, number, number, number, number, number];
  crs: string | null;
  crs_name: string | null;
  gsd_m: number | null;
  area_unit: string;
  tile_px: number;
  levels: number;
  layers: string[];
  classes: Coloured[];
  kinds: Coloured[];
  detector: string;
  notes: string[];
}

export interface PairRow {
  name: string;
  failure: string | null;
  objects: number | null;
  states: Record<State, number> | null;
  detector: string | null;
}

export interface PairList {
  folder: string;
  mode: "review" | "label";
  labels: boolean;
  reviewer: string;
  version: string;
  pairs: PairRow[];
}

export interface Written {
  action: string;
  changes: Change[];
  notes: string[];
  states: Record<State, number>;
}

export interface Interval {
  value: number;
  low: number;
  high: number;
}

export interface Estimate {
  text: string;
  unit: string;
  objects: { total: number; decided: number; sampled: number; right: number; precision: Interval | null; waits_for: number | null };
  area: {
    places: number;
    checked: number;
    open_places: number;
    precision: Interval | null;
    recall: Interval | null;
    changed_area: Interval | null;
    mapped_area: number;
  } | null;
}

export interface TrainingSet {
  folder: string;
  patches: number;
  accepted: number;
  rejected: number;
  corrected: number;
  painted: number;
  commands: string[];
}

export interface Place {
  rank: number;
  x: number;
  y: number;
  truth: number | null;
  given: number | null;
  version: number;
}

export interface PatchRow {
  name: string;
  labelled: boolean;
  note: string;
}

export interface LabelFolder {
  folder: string;
  labelled: number;
  patches: PatchRow[];
  commands: string[];
  message: string;
}

export interface Patch {
  name: string;
  width_px: number;
  height_px: number;
  labelled: boolean;
  version: string;
}

/** An answer that is no success; `status` 409: somebody else wrote in the meantime. */
export class Refusal extends Error {
  constructor(
    public status: number,
    message: string,
  ) {
    super(message);
  }
}

const WINDOW = nameWindow();

/** The name of this window, by which undo finds its actions; it survives a reload, and a copy of the tab has another. */
function nameWindow(): string {
  const [visit] = performance.getEntriesByType("navigation") as PerformanceNavigationTiming[];
  const before = visit?.type === "reload" ? sessionStorage.getItem("semicdvl-window") : null;
  const name = before ?? Math.random().toString(36).slice(2, 12) + Date.now().toString(36);
  sessionStorage.setItem("semicdvl-window", name);
  return name;
}

let reviewer: string | null = localStorage.getItem("semicdvl-reviewer");

export function getReviewer(): string | null {
  return reviewer;
}

export function setReviewer(name: string): void {
  reviewer = name.trim() || null;
  if (reviewer) localStorage.setItem("semicdvl-reviewer", reviewer);
  else localStorage.removeItem("semicdvl-reviewer");
}

export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, init);
  } catch {
    reportAway();
    throw new Refusal(0, `${(init.method ?? "GET") === "GET" ? "" : "Not stored: "}the server does not answer.`);
  }
  if (answer.status === 401) reportStranger();
  else reportBack();
  if (answer.ok) return answer;
  let text = `The server answered ${answer.status}.`;
  try {
    const detail = (await answer.json()).detail;
    text = typeof detail === "string" ? detail : detail.map((one: { msg: string }) => one.msg).join("; ");
  } catch {
    // not ours: the status alone has to do
  }
  throw new Refusal(answer.status, text);
}

export async function get<T>(path: string): Promise<T> {
  return (await request(path)).json();
}

/** Send a change, signed with the reviewer and this window. */
export async function send<T>(method: string, path: string, body: object = {}): Promise<T> {
  const signed = { ...body, window: WINDOW, ...(reviewer ? { reviewer } : {}) };
  const headers = { "Content-Type": "application/json" };
  return (await request(path, { method, headers, body: JSON.stringify(signed) })).json();
}

export function pairPath(pair: string): string {
  return `/api/pairs/${encodeURIComponent(pair)}`;
}
