// The forms on the page of one lane: a pause until a time, new tasks, limits.

import { api } from "./api.js";
import { el, setText, spanOf } from "./dom.js";

export function pauseUntil(set) {
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

/** `names` is a datalist of the tasks that can be submitted; `current()` gives the lane. */
export function submitForm(user, frame, names, current) {
  const task = el("input", { id: "task", value: "log", list: names.id, autocomplete: "off", required: true, maxlength: "64", pattern: "[A-Za-z0-9._\\-]+", spellcheck: "false", autocapitalize: "off" });
  const payload = el("textarea", { id: "payload", rows: "3", spellcheck: "false", placeholder: "{}", "aria-describedby": "payload-hint" });
  const units = el("input", { id: "units", type: "number", min: "1", max: "1000000", placeholder: "as defined" });
  const count = el("input", { id: "count", type: "number", min: "1", max: "100", value: "1", required: true });
  const status = el("p", { class: "status", role: "status" });
  const form = el(
    "form",
    { class: "card form", "aria-labelledby": "submit-title", id: "submit-form" },
    el("h2", { id: "submit-title", text: "Submit" }),
    el("div", { class: "fields" }, field("Task", task), field("How many", count), field("Units of each", units), names),
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

export function limitsForm(user, frame, show) {
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
