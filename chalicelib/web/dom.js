// Creates and updates the page's elements. Inserts API data as text only: nothing here parses markup.

/** Creates an element. `props`: attributes; `text`; `on` with listeners by event. String children become text nodes. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name === "on") Object.entries(value).forEach(([event, listener]) => node.addEventListener(event, listener));
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** Sets text only if it differs, so that selections survive and screen readers stay silent. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Gives `parent` one child per entry, matched by key: existing nodes are updated and keep their focus. */
export function keyed(parent, entries, key, make) {
  const kept = (parent.entries ??= new Map());
  const rows = entries.map((entry) => {
    const id = key(entry);
    if (!kept.has(id)) kept.set(id, make(entry));
    const row = kept.get(id);
    row.update(entry);
    return [id, row];
  });
  const wanted = new Set(rows.map(([id]) => id));
  for (const [id, row] of kept) {
    if (wanted.has(id)) continue;
    row.node.remove();
    kept.delete(id);
  }
  let place = parent.firstElementChild;
  for (const [, { node }] of rows) {
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  return rows.map(([, row]) => row);
}

/** A table with these heads. Its roles are explicit: narrow layouts display rows as grids, which hides tables. */
export function table(kind, titleId, heads, body) {
  const head = (text) => el("th", { scope: "col", role: "columnheader" }, el("span", { class: text === "Actions" ? "unseen" : undefined, text }));
  const top = el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...heads.map(head)));
  setAttribute(body, "role", "rowgroup");
  return el("div", { class: "wide" }, el("table", { class: kind, role: "table", "aria-labelledby": titleId }, top, body));
}

export const tableRow = (...cells) => el("tr", { role: "row" }, ...cells);
export const cell = (kind, ...children) => el("td", { class: kind, role: "cell" }, ...children);

/** Announces text to screen readers. */
export function announce(text) {
  setText(document.getElementById("live"), text);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false });

export const timeOf = (at) => clock.format(at);
export const dayOf = (at) => day.format(at);
/** ISO 8601 in UTC, and epoch milliseconds: for a tooltip. */
export const stampOf = (at) => `${new Date(at).toISOString()} (${at})`;
export const numberOf = (value) => value.toLocaleString();

/** Formats milliseconds: `0.8 s`, `42 s`, `3 min 20 s`, `2 h 5 min`. */
export function spanOf(milliseconds) {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} days`;
}

/** Like `spanOf`, but with milliseconds below a second; accepts null. */
export function shortSpanOf(milliseconds) {
  if (milliseconds === null) return "–";
  return milliseconds < 1000 ? `${Math.max(0, milliseconds)} ms` : spanOf(milliseconds);
}

const UNITS = { seconds: "s", minutes: "min", hours: "h", days: "days" };

/** Formats a limit: `20 a minute`, `5 in 10 s`, `90,000 units a minute`. */
export function limitOf({ name, quota, counts }) {
  const [count, unit] = name.replace(/-units$/, "").split("-");
  const amount = `${numberOf(quota)}${counts === "units" ? " units" : ""}`;
  return unit ? `${amount} in ${count} ${UNITS[unit] ?? unit}` : `${amount} a ${count}`;
}
