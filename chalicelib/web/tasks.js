// The list of a lane's tasks, the newest first: with payload, outcome and a button for those that can be cancelled or redriven.

import { api, Problem } from "./api.js";
import { announce, cell, dayOf, el, keyed, numberOf, setAttribute, setText, shortSpanOf, spanOf, stampOf, table, timeOf } from "./dom.js";
import { clock } from "./lines.js";
import { pill } from "./overview.js";

const PER_PAGE = 25;
const STATES = ["queued", "running", "succeeded", "failed", "cancelled"];
/** Characters of an outcome and of a payload that are shown folded. */
const CLIPPED = 60;
const CLIPPED_PAYLOAD = 30;

/** `learn` is called with the tasks of each answer, and whether they are the newest of all states. */
export function taskList(user, frame, learn) {
  const filter = el("select", { id: "state" }, el("option", { value: "", text: "All states" }), ...STATES.map((one) => el("option", { value: one, text: one })));
  const first = el("button", { type: "button", text: "Newest", disabled: true });
  const older = el("button", { type: "button", text: "Older", disabled: true });
  const status = el("p", { class: "status", role: "status" });
  const body = el("tbody");
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
    learn(answer.tasks, !query.state && !query.before);
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
    table("tasks", "tasks-title", ["No.", "Task", "State", "Start", "Took", "Outcome", "Actions"], body),
    empty,
  );
  return { node, refresh, draw: (now, isBehind) => body.entries?.forEach((row) => row.draw(now, isBehind)) };
}

const describeChange = ([state, names]) => (names.length === 1 ? `${names[0]} ${state}` : `${names.length} tasks ${state}`);

/** True for a task that is scheduled and so has no seq yet. */
const isScheduled = (task) => !task.seq && task.state === "queued";
export const nameOf = (task, word) => (task.seq ? `${word} ${task.seq}` : `${word} for ${whenOf(task.run_at)}`);

/** Time of day, with the date if it is half a day or more away. */
const whenOf = (at) => (Math.abs(at - clock.now()) < 43_200_000 ? timeOf(at) : dayOf(at));

/** `changed` is called with a task whose state differs from the one shown. */
function taskRow(cancel, redrive, changed) {
  const [seq, name, state, start] = [cell("number seq"), cell("id"), cell("state"), cell("number start")];
  const [took, outcome, actions] = [cell("number took"), cell("outcome"), cell("act")];
  const [title, payload] = [el("span"), el("div", { class: "payload" })];
  name.append(title, payload);
  const button = el("button", { type: "button", class: "quiet", text: "Cancel", on: { click: () => cancel(task) } });
  const bar = el("progress", { max: "1" });
  const again = el("button", { type: "button", class: "quiet", text: "Redrive", on: { click: () => redrive(task) } });
  let task;
  let shownOutcome = "";
  let shownPayload = null;
  let stated = "";
  const row = el("tr", { role: "row", tabindex: "-1" }, seq, name, state, start, took, outcome, actions);
  return {
    node: row,
    update(newest) {
      task = newest;
      setText(seq, task.seq ? String(task.seq) : "–");
      setText(title, task.task);
      if (shownPayload !== payloadOf(task)) payload.replaceChildren(...payloadNodes(task));
      shownPayload = payloadOf(task);
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
    draw(now, isBehind) {
      setText(start, startOf(task, now, isBehind));
    },
  };
}

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
export function detailsOf(task) {
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

/** `isBehind`: the lane's next task waits for another one, so its time is not known. */
export function startOf(task, now, isBehind) {
  if (task.started_at !== null) return timeOf(task.started_at);
  if (task.state === "cancelled") return "never";
  if (isScheduled(task)) return `joins ${whenOf(task.run_at)}`;
  if (task.estimated_at === null) return "when resumed";
  return task.estimated_at > now ? `in ${spanOf(task.estimated_at - now)}` : isBehind ? "in turn" : "now";
}

function outcomeNodes(text, attempts, isError) {
  const mark = attempts ? [el("span", { class: "hint", text: `${attempts} ` })] : [];
  return [...mark, foldable(text, isError ? "bad" : "")];
}

/** The text on one line; a long one unfolds. */
function foldable(text, kind, clipped = CLIPPED) {
  if (text.length <= clipped) return el("span", { class: kind, text });
  return el("details", { class: kind }, el("summary", { text: `${text.slice(0, clipped)}…` }), el("pre", { text }));
}

/** The payload as JSON; empty for none, and for one that lists leave out. */
export const payloadOf = ({ payload = null, payload_omitted: isOmitted = false }) => (isOmitted ? "large payload" : payload === null ? "" : JSON.stringify(payload));

function payloadNodes(task) {
  if (!task.payload_omitted) return [foldable(payloadOf(task), "", CLIPPED_PAYLOAD)];
  const text = el("pre", { text: "…" });
  const box = el("details", {}, el("summary", { text: payloadOf(task) }), text);
  box.addEventListener("toggle", async () => setText(text, box.open ? await wholePayload(task) : "…"));
  return [box];
}

/** A list leaves a large payload out; the task by itself may have it. */
async function wholePayload(task) {
  try {
    const whole = await api.task(task.user_id, task.task_id);
    return whole.payload_omitted ? "Too large to be shown, or expired" : JSON.stringify(whole.payload, null, 1);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return error.message;
  }
}
