// The client's rules, over answers that the tests make.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";

import { Paceline, PacelineError, ProblemError } from "paceline-client";

import { NOW, NOW_MS, Server, answer, bulk, lost, problem, submitted, task } from "./server.mjs";

const TAKEN = answer(submitted(), 202);
const RESET = lost("ECONNRESET");
const REFUSED = lost("ECONNREFUSED");

function client(server, options = {}, url = "http://paceline.test") {
  return new Paceline(url, { ...server.options, ...options });
}

async function failure(promise) {
  const error = await promise.then(
    () => assert.fail("it succeeded"),
    (reason) => reason,
  );
  assert(error instanceof PacelineError, String(error));
  return error;
}

const about = (expected, found) => assert.equal(expected.map((x) => x.toFixed(6)).join(), found.map((x) => x.toFixed(6)).join());

test("a submit returns the submitted task", async () => {
  const server = new Server(TAKEN);
  assert.equal((await client(server).submit("ann", { payload: { n: 1 }, units: 9 })).task_id, "id-1");
  assert.deepEqual(server.bodies, [{ payload: { n: 1 }, units: 9, user_id: "ann" }]);
  assert.equal(server.requests[0].url, "http://paceline.test/api/v1/task");
  assert.deepEqual(server.keys, ['"made"']);
  assert.equal(server.requests[0].headers.Authorization, undefined);
  assert.equal(server.requests[0].headers.Prefer, undefined);
});

test("a task that waits is no error", async () => {
  const server = new Server(answer({ title: "Rate limit exceeded.", ...submitted(5, { queued: true, position: 4 }) }, 429));
  const found = await client(server).submit("ann");
  assert.deepEqual([found.queued, found.position], [true, 4]);
});

test("a refusal says when to come again and is not retried", async () => {
  const server = new Server(answer({ title: "Full", queued: false }, 429, { "Retry-After": "17" }));
  const error = await failure(client(server).submit("ann", {}, { strict: true, idempotencyKey: 'a "b"' }));
  assert.deepEqual([error.kind, error.retryAfterSeconds, error.idempotencyKey], ["refused", 17, 'a "b"']);
  assert.equal(server.requests.length, 1);
  assert.equal(server.requests[0].headers.Prefer, "handling=strict");
  assert.deepEqual(server.keys, ['"a \\"b\\""']);
});

for (const [name, lostAnswer] of Object.entries({
  "a reset connection": RESET,
  "an error that a browser hides": new TypeError("Failed to fetch"),
  "a 502": problem(502),
  "a 503 without JSON": new Response("<html>", { status: 503 }),
  "a 504": problem(504),
  "a first try that is being served": problem(409, { field: "Idempotency-Key" }),
})) {
  test(`after ${name} the same key and bytes are sent again`, async () => {
    const server = new Server(lostAnswer, lostAnswer, TAKEN);
    assert.equal((await client(server).submit("ann", { payload: 1 })).task_id, "id-1");
    assert.deepEqual(server.keys, ['"made"', '"made"', '"made"']);
    assert.equal(new Set(server.requests.map((request) => request.body)).size, 1);
    about(server.slept, [0.2, 0.4]);
  });
}

test("pauses vary by chance and stop growing", async () => {
  const server = new Server(...Array(8).fill(RESET), TAKEN);
  await client(server, { random: () => 0.5, totalSeconds: 60 }).submit("ann");
  about(server.slept, [0.15, 0.3, 0.6, 1.2, 2.4, 3.75, 3.75, 3.75]);
});

for (const retryAfter of ["7", new Date((NOW + 7) * 1000).toUTCString()]) {
  test(`a 503 is given the time it asks for: ${retryAfter}`, async () => {
    const server = new Server(answer({}, 503, { "Retry-After": retryAfter }), TAKEN);
    await client(server).submit("ann");
    about(server.slept, [7.2]);
  });
}

test("a submit gives up within 20 s and names its key", async () => {
  const server = new Server(RESET);
  const error = await failure(client(server).submit("ann"));
  const seconds = server.clock.now() - NOW;
  assert(seconds > 15 && seconds <= 20, String(seconds));
  assert.deepEqual([error.kind, error.wasSent, error.idempotencyKey], ["unavailable", true, "made"]);
  assert.equal(error.tries, server.requests.length);
  assert.match(error.message, /ECONNRESET.*gave up after 8 tries/);
});

for (const code of ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT"]) {
  test(`a server that takes no connection fails at once and has nothing: ${code}`, async () => {
    const server = new Server(lost(code));
    const error = await failure(client(server).submit("ann"));
    assert.deepEqual([error.kind, error.tries, error.wasSent, server.slept], ["unavailable", 1, false, []]);
    const waited = await failure(client(server).wait({ user_id: "ann", task_id: "id-1" }, { timeoutSeconds: 5 }));
    assert.deepEqual([waited.kind, server.slept], ["unavailable", []]);
  });
}

test("a connection is tried again where that is asked for, and after a lost answer", async () => {
  const server = new Server(REFUSED, REFUSED, TAKEN);
  await client(server, { failFast: false }).submit("ann");
  about(server.slept, [0.2, 0.4]);
  await client(new Server(RESET, REFUSED, REFUSED, TAKEN)).submit("ann");
  assert.equal((await client(new Server(bulk, REFUSED, bulk)).submitMany("ann", Array(150).fill({}))).length, 150);
});

test("a certificate that does not fit is tried once", async () => {
  const server = new Server(lost("DEPTH_ZERO_SELF_SIGNED_CERT"));
  await failure(client(server, { failFast: false }).submit("ann"));
  assert.equal(server.requests.length, 1);
});

test("a try that hangs is broken off and sent again", async () => {
  const hang = (init) =>
    new Promise((_, reject) => init.signal.addEventListener("abort", () => reject(new DOMException("", "AbortError"))));
  const server = new Server(hang, TAKEN);
  assert.equal((await client(server, { trySeconds: 0.02 }).submit("ann")).seq, 1);
  assert.deepEqual(server.keys, ['"made"', '"made"']);
});

test("an aborted signal ends the call with its reason", async () => {
  const server = new Server(answer(task("running")));
  const controller = new AbortController();
  const clock = { ...server.clock, sleep: async () => controller.abort(new Error("enough")) };
  const waited = client(server, { clock }).wait({ user_id: "ann", task_id: "id-1" }, { signal: controller.signal });
  await assert.rejects(waited, { message: "enough" });
  assert.equal(server.requests.length, 1);
});

for (const [status, kind] of [
  [400, "invalid"],
  [401, "unauthenticated"],
  [403, "forbidden"],
  [404, "not_found"],
  [409, "conflict"],
  [413, "invalid"],
  [418, "problem"],
  [422, "invalid"],
  [500, "problem"],
]) {
  test(`a ${status} is of the kind ${kind}, thrown at once`, async () => {
    const server = new Server(problem(status, { detail: "say yes", field: "/task" }));
    const error = await failure(client(server).submit("ann"));
    assert(error instanceof ProblemError);
    assert.deepEqual([error.kind, error.status, error.field], [kind, status, "/task"]);
    assert.equal(error.message, `${status} No (/task): say yes`);
    assert.equal(server.requests.length, 1);
  });
}

test("an answer that is none of Paceline's is named so", async () => {
  const page = new Response("<html>Welcome");
  assert.equal((await failure(client(new Server(page)).submit("ann"))).kind, "answer");
  assert.equal((await failure(client(new Server(page)).lane("ann"))).kind, "answer");
});

test("a key that no header can hold is refused here", async () => {
  const server = new Server(TAKEN);
  for (const idempotencyKey of ["", "k".repeat(256), "ключ", "a\nb"]) {
    await assert.rejects(client(server).submit("ann", {}, { idempotencyKey }), RangeError);
  }
  assert.equal(server.requests.length, 0);
});

test("each try has a fresh token", async () => {
  const server = new Server(RESET, TAKEN);
  let made = 0;
  await client(server, { token: async () => `secret-${(made += 1)}` }).submit("ann");
  const sent = server.requests.map((request) => request.headers.Authorization);
  assert.deepEqual(sent, ["Bearer secret-1", "Bearer secret-2"]);
});

test("a token, an address or a port that cannot be used is refused at once", async () => {
  const server = new Server(TAKEN);
  await assert.rejects(client(server, { token: "a\nb" }).submit("ann"), RangeError);
  assert.equal(server.requests.length, 0);
  for (const url of ["localhost:8000", "http://", "ftp://paceline.test"]) assert.throws(() => new Paceline(url), TypeError);
  const error = await failure(new Paceline("http://127.0.0.1:9").submit("ann"));
  assert.deepEqual([error.kind, error.tries, error.wasSent], ["unavailable", 1, false]);
});

test("many go in hundreds, each with a key of its own", async () => {
  const server = new Server(bulk);
  const seen = [];
  const orders = Array.from({ length: 250 }, (_, n) => ({ payload: n }));
  const found = await client(server).submitMany("ann", orders, { progress: (...sofar) => seen.push(sofar) });
  assert.equal(found.length, 250);
  assert.deepEqual(server.keys, ['"made:0"', '"made:100"', '"made:200"']);
  assert.deepEqual(server.bodies.flatMap((body) => body.tasks.map((one) => one.payload)), orders.map((one) => one.payload));
  assert.deepEqual(seen, [[100, 250], [200, 250], [250, 250]]); // prettier-ignore
});

test("many large ones go in parts that the API takes", async () => {
  const server = new Server(bulk);
  await client(server).submitMany("ann", Array(100).fill({ payload: "ü".repeat(32_000) }));
  assert.deepEqual(server.bodies.map((body) => body.tasks.length), [60, 40]);
  assert(server.requests.every((request) => Buffer.byteLength(request.body) < 4_000_000));
});

test("what was submitted before a failure is named and goes on with the key", async () => {
  const server = new Server(bulk, problem(422, { field: "/tasks/7/task" }), bulk);
  const paceline = client(server);
  const orders = Array(150).fill({});
  const error = await failure(paceline.submitMany("ann", orders));
  assert.deepEqual([error.kind, error.field, error.accepted.length], ["invalid", "/tasks/107/task", 100]);
  await paceline.submitMany("ann", orders, { idempotencyKey: error.idempotencyKey });
  assert.deepEqual(server.keys, ['"made:0"', '"made:100"', '"made:0"', '"made:100"']);
});

const TASK = { user_id: "ann", task_id: "id-1" };

test("a wait sleeps until the estimated start and then looks", async () => {
  const server = new Server(answer(task("queued", { estimated_at: NOW_MS + 40_000 })), answer(task("succeeded")));
  assert.equal((await client(server).wait(TASK)).state, "succeeded");
  about(server.slept, [40.125]);
});

test("a long wait looks once a minute, a late task is looked at more and more seldom", async () => {
  const far = new Server(...Array(60).fill(answer(task("queued", { estimated_at: NOW_MS + 3_600_000 }))), answer(task("cancelled")));
  await client(far).wait(TASK);
  assert.deepEqual([...new Set(far.slept)], [60]);
  const late = new Server(...Array(15).fill(answer(task("running"))), answer(task("failed")));
  assert.equal((await client(late).wait(TASK)).state, "failed");
  about(late.slept.slice(0, 3), [0.125, 0.1875, 0.28125]);
  about(late.slept.slice(-1), [6.25]);
});

for (const [ahead, sleep] of [[1, 41.125], [-1, 39.125], [3600, 40.125], [-3600, 40.125]]) {
  test(`a server's clock that is ${ahead} s ahead is made up for`, async () => {
    const there = NOW + ahead;
    const headers = { Date: new Date(there * 1000).toUTCString() };
    const queued = answer(task("queued", { estimated_at: (there + 40) * 1000 }), 200, headers);
    const server = new Server(queued, answer(task("succeeded")));
    await client(server).wait(TASK);
    about(server.slept, [sleep]);
  });
}

test("a wait ends at its time with one last look", async () => {
  const server = new Server(answer(task("queued", { estimated_at: NOW_MS + 40_000 })));
  const error = await failure(client(server).wait(TASK, { timeoutSeconds: 5 }));
  assert.deepEqual([error.kind, error.task.state, server.requests.length], ["wait_timeout", "queued", 2]);
  about(server.slept, [5]);
});

test("a wait goes on through lost answers and a restart", async () => {
  const server = new Server(answer(task("running")), RESET, REFUSED, problem(503), answer(task("succeeded")));
  assert.equal((await client(server).wait(TASK, { timeoutSeconds: 30 })).state, "succeeded");
});

test("pages are fetched as they are needed", async () => {
  const server = new Server(answer({ tasks: [task(), task()], next: "id-9" }), answer({ tasks: [task()], next: null }));
  const tasks = client(server).tasks("ann", { state: "queued", pageSize: 2 });
  await tasks.next();
  assert.equal(server.requests.length, 1);
  let left = 0;
  for await (const _ of tasks) left += 1;
  assert.equal(left, 2);
  assert.deepEqual(server.requests.map((request) => new URL(request.url).search), [
    "?limit=2&state=queued",
    "?limit=2&state=queued&before=id-9",
  ]);
});

test("a user id stays one part of the path", async () => {
  for (const [user, path] of [["a/b?c#d%41", "a%2Fb%3Fc%23d%2541"], ["..", "%20.."], ["a.b", "a.b"]]) {
    const server = new Server(answer({ user_id: user }));
    await client(server, {}, "https://id.execute-api.test/api/").lane(user);
    assert.equal(new URL(server.requests[0].url).pathname, `/api/api/v1/users/${path}`);
  }
});

test("CommonJS loads the same client", async () => {
  const { Paceline: Required } = createRequire(import.meta.url)("paceline-client");
  const server = new Server(problem(404));
  const error = await new Required("http://paceline.test", server.options).task("ann", "x").catch((reason) => reason);
  assert.equal(error.kind, "not_found");
  assert(!(error instanceof PacelineError), "the two builds have classes of their own; `kind` serves both");
});
