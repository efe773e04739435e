// The page of all lanes: totals, one moving line per lane, newest completions.

import { api } from "./api.js";
import { cell, el, keyed, limitOf, numberOf, setAttribute, setText, shortSpanOf, spanOf, stampOf, table, tableRow, timeOf } from "./dom.js";
import { failedList } from "./failed.js";
import { animate, clock, drawAxis, drawLine, Line } from "./lines.js";
import { sharedLimits } from "./shared.js";

const PER_PAGE = 25;
const FEED = 20;
const OLDER_FAILURES = 10;
const FEED_SHOWS = `The ${FEED} tasks that finished last, and ${OLDER_FAILURES} that failed before them, of the lanes that were active last`;
/** A lane without work folds once its newest start is older than any picture shows, ms. */
const FOLDS_AFTER_MS = 75_000;
/** One request in so many is for the shared limits: with some, and without any. */
const SHARED_EVERY = 3;
const NO_SHARED_EVERY = 20;
/** Milliseconds between two answers for each lane that the server read. */
const MS_PER_LANE = 10;

export const linkTo = (user) => `#/lane/${encodeURIComponent(user)}`;

export function overviewPage(frame) {
  const totals = Object.fromEntries(
    ["Waiting", "Running", "Starts a second", "Lateness", "Failed", "Lanes"].map((name) => [name, total(name)]),
  );
  const failed = failedList(frame, (count, note) => {
    setText(totals.Failed.value, count);
    setText(totals.Failed.note, note);
  });
  const search = el("input", { type: "search", id: "search", placeholder: "User id…", autocomplete: "off", spellcheck: "false", maxlength: "128" });
  const order = el("select", { id: "order" }, el("option", { value: "active", text: "Busiest first" }), el("option", { value: "user_id", text: "By user id" }));
  const range = el("p", { class: "range", role: "status" });
  const newer = el("button", { type: "button", text: "Previous", disabled: true });
  const older = el("button", { type: "button", text: "Next", disabled: true });
  const axis = el("canvas", { class: "axis", "aria-hidden": "true" });
  const list = el("ul", { class: "lanes", role: "list" });
  const idle = el("ul", { class: "idle", role: "list" });
  const idleTitle = el("h3", { text: "Idle" });
  const idleSection = el("div", { hidden: true }, idleTitle, idle);
  const empty = el("div", { class: "empty", hidden: true });
  const pictures = el("div", {}, legend(), el("div", { class: "row head", "aria-hidden": "true" }, el("span"), axis, el("span")), list);
  const shared = sharedLimits(frame);
  const feed = el("tbody");
  const feedTable = table("feed", "feed-title", ["At", "User", "Task", "No.", "State", "Late"], feed);
  const noFeed = el("p", { class: "hint", text: "No completions yet." });
  const node = el(
    "div",
    { class: "page loading" },
    el("h1", { class: "unseen", text: "All lanes" }),
    el("dl", { class: "totals", "aria-label": "Totals" }, ...Object.values(totals).map((one) => one.node)),
    shared.node,
    el(
      "section",
      { class: "card", "aria-labelledby": "lanes-title" },
      el(
        "div",
        { class: "bar" },
        el("h2", { id: "lanes-title", text: "Lanes" }),
        el("label", { class: "unseen", for: "search", text: "Find users by the start of their id" }),
        search,
        el("label", { class: "unseen", for: "order", text: "Order" }),
        order,
        range,
        el("div", { class: "pager" }, newer, older),
      ),
      pictures,
      idleSection,
      empty,
    ),
    failed.node,
    el(
      "section",
      { class: "card", "aria-labelledby": "feed-title" },
      el("div", { class: "bar" }, el("h2", { id: "feed-title", text: "Newest completions" }), el("p", { class: "range", text: FEED_SHOWS })),
      feedTable,
      noFeed,
    ),
  );

  /** Rows outside the viewport are not drawn. */
  const sight = new IntersectionObserver((seen) => seen.forEach(({ target, isIntersecting }) => (target.inSight = isIntersecting)), { rootMargin: "200px" });
  const lines = new Map();
  const completions = new Map();
  let rows = [];
  /** User ids after which the pages up to this one begin. */
  let cursors = [""];
  let next = null;
  let typing;
  let hasLanes = false;
  let wantsLanes = false;
  let sinceShared = NO_SHARED_EVERY;

  const turn = (to) => {
    cursors = to;
    wantsLanes = true;
    frame.refresh();
  };
  newer.addEventListener("click", () => cursors.length > 1 && turn(cursors.slice(0, -1)));
  older.addEventListener("click", () => next !== null && next !== cursors.at(-1) && turn([...cursors, next]));
  order.addEventListener("change", () => turn([""]));
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => turn([""]), 200);
  });

  const isSharedDue = () => sinceShared >= (shared.isEmpty() ? NO_SHARED_EVERY : SHARED_EVERY);

  /** The part of the page whose turn it is. */
  function due() {
    if (shared.isStale()) return refreshShared;
    if (!hasLanes || wantsLanes) return refreshLanes;
    if (isSharedDue()) return refreshShared;
    return failed.isDue() ? refreshFailed : refreshLanes;
  }

  /** One request at a time, one a second. */
  async function refresh(signal) {
    const pause = await due()(signal);
    if (!node.classList.contains("loading")) return pause;
    if (!hasLanes || isSharedDue() || failed.isDue()) return 0;
    node.classList.remove("loading"); // all parts appear together, so that nothing moves
    return pause;
  }

  async function refreshShared(signal) {
    await shared.refresh(signal);
    sinceShared = 1;
    return 1000;
  }

  async function refreshFailed(signal) {
    await failed.refresh(signal);
    return 1000;
  }

  async function refreshLanes(signal) {
    wantsLanes = false;
    const wanted = search.value.trim();
    const answer = await api.lanes({ search: wanted, order: order.value, before: cursors.at(-1), limit: PER_PAGE }, signal);
    clock.set(answer.now);
    next = answer.next;
    showTotals(totals, answer.totals);
    showLanes(answer.lanes);
    showRange(answer, wanted);
    showFeed(answer.completions);
    hasLanes = true;
    sinceShared += 1;
    const moves = answer.lanes.some((lane) => lane.backlog || lane.running || answer.now - (lane.starts[0] ?? 0) < 10_000);
    // The more lanes the server has read, the longer it is left alone.
    return Math.max(moves ? 1000 : 2000, answer.totals.lanes * MS_PER_LANE);
  }

  function showLanes(lanes) {
    const shown = new Set(lanes.map((lane) => lane.user_id));
    for (const user of lines.keys()) if (!shown.has(user)) lines.delete(user);
    for (const lane of lanes) {
      if (!lines.has(lane.user_id)) lines.set(lane.user_id, new Line());
      lines.get(lane.user_id).update(lane);
    }
    const busy = lanes.filter((lane) => !isIdle(lane));
    rows = keyed(list, inPlace(busy), (lane) => lane.user_id, (lane) => laneRow(lines.get(lane.user_id), sight));
    const folded = keyed(idle, lanes.filter(isIdle), (lane) => lane.user_id, idleLane);
    pictures.hidden = !rows.length;
    idleSection.hidden = !folded.length;
  }

  /** Busy lanes change ranks all the time: rows that stay on the page keep their places, and so does a focused row. */
  function inPlace(lanes) {
    const keeps = order.value === "active" || list.contains(document.activeElement);
    if (!keeps || !list.entries) return lanes;
    const places = new Map([...list.entries.keys()].map((user, place) => [user, place]));
    return [...lanes].sort((a, b) => (places.get(a.user_id) ?? Infinity) - (places.get(b.user_id) ?? Infinity));
  }

  function showRange(answer, wanted) {
    const skipped = (cursors.length - 1) * PER_PAGE;
    const count = numberOf(skipped + answer.totals.lanes);
    const all = order.value === "active" ? ` of ${count}${answer.totals.complete ? "" : "+"}` : next === null ? ` of ${count}` : "";
    setText(range, answer.lanes.length ? `${numberOf(skipped + 1)}–${numberOf(skipped + answer.lanes.length)}${all}` : "");
    newer.disabled = cursors.length === 1;
    older.disabled = next === null;
    newer.parentElement.hidden = newer.disabled && older.disabled;
    empty.hidden = answer.lanes.length > 0;
    if (!empty.hidden) empty.replaceChildren(...nothing(wanted));
  }

  function showFeed(newest) {
    for (const one of newest) completions.set(one.task_id, one);
    const shown = [...completions.values()].sort((a, b) => b.completed_at - a.completed_at);
    const failures = shown.slice(FEED).filter((one) => one.state === "failed");
    const kept = [...shown.slice(0, FEED), ...failures.slice(0, OLDER_FAILURES)];
    for (const one of shown) if (!kept.includes(one)) completions.delete(one.task_id);
    keyed(feed, kept, (one) => one.task_id, completionRow);
    noFeed.hidden = shown.length > 0;
    feedTable.hidden = !shown.length;
  }

  const stop = animate(() => {
    drawAxis(axis);
    const now = clock.now();
    for (const row of rows) if (row.node.inSight) row.draw(now);
    shared.draw(now);
  });

  return { node, refresh, isOverview: true, leave: () => (clearTimeout(typing), sight.disconnect(), stop()) };
}

function total(name) {
  const value = el("dd", { text: "–" });
  const note = el("dd", { class: "detail" });
  return { node: el("div", {}, el("dt", { text: name }), value, note), value, note };
}

function showTotals(totals, found) {
  const put = (name, value, note = "") => {
    setText(totals[name].value, value);
    setText(totals[name].note, note);
  };
  put("Waiting", numberOf(found.waiting));
  put("Running", numberOf(found.running));
  put("Starts a second", found.starts_per_second.toFixed(1), "last 10 s");
  put("Lateness", shortSpanOf(found.late_ms), found.worst_late_ms === null ? "newest starts" : `at worst ${shortSpanOf(found.worst_late_ms)}`);
  put("Lanes", numberOf(found.lanes) + (found.complete ? "" : "+"), found.paused ? `${numberOf(found.paused)} paused` : "");
}

export function legend() {
  const item = (kind, text) => el("span", { class: "key" }, el("i", { class: kind, "aria-hidden": "true" }), text);
  return el(
    "p",
    { class: "legend" },
    item("start", "started"),
    item("plan", "will start"),
    item("band", "starts in the window"),
    item("band full", "window full"),
    item("quota", "limit"),
    item("barred", "paused or throttled"),
  );
}

function nothing(wanted) {
  if (wanted) return [el("p", { text: `No user id starts with “${wanted}”.` })];
  const example = `curl -d '{"user_id": "ann"}' -H 'Content-Type: application/json' ${new URL("api/v1/task", document.baseURI)}`;
  return [el("p", { text: "No lanes yet. A user’s lane appears with the first task:" }), el("code", { text: example })];
}

function laneRow(line, sight) {
  const link = el("a", { class: "name" });
  const limits = el("span", { class: "limits" });
  const canvas = el("canvas", { class: "line", role: "img" });
  const backlog = el("b");
  const state = el("span", { class: "state" });
  const node = el(
    "li",
    { class: "row" },
    el("div", { class: "user" }, link, limits),
    canvas,
    el("div", { class: "count" }, backlog, state),
  );
  sight.observe(node);
  let lane;
  const row = {
    node,
    update(newest) {
      lane = newest;
      setText(link, lane.user_id);
      setAttribute(link, "href", linkTo(lane.user_id));
      setText(backlog, lane.backlog ? numberOf(lane.backlog) : "");
      setAttribute(node, "class", `row${isBarred(lane) ? " barred" : ""}`);
      setAttribute(state, "title", lane.paused || !lane.throttled_reason ? stateOf(lane, clock.now()) : lane.throttled_reason);
      setAttribute(canvas, "aria-label", describe(lane, line, clock.now()));
      row.write(clock.now()); // also while the row is out of sight, where it is not drawn
    },
    write(now) {
      const main = line.main();
      const long = main ? `${numberOf(line.used(main, now))} of ${limitOf(main)}` : lane.limits;
      setText(limits, lane.own_limits ? `${long} · own limits` : long);
      setText(state, stateOf(lane, now));
    },
    draw(now) {
      drawLine(canvas, line);
      row.write(now);
    },
  };
  return row;
}

/** True for a lane whose picture would be empty. */
function isIdle(lane) {
  return !lane.backlog && !lane.running && !isBarred(lane) && lane.now - (lane.starts[0] ?? 0) > FOLDS_AFTER_MS;
}

/** A lane without a picture. */
function idleLane() {
  const link = el("a", { class: "name" });
  const state = el("span", { class: "state" });
  return {
    node: el("li", {}, link, state),
    update(lane) {
      setText(link, lane.user_id);
      setAttribute(link, "href", linkTo(lane.user_id));
      setText(state, stateOf(lane, lane.now));
    },
  };
}

/** True for a lane that starts nothing: paused or throttled. */
export const isBarred = (lane) => lane.paused || lane.throttled_until !== null;

export function stateOf(lane, now) {
  if (lane.paused) return lane.paused_until ? `paused for ${spanOf(lane.paused_until - now)} more` : "paused";
  if (lane.throttled_until) return `throttled for ${spanOf(lane.throttled_until - now)} more`;
  if (lane.backlog) {
    if (lane.waits_for) return `waits for ${lane.waits_for.name}${lane.waits_for.before ? `, about ${numberOf(lane.waits_for.before)} before it` : ""}`;
    const next = nextStart(lane, now);
    if (next > now) return `waiting, next in ${spanOf(next - now)}`;
    if (!isFull(lane)) return "waiting, next now";
    return lane.at_once > 1 ? `waiting, ${lane.slots_in_use} running` : "waiting, one running";
  }
  if (lane.running) return lane.at_once > 1 ? `${lane.slots_in_use} of ${lane.at_once} running` : "running";
  const last = lane.starts[0];
  return last ? `last ${spanOf(Math.max(0, now - last))} ago` : "idle";
}

/** True while as many tasks run as may at once. */
export const isFull = (lane) => lane.slots_in_use >= lane.at_once;

/** Start of the next waiting task, at most now if it is overdue; null if unknown. */
export const nextStart = (lane, now) => lane.next_starts.find((at) => at > now && !isFull(lane)) ?? lane.next_start_at;

/** Describes the picture in words, for screen readers. */
export function describe(lane, line, now) {
  const windows = lane.policies.map((policy) => `${numberOf(line.used(policy, now))} of ${limitOf(policy)} used`);
  const parts = [`Lane of ${lane.user_id}`, ...windows, lane.backlog ? `${lane.backlog} waiting` : "nothing waiting"];
  if (lane.paused) parts.push(lane.paused_until ? `paused until ${timeOf(lane.paused_until)}` : "paused");
  else if (lane.throttled_until) parts.push(`throttled until ${timeOf(lane.throttled_until)}: ${lane.throttled_reason}`);
  else if (lane.next_start_at) parts.push(`next start at ${timeOf(lane.next_start_at)}`);
  if (lane.starts.length) parts.push(`last start at ${timeOf(lane.starts[0])}`);
  return parts.join(", ");
}

export function pill(state) {
  return el("span", { class: `pill ${state}`, text: state });
}

function completionRow(one) {
  const link = el("a", { href: linkTo(one.user_id), text: one.user_id });
  const error = one.error ? [el("span", { class: "error", title: one.error, text: one.error })] : [];
  const node = tableRow(
    el("td", { class: "number", role: "cell", text: timeOf(one.completed_at), title: stampOf(one.completed_at) }),
    cell("id", link),
    cell("name", one.task),
    cell("number", String(one.seq)),
    cell("end", pill(one.state), ...error),
    cell("number", shortSpanOf(one.late_ms)),
  );
  return { node, update() {} };
}
