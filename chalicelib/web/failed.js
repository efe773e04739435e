// The failed tasks of all users on the page of all lanes: the newest ones, with reasons and a button to submit each again.

import { api, Problem } from "./api.js";
import { cell, dayOf, el, keyed, numberOf, setAttribute, setText, stampOf, table, tableRow } from "./dom.js";
import { clock } from "./lines.js";
import { linkTo } from "./overview.js";

const PER_PAGE = 10;
/** Failed tasks that are counted at most. */
const COUNTED = 100;
const DAY_MS = 86_400_000;
/** Milliseconds between two requests: a list costs eight reads of the index, also an empty one. */
const REFRESH_MS = 10_000;

/** `showCount(text, note)` is called with the number of tasks that failed in the last day and were not submitted again. */
export function failedList(frame, showCount) {
  const body = el("tbody");
  const status = el("p", { class: "status", role: "status" });
  const newest = el("button", { type: "button", text: "Newest", disabled: true });
  const older = el("button", { type: "button", text: "Older", disabled: true });
  const heads = ["Failed at", "User", "Task", "Reason", "Actions"];
  const node = el(
    "section",
    { class: "card", "aria-labelledby": "failed-title", hidden: true },
    el("div", { class: "bar" }, el("h2", { id: "failed-title", text: "Failed tasks" }), status, el("div", { class: "pager" }, newest, older)),
    table("failures", "failed-title", heads, body),
  );
  let asked = 0;
  let before = null;
  let next = null;

  const go = (to) => {
    before = to;
    void now();
  };
  newest.addEventListener("click", () => go(null));
  older.addEventListener("click", () => go(next));

  async function refresh(signal) {
    asked = Date.now();
    const first = await api.failed({ limit: COUNTED }, signal);
    const failed = first.tasks.filter((task) => task.completed_at > clock.now() - DAY_MS && !task.redriven_as).length;
    showCount(`${numberOf(failed)}${failed === COUNTED ? "+" : ""}`, "last 24 h, not redriven");
    const page = before ? await api.failed({ limit: PER_PAGE, before }, signal) : { ...first, tasks: first.tasks.slice(0, PER_PAGE) };
    next = before ? page.next : first.tasks.length > PER_PAGE ? cursorOf(page.tasks.at(-1)) : first.next;
    show(page.tasks);
  }

  function show(tasks) {
    node.hidden = !tasks.length && before === null;
    newest.disabled = before === null;
    older.disabled = next === null;
    newest.parentElement.hidden = newest.disabled && older.disabled;
    keyed(body, tasks, (task) => task.task_id, () => failedRow(redrive));
  }

  async function now() {
    asked = 0;
    try {
      await refresh();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setText(status, error.message);
    }
  }

  async function redrive(task) {
    const done = (answer) => `Task of ${task.user_id} submitted again as number ${answer.seq}`;
    if (await frame.ask(() => api.redrive(task.user_id, task.task_id), status, done)) await now();
  }

  return { node, refresh, isDue: () => Date.now() >= asked + REFRESH_MS };
}

/** As the API makes it. */
const cursorOf = (task) => `${String(task.completed_at).padStart(15, "0")}-${task.task_id}`;

function failedRow(redrive) {
  let task;
  const at = cell("number at");
  const link = el("a");
  const name = cell("name");
  const reason = el("span", { class: "error" });
  const again = el("span", { class: "detail" });
  const button = el("button", { type: "button", class: "quiet", text: "Redrive", on: { click: () => redrive(task) } });
  const node = tableRow(at, cell("id", link), name, cell("end", reason), cell("act", button, again));
  return {
    node,
    update(newest) {
      task = newest;
      setText(at, dayOf(task.completed_at));
      setAttribute(at, "title", stampOf(task.completed_at));
      setText(link, task.user_id);
      setAttribute(link, "href", linkTo(task.user_id));
      setText(name, task.task);
      setAttribute(name, "title", `Task ${task.task_id}, number ${task.seq}, ${task.attempts} attempts`);
      setText(reason, task.error ?? "");
      setAttribute(reason, "title", task.error ?? "");
      setAttribute(button, "aria-label", `Redrive task ${task.seq} of ${task.user_id}`);
      button.hidden = task.redriven_as !== null;
      setText(again, task.redriven_as === null ? "" : "submitted again");
    },
  };
}
