// A server and a clock for tests of the client's rules.

export const NOW = 1_800_000_000;
export const NOW_MS = NOW * 1000;

/** Gives the answers in order, the last one again and again, and keeps what it was asked. */
export class Server {
  constructor(...answers) {
    this.answers = answers;
    this.requests = [];
    this.slept = [];
    this.fetch = async (url, init) => {
      this.requests.push({ url, ...init });
      const answer = this.answers.length > 1 ? this.answers.shift() : this.answers[0];
      if (answer instanceof Error) throw answer;
      return typeof answer === "function" ? answer(init) : answer.clone();
    };
    const seconds = () => this.slept.reduce((sum, one) => sum + one, 0);
    this.clock = {
      now: () => NOW + seconds(),
      monotonic: () => 500 + seconds(),
      sleep: async (time) => void this.slept.push(time),
    };
  }

  get options() {
    return { fetch: this.fetch, clock: this.clock, random: () => 1, newKey: () => "made" };
  }

  get keys() {
    return this.requests.map((request) => request.headers["Idempotency-Key"]);
  }

  get bodies() {
    return this.requests.map((request) => request.body && JSON.parse(request.body));
  }
}

export function answer(body, status = 200, headers = {}) {
  return new Response(JSON.stringify(body), { status, headers });
}

export function problem(status, rest = {}) {
  return answer({ type: "about:blank", title: "No", status, ...rest }, status);
}

export function submitted(seq = 1, changes = {}) {
  const times = { planned_at: NOW_MS, delay_ms: 0 };
  return { task_id: `id-${seq}`, user_id: "ann", seq, position: 0, ...times, queued: false, state: "queued", ...changes };
}

export function task(state = "queued", changes = {}) {
  const times = { planned_at: NOW_MS, estimated_at: null, submitted_at: NOW_MS, started_at: null, completed_at: null };
  return { task_id: "id-1", user_id: "ann", seq: 1, task: "log", state, position: 0, ...times, ...changes };
}

/** What `fetch` of Node throws. */
export function lost(code) {
  return new TypeError("fetch failed", { cause: Object.assign(new Error(code), { code }) });
}

export function bulk(init) {
  const { tasks } = JSON.parse(init.body);
  return answer({ user_id: "ann", queued: false, tasks: tasks.map((_, n) => submitted(n + 1)) }, 202);
}
