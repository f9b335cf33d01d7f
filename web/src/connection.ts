// What the page says while the server is away. What was typed or drawn stays on the page until it can be stored.

import { h } from "./dom";

const RETRY_MS = 2000;
const AWAY = "The server does not answer. What is stored is safe, and what you typed or drew stays here: start `semicdvl serve` again, or wait.";
const STRANGER = "The server was started again. Open the address that it printed in another tab; then this page goes on, with what you typed or drew.";
let bar: HTMLElement | null = null;
let timer = 0;

/** The server did not answer: say so until it does again. */
export function reportAway(): void {
  show(AWAY);
}

/** Another server runs at this address: its token is a new one, which any tab of this browser may bring. */
export function reportStranger(): void {
  show(STRANGER);
}

/** The server answered: go on. Whoever has something to store listens for `answers-again`. */
export function reportBack(): void {
  if (!bar) return;
  window.clearTimeout(timer);
  bar.remove();
  bar = null;
  window.dispatchEvent(new Event("answers-again"));
}

function show(text: string): void {
  if (bar?.textContent !== text) {
    bar?.remove();
    bar = h("div", { class: "away", role: "alert" }, text);
    document.body.append(bar);
  }
  window.clearTimeout(timer);
  timer = window.setTimeout(() => void ask(), RETRY_MS);
}

async function ask(): Promise<void> {
  try {
    const answer = await fetch("/api/pairs");
    if (answer.status === 401) reportStranger();
    else reportBack();
  } catch {
    reportAway();
  }
}
