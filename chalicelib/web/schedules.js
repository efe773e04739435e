// The list of a user's schedules, each with its next tick; hidden while the user has none.

import { api } from "./api.js";
import { cell, dayOf, el, keyed, numberOf, setAttribute, setText, spanOf, table, tableRow, timeOf } from "./dom.js";
import { clock } from "./lines.js";

const SHOWN = 20;
const REFRESH_MS = 30_000;

export function scheduleList(user) {
  const body = el("tbody");
  const more = el("p", { class: "hint", text: `The first ${SHOWN} by name.` });
  const node = el(
    "section",
    { class: "card", "aria-labelledby": "schedules-title", hidden: true },
    el("div", { class: "bar" }, el("h2", { id: "schedules-title", text: "Schedules" })),
    table("schedules", "schedules-title", ["Schedule", "Ticks", "Task", "Next tick"], body),
    more,
  );

  let asked = 0;

  async function refresh(signal) {
    asked = Date.now();
    const answer = await api.schedules(user, { limit: SHOWN }, signal);
    keyed(body, answer.schedules, (schedule) => schedule.name, scheduleRow);
    node.hidden = answer.schedules.length === 0;
    more.hidden = !answer.next;
  }

  return { node, refresh, isDue: () => Date.now() >= asked + REFRESH_MS, draw: (now) => body.entries?.forEach((row) => row.draw(now)) };
}

function scheduleRow() {
  const [name, ticks, task, next] = [cell("id"), cell("ticks"), cell("name"), cell("number at")];
  let schedule;
  const row = {
    node: tableRow(name, ticks, task, next),
    update(newest) {
      schedule = newest;
      setText(name, schedule.name);
      setText(ticks, schedule.cron ? `${schedule.cron}, ${schedule.timezone}` : `every ${spanOf(schedule.every_seconds * 1000)}`);
      setText(task, schedule.task);
      setAttribute(next, "title", schedule.next_at === null ? null : new Date(schedule.next_at).toISOString());
      row.draw(clock.now());
    },
    draw(now) {
      const refused = schedule.refused ? `, ${numberOf(schedule.refused)} refused` : "";
      setText(next, (schedule.paused ? "paused" : whenOf(schedule.next_at, now)) + refused);
    },
  };
  return row;
}

function whenOf(at, now) {
  if (at <= now) return "now";
  return `${at - now < 43_200_000 ? timeOf(at) : dayOf(at)}, in ${spanOf(at - now)}`;
}
