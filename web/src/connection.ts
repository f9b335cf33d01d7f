// What the page says while the server is away. What was typed or drawn stays on the page until it can be stored.

import { h } from "./dom";

const RETRY_MS = 2000;
let bar: HTMLElement | null = null;
let timer = 0;

/** The server did not answer: say so until it does again. */
export function reportAway(): void {
  show("The server does not answer. What is stored is safe, and what you typed stays here. Start `semicdvl serve` again or wait.");
  window.clearTimeout(timer);
  timer = window.setTimeout(() => void ask(), RETRY_MS);
}

/** Another server runs at this address: its token is a new one. */
export function reportStranger(): void {
  show("The server was started again and no longer knows this page. Open the address that it printed in this tab; copy first what you typed and did not store.");
}

/** The server answered: go on. Whoever has something to store listens for `answers-again`. */
export function reportBack(): void {
  if (!bar) return;
  bar.remove();
  bar = null;
  window.dispatchEvent(new Event("answers-again"));
}

function show(text: string): void {
  if (bar?.textContent === text) return;
  bar?.remove();
  bar = h("div", { class: "away", role: "alert" }, text);
  document.body.append(bar);
}

async function ask(): Promise<void> {
  try {
    const answer = await fetch("/api/pairs");
    if (answer.status === 401) reportStranger();
    else reportBack();
  } catch {
    timer = window.setTimeout(() => void ask(), RETRY_MS);
  }
}
