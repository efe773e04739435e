// The shared limits: each is drawn like a lane, with the lanes that wait for it, and can be paused and resumed.

import { api, token } from "./api.js";
import { el, keyed, limitOf, numberOf, setAttribute, setText, spanOf, timeOf } from "./dom.js";
import { clock, drawLine, Line } from "./lines.js";

/** Lanes that a row names; the others are counted. */
const NAMED = 6;

/** A section that is hidden while there are no shared limits. */
export function sharedLimits(frame) {
  const lines = new Map();
  const list = el("ul", { class: "lanes shared", role: "list" });
  const status = el("p", { class: "status", role: "status" });
  const node = el(
    "section",
    { class: "card", "aria-labelledby": "shared-title", hidden: true },
    el("div", { class: "bar" }, el("h2", { id: "shared-title", text: "Shared limits" }), el("p", { class: "range", text: "Tasks of all users count against them; lanes that wait take turns" }), status),
    list,
  );
  let rows = [];
  let stale = false;

  async function refresh(signal) {
    stale = false;
    const answer = await api.sharedLimits(signal);
    const shown = new Set(answer.limits.map((one) => one.name));
    for (const name of lines.keys()) if (!shown.has(name)) lines.delete(name);
    for (const one of answer.limits) {
      if (!lines.has(one.name)) lines.set(one.name, new Line());
      lines.get(one.name).update(asLane(one));
    }
    rows = keyed(list, answer.limits, (one) => one.name, (one) => sharedRow(lines.get(one.name), (work, done) => ((stale = true), frame.ask(work, status, done))));
    node.hidden = !rows.length;
  }

  return { node, refresh, draw: (now) => rows.forEach((row) => row.draw(now)), isEmpty: () => !rows.length, isStale: () => stale };
}

/** The shared limit in the form that pictures are drawn from; its policies without its name in theirs. */
function asLane(shared) {
  const policies = shared.policies.map((policy) => ({ ...policy, name: policy.name.slice(shared.name.length + 1) }));
  const next = shared.waiting && shared.next_start_at !== null ? [shared.next_start_at] : [];
  return { ...shared, policies, next_starts: next };
}

/** `ask` runs a request that the user started, with the words for its end. */
function sharedRow(line, ask) {
  const name = el("b", { class: "name" });
  const limits = el("span", { class: "limits" });
  const canvas = el("canvas", { class: "line", role: "img" });
  const waiting = el("b");
  const state = el("span", { class: "state" });
  const waiters = el("p", { class: "waiters" });
  const button = el("button", { type: "button", class: "quiet", hidden: !token.isAdmin() });
  const node = el(
    "li",
    { class: "row" },
    el("div", { class: "user" }, name, limits),
    canvas,
    el("div", { class: "count" }, waiting, state),
    el("div", { class: "below" }, waiters, button),
  );
  let shared;
  button.addEventListener("click", () => {
    const stopped = isStopped(shared);
    const work = () => (stopped ? api.resumeShared(shared.name) : api.pauseShared(shared.name));
    void ask(work, `${shared.name} ${stopped ? "resumed" : "paused"}`);
  });
  const row = {
    node,
    update(newest) {
      shared = newest;
      setText(name, shared.name);
      setText(waiting, shared.waiting ? numberOf(shared.waiting) : "");
      setText(waiters, whoWaits(shared));
      setText(button, isStopped(shared) ? "Resume" : "Pause");
      setAttribute(button, "aria-label", `${isStopped(shared) ? "Resume" : "Pause"} ${shared.name}`);
      setAttribute(node, "class", `row${isStopped(shared) ? " barred" : ""}`);
      setAttribute(state, "title", shared.paused ? null : shared.throttled_reason);
      setAttribute(canvas, "aria-label", describe(shared, line, clock.now()));
      row.write(clock.now()); // before it is drawn, so that the row does not grow
    },
    write(now) {
      const main = line.main();
      const used = main ? `${numberOf(line.used(main, now))} of ${limitOf(main)}` : shared.limits;
      setText(limits, shared.at_once === null ? used : `${used} · ${shared.running} of ${shared.at_once} at once`);
      setText(state, stateOf(shared, now));
    },
    draw(now) {
      drawLine(canvas, line);
      row.write(now);
    },
  };
  return row;
}

const isStopped = (shared) => shared.paused || shared.throttled_until !== null;

function stateOf(shared, now) {
  if (shared.paused) return shared.paused_until ? `paused for ${spanOf(shared.paused_until - now)} more` : "paused";
  if (shared.throttled_until) return `throttled for ${spanOf(shared.throttled_until - now)} more`;
  if (shared.next_start_at === null) return "waiting for one that runs to end";
  if (shared.waiting) return shared.next_start_at > now ? `waiting, next in ${spanOf(shared.next_start_at - now)}` : "waiting, next now";
  return shared.next_start_at > now ? `full, free in ${spanOf(shared.next_start_at - now)}` : "free";
}

/** `Next: ann, bob and about 10 more`. */
function whoWaits({ waiting, waiters }) {
  if (!waiting) return "No lane waits";
  const named = waiters.slice(0, NAMED).map((one) => one.user_id);
  const others = waiting - named.length;
  if (!named.length) return `${numberOf(waiting)} ${waiting === 1 ? "lane waits" : "lanes wait"} for a moment`;
  return `Next: ${named.join(", ")}${others > 0 ? ` and about ${numberOf(others)} more` : ""}`;
}

/** Describes the picture in words, for screen readers. */
function describe(shared, line, now) {
  const windows = line.policies.map((policy) => `${numberOf(line.used(policy, now))} of ${limitOf(policy)} used`);
  const parts = [`Shared limit ${shared.name}`, ...windows, shared.waiting ? `${shared.waiting} waiting` : "nothing waiting"];
  if (shared.paused) parts.push(shared.paused_until ? `paused until ${timeOf(shared.paused_until)}` : "paused");
  else if (shared.throttled_until) parts.push(`throttled until ${timeOf(shared.throttled_until)}: ${shared.throttled_reason}`);
  return parts.join(", ");
}
