// The API client: every request of the page passes here. URLs are relative, since a stage's path may precede them.

const TOKEN = "paceline.token";
const PATIENCE_MS = 20_000;

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (text) => (text ? sessionStorage.setItem(TOKEN, text) : sessionStorage.removeItem(TOKEN)),
  /** The token's claims, unverified: only the API verifies them. Empty without a token. */
  claims() {
    try {
      const text = this.get().split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
      return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)))) ?? {};
    } catch {
      return {};
    }
  },
  subject() {
    return String(this.claims().sub ?? "");
  },
  /** True if the API lets this caller pause lanes and change limits; without tokens it lets everybody. */
  isAdmin() {
    const { scope, scp } = this.claims();
    return !this.get() || [scope, scp].flat().join(" ").split(" ").includes("admin");
  },
};

/** An error answer (RFC 9457); `status` is 0 if there was no answer. */
export class Problem extends Error {
  constructor(status, title, detail = "") {
    super(detail && detail !== title ? `${title}: ${detail}` : title);
    this.status = status;
  }
}

/** Returns the API's JSON. Throws Problem, except for a 429 whose task is queued. */
export async function call(method, path, body, signal) {
  // Asks for 202 instead of 429 when a task waits: browsers log a 429 to the console as an error.
  const headers = { Accept: "application/json", Prefer: "respond-async" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  const patience = AbortSignal.timeout(PATIENCE_MS);
  let response, content;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, patience]) : patience,
      cache: "no-store",
      credentials: "same-origin",
    });
    content = await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(response && !response.ok ? response.status : 0, "The API does not answer");
  }
  if (response.ok || (response.status === 429 && content.queued)) return content;
  throw new Problem(response.status, content.title ?? content.message ?? `Status ${response.status}`, content.detail);
}

// Browsers remove `.` and `..` from a path unless a space precedes them; user ids contain no space.
const lane = (user) => `api/v1/users/${user === "." || user === ".." ? "%20" : ""}${encodeURIComponent(user)}`;

export const api = {
  lanes: (query, signal) => call("GET", `api/v1/lanes?${new URLSearchParams(query)}`, undefined, signal),
  lane: (user, signal) => call("GET", lane(user), undefined, signal),
  tasks: (user, query, signal) => call("GET", `${lane(user)}/tasks?${new URLSearchParams(query)}`, undefined, signal),
  task: (user, id) => call("GET", `${lane(user)}/tasks/${encodeURIComponent(id)}`),
  taskNames: (signal) => call("GET", "api/v1/task-names", undefined, signal),
  schedules: (user, query, signal) => call("GET", `${lane(user)}/schedules?${new URLSearchParams(query)}`, undefined, signal),
  submit: (user, tasks) => call("POST", "api/v1/tasks", { user_id: user, tasks }),
  failed: (query, signal) => call("GET", `api/v1/tasks?${new URLSearchParams({ state: "failed", ...query })}`, undefined, signal),
  redrive: (user, id) => call("POST", `${lane(user)}/tasks/${encodeURIComponent(id)}/redrive`, {}),
  empty: (user) => call("DELETE", `${lane(user)}/tasks?state=queued`),
  cancel: (user, id) => call("DELETE", `${lane(user)}/tasks/${encodeURIComponent(id)}`),
  pause: (user, until) => call("POST", `${lane(user)}/pause`, { until }),
  resume: (user) => call("POST", `${lane(user)}/resume`, {}),
  setLimits: (user, limits) => call("PUT", `${lane(user)}/limits`, { limits }),
  resetLimits: (user) => call("DELETE", `${lane(user)}/limits`),
  sharedLimits: (signal) => call("GET", "api/v1/limits", undefined, signal),
  pauseShared: (name) => call("POST", `api/v1/limits/${encodeURIComponent(name)}/pause`, {}),
  resumeShared: (name) => call("POST", `api/v1/limits/${encodeURIComponent(name)}/resume`, {}),
};
