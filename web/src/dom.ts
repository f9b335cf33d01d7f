// Elements are made of nodes and text, never of HTML: what comes from a file can only ever be read.

type Child = Node | string | null;
type Attributes = Record<string, string | number | boolean | ((event: any) => void)>;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child): child is Node | string => child !== null));
  return element;
}

/** A button with its key beside its word. */
export function keyButton(word: string, key: string, act: () => void, kind = ""): HTMLButtonElement {
  const shown = key ? h("kbd", { "aria-hidden": "true" }, key) : null;
  const options: Attributes = { type: "button", class: kind, click: act };
  if (key) options["aria-keyshortcuts"] = key;
  return h("button", options, word, shown);
}

export function option(value: string, word: string = value): HTMLOptionElement {
  return h("option", { value }, word);
}

export function labelled(word: string, input: HTMLElement): HTMLLabelElement {
  return h("label", { class: "field" }, h("span", {}, word), input);
}

/** Commands in their order, each with what it is for and a button that copies it. */
export function listCommands(commands: string[], words: string[]): HTMLElement {
  const rows = commands.map((command, at) => {
    const copy = h("button", { type: "button", class: "copy", "aria-label": `Copy: ${words[at] ?? "command"}`, click: () => void copyText(command) }, "Copy");
    return h("li", {}, h("span", {}, words[at] ?? "Then"), copy, h("code", {}, command));
  });
  return h("ol", { class: "commands" }, ...rows);
}

async function copyText(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    tell("Copied. Paste it into a terminal.");
  } catch {
    tell("The browser does not let this page copy. Select the command and copy it.", "problem");
  }
}

let toastTimer = 0;

/** Say something for some seconds; screen readers say it, too. */
export function tell(text: string, kind: "note" | "problem" = "note"): void {
  const box = document.getElementById("toast") ?? document.body.appendChild(h("div", { id: "toast", role: "status" }));
  box.textContent = text;
  box.className = `shown ${kind}`;
  window.clearTimeout(toastTimer);
  toastTimer = window.setTimeout(() => (box.className = kind), kind === "problem" ? 9000 : 3500);
}

/** Whether keys are for a text that is being written. */
export function isTyping(event: KeyboardEvent): boolean {
  const target = event.target as HTMLElement | null;
  if (!target || event.ctrlKey || event.metaKey || event.altKey) return true;
  if (target instanceof HTMLInputElement) return !["checkbox", "radio", "button", "range"].includes(target.type);
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}

/** Show the keys; any key closes it. */
export function showHelp(title: string, rows: [string, string][]): void {
  document.querySelector("dialog")?.remove();
  const list = h("dl", {}, ...rows.flatMap(([key, word]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, word)]));
  const close = h("button", { type: "button", autofocus: true, click: () => dialog.close() }, "Close");
  const dialog = h("dialog", { "aria-label": title }, h("h2", {}, title), list, close);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

let byPointer = false;
document.addEventListener("pointerdown", () => (byPointer = true), true);
document.addEventListener("keydown", () => (byPointer = false), true);
/** What was chosen with the mouse or a finger gives the keys back to the page; Escape and Enter do so for every field. */
document.addEventListener("change", (event) => {
  if (byPointer && event.target instanceof HTMLSelectElement) event.target.blur();
});
document.addEventListener("keydown", (event) => {
  const field = document.activeElement;
  if (!(field instanceof HTMLElement)) return;
  if (event.key === "Escape" && field.matches("input, select, textarea")) field.blur();
  if (event.key === "Enter" && field.matches("input, select")) field.blur();
});
