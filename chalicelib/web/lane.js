// The page of one lane: pace, actions, tasks.

import { api, token } from "./api.js";
import { failedTasks, nextTasks } from "./brief.js";
import { dayOf, el, keyed, limitOf, numberOf, setAttribute, setText, spanOf } from "./dom.js";
import { limitsForm, pauseUntil, submitForm } from "./forms.js";
import { animate, clock, drawAxis, drawBand, drawTrack, Line } from "./lines.js";
import { describe, isBarred, isFull, legend, nextStart, stateOf } from "./overview.js";
import { scheduleList } from "./schedules.js";
import { taskList } from "./tasks.js";

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

  const tasks = taskList(user, frame, learn);
  const next = nextTasks(user, frame);
  const failed = failedTasks(user, frame);
  const names = taskNames();
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
      el("div", {}, ...(isAdmin ? [el("a", { href: "#/", class: "back", text: "All lanes" })] : []), el("h1", { text: user }), state),
      el("div", { class: "actions" }, ...control, empty),
      laneStatus,
    ),
    facts,
    el("section", { class: "card", "aria-labelledby": "pace-title" }, el("div", { class: "bar" }, el("h2", { id: "pace-title", text: "Pace" })), legend(), picture, pictureHint()),
    el("div", { class: "two" }, next.node, failed.node),
    el("div", { class: "two" }, submitForm(user, frame, names.node, () => lane), ...(isAdmin ? [limits] : [])),
    tasks.node,
    schedules.node,
  );

  function learn(found, areNewest) {
    line.learn(found);
    failed.take(found);
    if (areNewest && lane) next.take(found, lane);
  }

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

  const fetchLane = async (signal) => showLane(await api.lane(user, signal));
  /** Fetched at once when the page opens, in this order. */
  const opening = [fetchLane, tasks.refresh, next.refresh, failed.refresh, schedules.refresh, names.refresh];

  /** Every other request is for the lane, and one in four or more for its newest tasks; the other parts take turns. */
  function due() {
    turn += 1;
    if (turn % 2) return fetchLane;
    const parts = turn % 8 === 2 ? [next, failed, schedules] : [failed, schedules, next];
    const other = turn % 4 && parts.find((part) => part.isDue(lane));
    return other ? other.refresh : tasks.refresh;
  }

  /** One request at a time, one a second. */
  async function refresh(signal) {
    await (opening[0] ?? due())(signal);
    opening.shift();
    if (opening.length <= 2) node.classList.remove("loading"); // the lane and its tasks appear together, so that nothing moves
    if (opening.length) return 0;
    return lane.backlog || lane.running ? 1000 : 1500;
  }

  const stop = animate(() => {
    const now = clock.now();
    drawAxis(axis);
    for (const { draw } of bands.entries?.values() ?? []) draw(now);
    drawTrack(track, line);
    if (!lane) return;
    setText(state, stateOf(lane, now) + (lane.throttled_reason && !lane.paused ? `: ${lane.throttled_reason}` : ""));
    const isBehind = Boolean(lane.running || lane.waits_for);
    setText(upcoming, upcomingOf(lane, now));
    setText(open, lane.open_at === null ? "–" : lane.open_at > now ? `in ${spanOf(lane.open_at - now)}` : lane.backlog ? "in turn" : "now");
    tasks.draw(now, isBehind);
    next.draw(now, isBehind);
    schedules.draw(now);
  });

  return { node, refresh, leave: stop };
}

const emptiedText = ({ cancelled, cancelled_scheduled }) =>
  `${numberOf(cancelled)} waiting tasks cancelled${cancelled_scheduled ? `, and ${numberOf(cancelled_scheduled)} scheduled` : ""}`;

/** When the lane's next task starts. */
function upcomingOf(lane, now) {
  const at = nextStart(lane, now);
  if (!at) return lane.backlog && lane.paused ? "when resumed" : "–";
  if (at > now) return `in ${spanOf(at - now)}`;
  return isFull(lane) || lane.waits_for ? "in turn" : "now";
}

/** The tasks that can be submitted, offered by the form. */
function taskNames() {
  const node = el("datalist", { id: "task-names" });
  const refresh = async (signal) => node.replaceChildren(...(await api.taskNames(signal)).names.map((value) => el("option", { value })));
  return { node, refresh };
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
