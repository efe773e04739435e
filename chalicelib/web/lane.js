// The page of one lane: pace, actions, tasks.

import { api, Problem, token } from "./api.js";
import { announce, dayOf, el, keyed, limitOf, numberOf, setAttribute, setText, shortSpanOf, spanOf, stampOf, timeOf } from "./dom.js";
import { animate, clock, drawAxis, drawBand, drawTrack, Line } from "./lines.js";
import { describe, isBarred, isFull, legend, nextStart, pill, stateOf } from "./overview.js";
import { scheduleList } from "./schedules.js";

const PER_PAGE = 25;
/** Turns of the page from one look at the schedules to the next; a turn asks once. */
const SCHEDULE_TURNS = 20;
const STATES = ["queued", "running", "succeeded", "failed", "cancelled"];
const CLIPPED = 60;

export function lanePage(user, frame) {
  const line = new Line();
  let lane = null;
  let turn = 0;

  const state = el("p", { class: "state" });
  const pause = el("button", { type: "button", text: "Pause" });
  const resume = el("button", { type: "button", text: "Resume", hidden: true });
  const empty = el("button", { type: "button", text: "Empty" });
  const laneStatus = el("p", { class: "status", role: "status" });
  const picture = el("div", { class: "picture", role: "img", "aria-label": `Lane of ${user}` });
  const axis = el("canvas", { class: "axis" });
  const bands = el("div");
  const track = el("canvas", { class: "track" });
  picture.append(el("div", { class: "band head" }, el("span"), axis), bands, el("div", { class: "band" }, el("span", { class: "limit", text: "Starts" }), track));

  const facts = el("dl", { class: "totals small" });
  const fact = (name) => {
    const value = el("dd", { text: "–" });
    facts.append(el("div", {}, el("dt", { text: name }), value));
    return value;
  };
  const waiting = fact("Waiting");
  const running = fact("Running");
  const upcoming = fact("Next start");
  const open = fact("Free for a new task");

  pause.addEventListener("click", () => act(() => api.pause(user, null), "Paused"));
  resume.addEventListener("click", () => act(() => api.resume(user), "Resumed"));
  empty.addEventListener("click", () => {
    if (!confirm(`Cancel all waiting and scheduled tasks of ${user}? A running one goes on.`)) return;
    void act(() => api.empty(user), emptiedText);
  });

  async function act(work, done) {
    const answer = await frame.ask(work, laneStatus, done);
    if (!answer) return;
    const hadFocus = [pause, resume].includes(document.activeElement);
    showLane(answer);
    if (hadFocus) (pause.hidden ? resume : pause).focus();
  }

  const tasks = taskList(user, frame, (found) => line.learn(found));
  const schedules = scheduleList(user);
  const limits = limitsForm(user, frame, showLane);
  const isAdmin = token.isAdmin();
  const control = isAdmin ? [pause, resume, pauseUntil((at) => act(() => api.pause(user, at), `Paused until ${dayOf(at)}`))] : [];
  const node = el(
    "div",
    { class: "page loading" },
    el(
      "div",
      { class: "title" },
      el("div", {}, el("a", { href: "#/", class: "back", text: "All lanes" }), el("h1", { text: user }), state),
      el("div", { class: "actions" }, ...control, empty),
      laneStatus,
    ),
    facts,
    el("section", { class: "card", "aria-labelledby": "pace-title" }, el("div", { class: "bar" }, el("h2", { id: "pace-title", text: "Pace" })), legend(), picture, pictureHint()),
    el("div", { class: "two" }, submitForm(user, frame, () => lane), ...(isAdmin ? [limits] : [])),
    tasks.node,
    schedules.node,
  );

  function showLane(newest) {
    lane = newest;
    clock.set(lane.now);
    line.update(lane);
    keyed(bands, lane.policies, (policy) => policy.name, () => bandRow(line));
    setAttribute(picture, "aria-label", describe(lane, line, clock.now()));
    setAttribute(state, "class", `state${isBarred(lane) ? " barred" : ""}`);
    setText(waiting, numberOf(lane.backlog));
    setText(running, lane.at_once > 1 ? `${lane.slots_in_use} of ${lane.at_once}` : String(lane.slots_in_use));
    pause.hidden = lane.paused && !lane.paused_until;
    resume.hidden = !lane.paused;
    limits.update(lane);
  }

  /** Fetches the lane and its tasks alternately, now and then the schedules: one request at a time, one a second. */
  async function refresh(signal) {
    const isBusy = lane !== null && (lane.backlog || lane.running);
    // At first at once; later not while tasks come and go.
    if (turn === 2 || (turn % SCHEDULE_TURNS === 2 && !isBusy)) {
      turn += 2;
      await schedules.refresh(signal);
    } else if (turn++ % 2 === 0 || lane === null) showLane(await api.lane(user, signal));
    else await tasks.refresh(signal);
    if (turn === 1) return 0;
    node.classList.remove("loading"); // the lane and its tasks appear together, so that nothing moves
    if (turn === 2) return 0;
    return lane.backlog || lane.running ? 1000 : 1500;
  }

  const stop = animate(() => {
    const now = clock.now();
    drawAxis(axis);
    for (const { draw } of bands.entries?.values() ?? []) draw(now);
    drawTrack(track, line);
    if (!lane) return;
    setText(state, stateOf(lane, now) + (lane.throttled_reason && !lane.paused ? `: ${lane.throttled_reason}` : ""));
    const next = nextStart(lane, now);
    setText(upcoming, !next ? "–" : next > now ? `in ${spanOf(next - now)}` : isFull(lane) ? "in turn" : "now");
    setText(open, lane.open_at === null ? "–" : lane.open_at > now ? `in ${spanOf(lane.open_at - now)}` : lane.backlog ? "in turn" : "now");
    tasks.draw(now, Boolean(lane.running));
    schedules.draw(now);
  });

  return { node, refresh, leave: stop };
}

function pictureHint() {
  const text = "A band counts the starts, or their units, in the window that ends at each moment. Planned starts are right of now. Where a limit counts units, a start is as high as its units.";
  return el("p", { class: "hint", text });
}

function bandRow(line) {
  const name = el("b");
  const used = el("span", { class: "used" });
  const canvas = el("canvas", { class: "window" });
  let policy;
  return {
    node: el("div", { class: "band" }, el("div", { class: "limit" }, name, used), canvas),
    update(newest) {
      policy = newest;
      setText(name, limitOf(policy));
    },
    draw(now) {
      setText(used, `${numberOf(line.used(policy, now))} used`);
      drawBand(canvas, line, policy);
    },
  };
}

function pauseUntil(set) {
  const field = el("input", { type: "datetime-local", id: "until", step: "1", required: true });
  const form = el("form", {}, el("label", { for: "until", text: "Pause until" }), field, el("button", { type: "submit", text: "Set" }));
  const box = el("details", { class: "menu" }, el("summary", { text: "Pause until…" }), form);
  box.addEventListener("toggle", () => {
    if (!box.open) return;
    const soon = new Date(Date.now() + 600_000);
    field.value = new Date(soon.getTime() - soon.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !box.open) return;
    box.open = false;
    box.firstElementChild.focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    box.open = false;
    box.firstElementChild.focus();
    set(new Date(field.value).getTime());
  });
  return box;
}

function submitForm(user, frame, current) {
  const task = el("input", { id: "task", value: "log", required: true, maxlength: "64", pattern: "[A-Za-z0-9._\\-]+", spellcheck: "false", autocapitalize: "off" });
  const payload = el("textarea", { id: "payload", rows: "3", spellcheck: "false", placeholder: "{}", "aria-describedby": "payload-hint" });
  const units = el("input", { id: "units", type: "number", min: "1", max: "1000000", placeholder: "as defined" });
  const count = el("input", { id: "count", type: "number", min: "1", max: "100", value: "1", required: true });
  const status = el("p", { class: "status", role: "status" });
  const form = el(
    "form",
    { class: "card form", "aria-labelledby": "submit-title", id: "submit-form" },
    el("h2", { id: "submit-title", text: "Submit" }),
    el("div", { class: "fields" }, field("Task", task), field("How many", count), field("Units of each", units)),
    field("Payload", payload),
    el("p", { class: "hint", id: "payload-hint", text: "JSON, or empty." }),
    el("div", { class: "actions" }, el("button", { type: "submit", class: "main", text: "Submit" }), status),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    let value = null;
    try {
      value = payload.value.trim() ? JSON.parse(payload.value) : null;
    } catch (error) {
      status.classList.add("bad");
      setText(status, `The payload is not valid JSON: ${error.message}`);
      payload.focus();
      return;
    }
    const order = { task: task.value, payload: value, ...(units.value && { units: Number(units.value) }) };
    const orders = Array.from({ length: Number(count.value) }, () => order);
    void frame.ask(() => api.submit(user, orders), status, (answer) => submitted(answer, current()?.paused));
  });
  return form;
}

function submitted({ tasks }, isPaused) {
  const last = tasks.at(-1);
  const subject = tasks.length === 1 ? `Task ${last.seq}` : `${tasks.length} tasks`;
  if (isPaused) return `${subject} queued behind the pause`;
  return last.delay_ms > 0 ? `${subject} queued, the last starts in about ${spanOf(last.delay_ms)}` : `${subject} queued, starting now`;
}

function field(text, input) {
  return el("div", { class: "field" }, el("label", { for: input.id, text }), input);
}

function limitsForm(user, frame, show) {
  const limits = el("input", { id: "limits", required: true, maxlength: "500", spellcheck: "false", "aria-describedby": "limits-hint" });
  const reset = el("button", { type: "button", text: "Use the default" });
  const group = el("p", { class: "hint", id: "group", hidden: true });
  const status = el("p", { class: "status", role: "status" });
  const form = el(
    "form",
    { class: "card form", id: "limits-form", "aria-labelledby": "limits-title" },
    el("h2", { id: "limits-title", text: "Limits" }),
    field("All limits apply together", limits),
    el("p", { class: "hint", id: "limits-hint", text: "For example 1/second; 20/minute. Applies from the next start on, to waiting tasks too." }),
    group,
    el("div", { class: "actions" }, el("button", { type: "submit", class: "main", text: "Change" }), reset, status),
  );
  let shown = "";
  form.update = (lane) => {
    // Keep text that the user is editing.
    if (limits.value === shown) limits.value = lane.limits;
    shown = lane.limits;
    reset.hidden = !lane.own_limits;
    group.hidden = !lane.group;
    setText(group, `Takes turns at shared limits with the group ${lane.group}.`);
  };
  const send = async (work, done) => {
    const answer = await frame.ask(work, status, done);
    if (!answer) return;
    shown = limits.value = answer.limits;
    show(answer);
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void send(() => api.setLimits(user, limits.value), "Applies from the next start on");
  });
  reset.addEventListener("click", () => {
    limits.focus();
    void send(() => api.resetLimits(user), "Default limits apply");
  });
  return form;
}

/** `learn` is called with the tasks of each answer. */
function taskList(user, frame, learn) {
  const filter = el("select", { id: "state" }, el("option", { value: "", text: "All states" }), ...STATES.map((one) => el("option", { value: one, text: one })));
  const first = el("button", { type: "button", text: "Newest", disabled: true });
  const older = el("button", { type: "button", text: "Older", disabled: true });
  const status = el("p", { class: "status", role: "status" });
  const body = el("tbody", { role: "rowgroup" });
  const empty = el("p", { class: "hint", text: "No tasks." });
  const changes = new Map();
  const changed = (task) => changes.set(task.state, [...(changes.get(task.state) ?? []), nameOf(task, "Task")]);
  let before = null;
  let next = null;
  const go = (to) => {
    before = to;
    void refreshNow();
  };
  filter.addEventListener("change", () => go(null));
  first.addEventListener("click", () => go(null));
  older.addEventListener("click", () => go(next));

  async function refresh(signal) {
    const query = { limit: PER_PAGE, ...(filter.value && { state: filter.value }), ...(before && { before }) };
    const asked = JSON.stringify(query);
    const answer = await api.tasks(user, query, signal);
    learn(answer.tasks);
    if (asked !== JSON.stringify({ limit: PER_PAGE, ...(filter.value && { state: filter.value }), ...(before && { before }) })) return;
    next = answer.next;
    first.disabled = before === null;
    older.disabled = next === null;
    first.parentElement.hidden = first.disabled && older.disabled;
    changes.clear();
    keyed(body, answer.tasks, (task) => task.task_id, () => taskRow(cancel, redrive, changed));
    if (changes.size) announce([...changes].map(describeChange).join(", "));
    empty.hidden = answer.tasks.length > 0;
  }

  async function refreshNow() {
    try {
      await refresh();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setText(status, error.message);
    }
  }

  async function cancel(task) {
    const done = (answer) => `${nameOf(task, "Task")} ${answer.state === "cancelled" ? "cancelled" : "asked to stop"}`;
    if (await frame.ask(() => api.cancel(user, task.task_id), status, done)) await refreshNow();
  }

  async function redrive(task) {
    const done = (answer) => `${nameOf(task, "Task")} submitted again as number ${answer.seq}`;
    if (await frame.ask(() => api.redrive(user, task.task_id), status, done)) await refreshNow();
  }

  // Explicit roles: the narrow layout displays rows as grids, which hides the table from screen readers.
  const heads = ["No.", "Task", "State", "Start", "Took", "Outcome", "Actions"];
  const head = (text) => el("th", { scope: "col", role: "columnheader" }, el("span", { class: text === "Actions" ? "unseen" : undefined, text }));
  const node = el(
    "section",
    { class: "card", "aria-labelledby": "tasks-title" },
    el(
      "div",
      { class: "bar" },
      el("h2", { id: "tasks-title", text: "Tasks" }),
      el("label", { class: "unseen", for: "state", text: "Show tasks in this state" }),
      filter,
      status,
      el("div", { class: "pager" }, first, older),
    ),
    el(
      "div",
      { class: "wide" },
      el(
        "table",
        { class: "tasks", role: "table", "aria-labelledby": "tasks-title" },
        el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...heads.map(head))),
        body,
      ),
    ),
    empty,
  );
  return { node, refresh, draw: (now, isBusy) => body.entries?.forEach((row) => row.draw(now, isBusy)) };
}

const describeChange = ([state, names]) => (names.length === 1 ? `${names[0]} ${state}` : `${names.length} tasks ${state}`);

/** True for a task that is scheduled and so has no seq yet. */
const isScheduled = (task) => !task.seq && task.state === "queued";
const nameOf = (task, word) => (task.seq ? `${word} ${task.seq}` : `${word} for ${whenOf(task.run_at)}`);

/** Time of day, with the date if it is half a day or more away. */
const whenOf = (at) => (Math.abs(at - clock.now()) < 43_200_000 ? timeOf(at) : dayOf(at));

/** `changed` is called with a task whose state differs from the one shown. */
function taskRow(cancel, redrive, changed) {
  const cell = (kind) => el("td", { class: kind, role: "cell" });
  const [seq, name, state, start] = [cell("number seq"), cell("id"), cell("state"), cell("number start")];
  const [took, outcome, actions] = [cell("number took"), cell("outcome"), cell("act")];
  const button = el("button", { type: "button", class: "quiet", text: "Cancel", on: { click: () => cancel(task) } });
  const bar = el("progress", { max: "1" });
  const again = el("button", { type: "button", class: "quiet", text: "Redrive", on: { click: () => redrive(task) } });
  let task;
  let shownOutcome = "";
  let stated = "";
  const row = el("tr", { role: "row", tabindex: "-1" }, seq, name, state, start, took, outcome, actions);
  return {
    node: row,
    update(newest) {
      task = newest;
      setText(seq, task.seq ? String(task.seq) : "–");
      setText(name, task.task);
      setAttribute(seq, "title", task.task_id);
      if (stated !== task.state) {
        state.replaceChildren(pill(task.state));
        if (stated) changed(task);
        stated = task.state;
      }
      setAttribute(name, "title", unitsOf(task));
      const hasRun = task.started_at !== null && task.completed_at !== null && task.state !== "cancelled";
      setText(took, hasRun ? shortSpanOf(task.completed_at - task.started_at) : "");
      const text = task.error ?? (task.result === null ? "" : JSON.stringify(task.result));
      const isAsked = task.cancel_requested_at !== null && task.state !== "cancelled";
      const asked = isAsked && `asked to stop at ${whenOf(task.cancel_requested_at)}`;
      const isRedriven = Boolean(task.redriven_as);
      const attempts = [task.attempts > 1 && `attempt ${task.attempts}`, asked, progressOf(task), isRedriven && "submitted again"].filter(Boolean).join(", ");
      if (shownOutcome !== text + attempts) outcome.replaceChildren(...outcomeNodes(text, attempts, Boolean(task.error)));
      shownOutcome = text + attempts;
      showProgress(bar, outcome, task.state === "running" && task.progress);
      setAttribute(button, "aria-label", `Cancel ${nameOf(task, "task")}`);
      const canCancel = task.state === "queued" || (task.state === "running" && !isAsked);
      setAttribute(again, "aria-label", `Redrive ${nameOf(task, "task")}`);
      setAttribute(start, "title", task.started_at === null ? null : stampOf(task.started_at));
      setAttribute(outcome, "title", detailsOf(task));
      const offered = canCancel ? button : task.state === "failed" && !isRedriven ? again : null;
      if (offered ? actions.contains(offered) : !actions.firstChild) return;
      const hadFocus = actions.contains(document.activeElement);
      actions.replaceChildren(...(offered ? [offered] : []));
      if (hadFocus) row.focus(); // keeps the keyboard position when the button disappears
    },
    draw(now, isBusy) {
      setText(start, startOf(task, now, isBusy));
    },
  };
}

const emptiedText = ({ cancelled, cancelled_scheduled }) =>
  `${numberOf(cancelled)} waiting tasks cancelled${cancelled_scheduled ? `, and ${numberOf(cancelled_scheduled)} scheduled` : ""}`;

/** How far a task is, or was when it failed or was cancelled: `40 % page 3`; null without a report. */
function progressOf({ progress = null, state }) {
  if (!progress || state === "succeeded") return null;
  return `${state === "running" ? "" : "ended at "}${Math.floor(progress.fraction * 100)} %${progress.text && ` ${progress.text}`}`;
}

/** Puts the bar of a running task before its texts, which a newer text may just have replaced. */
function showProgress(bar, cell, progress) {
  if (!progress) return bar.remove();
  bar.value = progress.fraction;
  setAttribute(bar, "aria-label", progress.text || "progress");
  if (cell.firstChild !== bar) cell.prepend(bar);
}

/** Payload and attempts, for a tooltip. */
function detailsOf(task) {
  const payload = task.payload_omitted ? "Payload too large to be shown, or expired" : `Payload ${JSON.stringify(task.payload)}`;
  const attempts = (task.attempt_history ?? []).map(
    ({ attempt, started_at, ended_at, error }) =>
      `Attempt ${attempt}: ${stampOf(started_at)}${ended_at === null ? "" : `, took ${shortSpanOf(ended_at - started_at)}`}${error ? `, ${error}` : ""}`,
  );
  return [payload, ...attempts].join("\n");
}

/** The units of a task that has more than one or reported some; null for others. */
function unitsOf({ units = 1, used_units = null }) {
  if (used_units !== null) return `${numberOf(units)} units, used ${numberOf(used_units)}`;
  return units > 1 ? `${numberOf(units)} units` : null;
}

function startOf(task, now, isBusy) {
  if (task.started_at !== null) return timeOf(task.started_at);
  if (task.state === "cancelled") return "never";
  if (isScheduled(task)) return `joins ${whenOf(task.run_at)}`;
  if (task.estimated_at === null) return "when resumed";
  return task.estimated_at > now ? `in ${spanOf(task.estimated_at - now)}` : isBusy ? "in turn" : "now";
}

function outcomeNodes(text, attempts, isError) {
  const mark = attempts ? [el("span", { class: "hint", text: `${attempts} ` })] : [];
  const kind = isError ? "bad" : "";
  if (text.length <= CLIPPED) return [...mark, el("span", { class: kind, text })];
  return [...mark, el("details", { class: kind }, el("summary", { text: `${text.slice(0, CLIPPED)}…` }), el("pre", { text }))];
}
