// The client against a Paceline that runs at PACELINE_URL, with limits of 3 a second.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { Paceline } from "paceline-client";

const url = process.env.PACELINE_URL;
const running = (name, run) => test(name, { skip: url ? false : "PACELINE_URL names no running Paceline" }, run);
const user = (name) => `ts-${name}-${process.pid}-${Date.now()}`;
const paceline = new Paceline(url ?? "http://127.0.0.1:8000");

running("a task is submitted and waited for", async () => {
  const submitted = await paceline.submit(user("wait"), { payload: { n: 1 } });
  assert.deepEqual([submitted.seq, submitted.queued], [1, false]);
  const task = await paceline.wait(submitted, { timeoutSeconds: 20 });
  assert.deepEqual([task.state, task.attempts], ["succeeded", 1]);
  assert(task.started_at >= submitted.planned_at);
});

running("many wait in line, and the last one starts after its plan", async () => {
  const ann = user("many");
  await paceline.setLimits(ann, "50/second");
  const tasks = await paceline.submitMany(ann, Array.from({ length: 104 }, (_, n) => ({ payload: n })));
  assert.deepEqual(tasks.map((task) => task.seq), Array.from({ length: 104 }, (_, n) => n + 1));
  const last = await paceline.wait(tasks.at(-1), { timeoutSeconds: 60 });
  assert.equal(last.state, "succeeded");
  assert(last.started_at >= tasks.at(-1).planned_at);
});

running("lost answers make no task twice", async () => {
  let sent = 0;
  const lossy = async (input, init) => {
    const response = await fetch(input, init);
    if ((sent += 1) % 2) throw new TypeError("lost on the way");
    return response;
  };
  const ann = user("lossy");
  const client = new Paceline(url, { fetch: lossy });
  const submitted = [await client.submit(ann), ...(await client.submitMany(ann, [{}, {}, {}])), await client.submit(ann)];
  assert.deepEqual(submitted.map((task) => task.seq), [1, 2, 3, 4, 5]);
  const ids = [];
  for await (const task of client.tasks(ann, { pageSize: 2 })) ids.push(task.task_id);
  assert.deepEqual(ids.reverse(), submitted.map((task) => task.task_id));
});

running("the same key gives the same task", async () => {
  const ann = user("key");
  const options = { idempotencyKey: "order-7" };
  const first = await paceline.submit(ann, { payload: 1 }, options);
  assert.equal((await paceline.submit(ann, { payload: 1 }, options)).task_id, first.task_id);
  await assert.rejects(paceline.submit(ann, { payload: 2 }, options), { kind: "invalid", field: "Idempotency-Key" });
});

running("a lane is paused, changed, listed and resumed", async () => {
  const ann = user("lane");
  assert((await paceline.setLimits(ann, "10/second")).own_limits);
  assert((await paceline.pause(ann, new Date(Date.now() + 60_000))).paused_until > Date.now());
  const [first, second] = await paceline.submitMany(ann, [{}, {}]);
  assert.equal((await paceline.cancel(ann, first.task_id)).state, "cancelled");
  assert.equal((await paceline.lane(ann)).paused, true);
  assert.equal((await paceline.resume(ann)).paused, false);
  assert.equal((await paceline.wait(second, { timeoutSeconds: 20 })).state, "succeeded");
  assert.equal((await paceline.clearLimits(ann)).own_limits, false);
  const lanes = [];
  for await (const lane of paceline.lanes({ search: ann })) lanes.push(lane.user_id);
  assert.deepEqual(lanes, [ann]);
  await assert.rejects(paceline.cancel(ann, second.task_id), { kind: "conflict" });
  await assert.rejects(paceline.task("somebody-else", second.task_id), { kind: "not_found" });
});

running("a strict submit over the limit is refused", async () => {
  const ann = user("strict");
  await paceline.setLimits(ann, "1/minute");
  await paceline.submit(ann, {}, { strict: true });
  const error = await paceline.submit(ann, {}, { strict: true }).catch((reason) => reason);
  assert.equal(error.kind, "refused");
  assert(error.retryAfterSeconds > 50 && error.retryAfterSeconds <= 60);
});

running("every route can be called with its types", async () => {
  const lanes = await paceline.request("get", "/api/v1/lanes", { query: { limit: 1, order: "active" } });
  assert(lanes.totals.lanes >= 0);
  assert.equal((await paceline.health()).status, "ok");
});

test("a port that nobody listens on fails at once", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  const error = await new Paceline(`http://127.0.0.1:${port}`).submit("ann").catch((reason) => reason);
  assert.deepEqual([error.kind, error.tries, error.wasSent], ["unavailable", 1, false]);
});
