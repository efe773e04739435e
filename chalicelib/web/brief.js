// The two short lists on the first screen of a lane's page: the tasks that start next, and those that failed last.

import { api, Problem } from "./api.js";
import { dayOf, el, keyed, setAttribute, setText, stampOf, timeOf } from "./dom.js";
import { clock } from "./lines.js";
import { detailsOf, nameOf, payloadOf, startOf } from "./tasks.js";

/** Tasks of each list. A desktop's page keeps room for this number from the start, so that nothing moves. */
const SHOWN = 5;
const NEXT_MS = 2_000;
const FAILED_MS = 10_000;

/** The lane's tasks that start next, the first one first. */
export function nextTasks(user, frame) {
  const list = briefList("next", "Next to start", "No task waits.", () => briefRow("Cancel", cancel, (task, now) => startOf(task, now, isBehind)));
  let asked = 0;
  let isBehind = false;

  async function refresh(signal) {
    asked = Date.now();
    list.show((await api.tasks(user, { order: "next", limit: SHOWN }, signal)).tasks);
  }

  /** Takes them from the newest tasks if all that wait are among these, which saves a request. */
  function take(newest, lane) {
    const waiting = newest.filter((task) => task.state === "queued" && task.seq);
    if (waiting.length < lane.backlog) return;
    asked = Date.now();
    list.show(waiting.sort((a, b) => a.seq - b.seq).slice(0, SHOWN));
  }

  const cancel = (task) => list.act(frame, () => api.cancel(user, task.task_id), `${nameOf(task, "Task")} cancelled`, refresh);

  /** `behind`: the lane's next task waits for another one, so its time is not known. */
  function draw(now, behind) {
    isBehind = behind;
    list.draw(now);
  }

  const isDue = (lane) => (asked === 0 || lane.backlog > 0 || !list.isEmpty()) && Date.now() >= asked + NEXT_MS;
  return { node: list.node, refresh, take, draw, isDue };
}

/** The lane's tasks that failed last, the newest first. */
export function failedTasks(user, frame) {
  const list = briefList("failures", "Failed", "No failed tasks.", () => briefRow("Redrive", redrive, (task) => whenFailed(task)));
  const found = new Map();
  let asked = 0;
  /** Cursor of the next page, while too few of the newest tasks have failed. */
  let before = null;

  /** One page: behind a long backlog they are found by and by. */
  async function refresh(signal) {
    asked = Date.now();
    const answer = await api.tasks(user, { state: "failed", limit: SHOWN, ...(before && { before }) }, signal);
    take(answer.tasks);
    before = found.size < SHOWN ? answer.next : null;
  }

  function take(tasks) {
    for (const task of tasks) if (task.state === "failed") found.set(task.task_id, task);
    const newest = [...found.values()].sort((a, b) => (a.task_id < b.task_id ? 1 : -1)).slice(0, SHOWN);
    list.show(newest);
    for (const id of found.keys()) if (!newest.some((task) => task.task_id === id)) found.delete(id);
  }

  const redrive = (task) => list.act(frame, () => api.redrive(user, task.task_id), (answer) => `${nameOf(task, "Task")} submitted again as number ${answer.seq}`, refresh);

  return { node: list.node, refresh, take, draw: list.draw, isDue: () => before !== null || Date.now() >= asked + FAILED_MS };
}

const whenFailed = ({ completed_at: at }) => (clock.now() - at < 43_200_000 ? timeOf(at) : dayOf(at));

function briefList(id, title, nothing, makeRow) {
  const body = el("ol", { class: "brief", role: "list" });
  const status = el("p", { class: "status", role: "status" });
  const empty = el("p", { class: "hint", text: nothing });
  const titleId = `${id}-title`;
  const head = el("h2", { id: titleId, tabindex: "-1", text: title });
  const room = el("div", { class: "room" }, body, empty);
  const node = el("section", { class: "card", "aria-labelledby": titleId }, el("div", { class: "bar" }, head, status), room);
  return {
    node,
    isEmpty: () => !body.entries?.size,
    show(tasks) {
      const hadFocus = body.contains(document.activeElement);
      keyed(body, tasks, (task) => task.task_id, makeRow);
      empty.hidden = tasks.length > 0;
      // On a phone the list keeps the room that it once took, so that the page does not jump while tasks start.
      if (body.clientHeight > room.clientHeight - 1) room.style.minHeight = `${body.clientHeight}px`;
      if (hadFocus && !body.contains(document.activeElement)) head.focus(); // keeps the keyboard position when a row leaves
    },
    draw: (now) => body.entries?.forEach((row) => row.draw(now)),
    async act(frame, work, done, refresh) {
      if (!(await frame.ask(work, status, done))) return;
      try {
        await refresh();
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        setText(status, error.message);
      }
    },
  };
}

/** `act(task)` runs at the button; `timeOfTask(task, now)` gives the time that is shown. */
function briefRow(action, act, timeOfTask) {
  const [seq, name, text, time] = [el("b"), el("span", { class: "name" }), el("span", { class: "text" }), el("span", { class: "time" })];
  const button = el("button", { type: "button", class: "quiet", text: action, on: { click: () => act(task) } });
  let task;
  const row = {
    node: el("li", { tabindex: "-1" }, seq, el("span", { class: "about" }, name, text), time, button),
    update(newest) {
      task = newest;
      setText(seq, String(task.seq));
      setText(name, task.task);
      setText(text, task.state === "failed" ? task.error ?? "" : payloadOf(task));
      setAttribute(text, "class", `text${task.state === "failed" ? " bad" : ""}`);
      setAttribute(row.node, "title", [task.error, detailsOf(task)].filter(Boolean).join("\n"));
      setAttribute(time, "title", task.completed_at === null ? null : stampOf(task.completed_at));
      setAttribute(button, "aria-label", `${action} ${nameOf(task, "task")}`);
      if (document.activeElement === button && task.redriven_as) row.node.focus();
      button.hidden = Boolean(task.redriven_as);
      row.draw(clock.now());
    },
    draw: (now) => setText(time, task.redriven_as ? "submitted again" : timeOfTask(task, now)),
  };
  return row;
}
