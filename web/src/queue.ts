// Which changes are shown in which order.

import type { Change, State } from "./api";

export const ORDERS = {
  random: "random",
  uncertainty: "most uncertain first",
  score: "highest score first",
  low: "lowest score first",
  area: "largest first",
  small: "smallest first",
} as const;
export type Order = keyof typeof ORDERS;

export interface Filter {
  order: Order;
  state: State | "all" | "todo";
  kind: string;
  name: string;
  least: number;
}

const KEYS: Record<Order, (change: Change) => number> = {
  uncertainty: (change) => -(change.uncertainty ?? 2),
  score: (change) => -(change.score ?? 2),
  low: (change) => change.score ?? 2,
  area: (change) => -change.area,
  small: (change) => change.area,
  random: (change) => change.random_rank,
};

/** The changes that a filter lets through, in its order; the one that is looked at stays until it is left. */
export function arrange(changes: Iterable<Change>, filter: Filter): number[] {
  const key = KEYS[filter.order];
  return [...changes]
    .filter((change) => change.live && passes(change, filter))
    .sort((one, other) => key(one) - key(other) || one.id - other.id)
    .map((change) => change.id);
}

export function passes(change: Change, filter: Filter): boolean {
  const isTodo = change.state === "open" || change.state === "skipped";
  return (
    (filter.state === "all" || (filter.state === "todo" ? isTodo : change.state === filter.state)) &&
    (filter.kind === "" || change.kind === filter.kind) &&
    (filter.name === "" || change.from_class === filter.name || change.to_class === filter.name) &&
    change.area >= filter.least
  );
}
