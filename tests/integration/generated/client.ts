// Used with the types that openapi-typescript makes of /openapi.json; `tsc --strict` checks it.

import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const [baseUrl] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl });

// Only what is meant has to be named.
const smallest: components["schemas"]["SubmitRequest"] = {};
const first = await client.POST("/api/v1/task", { body: { ...smallest, user_id: "ann" } });
const many = await client.POST("/api/v1/tasks", {
  params: { header: { Prefer: "respond-async" } },
  body: { user_id: "ann", tasks: [{}, { task: "log", payload: { text: "hello" } }, { delay_seconds: 60 }] },
});
await client.POST("/api/v1/users/{user}/pause", { params: { path: { user: "bob" } }, body: {} });
const task = await client.GET("/api/v1/users/{user}/tasks/{task_id}", {
  params: { path: { user: "ann", task_id: first.data?.task_id ?? "" } },
});
// A state is one of five words, for the compiler too.
const state: "queued" | "running" | "succeeded" | "failed" | "cancelled" | undefined = task.data?.state;
// @ts-expect-error There is no such state.
const wrong: typeof state = "lost";
const failed = await client.GET("/api/v1/users/{user}/tasks", { params: { path: { user: "ann" }, query: { state: "failed" } } });

console.log(JSON.stringify({ first: first.data?.state, many: many.data?.tasks.length, state, failed: failed.data?.tasks.length, wrong }));
