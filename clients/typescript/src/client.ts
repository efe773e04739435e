/** The API's operations as methods. */

import {
  MAX_KEY,
  MAX_KEY_OF_MANY,
  type Parts,
  checkedKey,
  fieldOfAll,
  inParts,
  makeCall,
  newKey,
  submitHeaders,
} from "./calls.js";
import { type Clock, systemClock } from "./clock.js";
import { AnswerError, PacelineError, ProblemError } from "./errors.js";
import { type Connection, Exchange, type Token, isSuccess } from "./exchange.js";
import type { Call, Fetch } from "./network.js";
import type {
  AnswerOf,
  Arguments,
  Health,
  Lane,
  MethodOf,
  Route,
  State,
  SubmittedTask,
  Task,
  TaskOrder,
} from "./types.js";
import { ended } from "./waiting.js";

export interface Options {
  /** The bearer token, or a function that returns a fresh one for each try; none for `AUTH=none`. */
  token?: Token;
  /** How long a request may take, all tries and pauses included. Default 20. */
  totalSeconds?: number;
  /** How long one try may take. Default 10. */
  trySeconds?: number;
  /** A call that has not reached Paceline yet fails at its first connection error. Default true. */
  failFast?: boolean;
  /** Replaced by tests. */
  fetch?: Fetch;
  clock?: Clock;
  random?: () => number;
  newKey?: () => string;
}

export interface CallOptions {
  /** Ends the call: it rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

export interface SubmitOptions extends CallOptions {
  /** The same submit with the same key is the same task, for days. By default a new one. */
  idempotencyKey?: string;
  /** Over the limit queue nothing, and throw an error of the kind `refused`. */
  strict?: boolean;
}

export interface SubmitManyOptions extends SubmitOptions {
  /** Called after each hundred with how many tasks were submitted, and how many there are. */
  progress?: (submitted: number, all: number) => void;
}

export interface WaitOptions extends CallOptions {
  /** Without it, the wait has no end. */
  timeoutSeconds?: number;
}

/** A submitted task, or any object with the ids of one. */
export type TaskId = Pick<Task, "user_id" | "task_id">;

/** One Paceline deployment. It holds no connection that would have to be closed. */
export class Paceline {
  private readonly baseUrl: string;
  private readonly connection: Connection;
  private readonly makeKey: () => string;

  /** baseUrl: without `/api/v1`; on AWS with the stage, `https://….execute-api.….amazonaws.com/api`. */
  constructor(baseUrl: string, options: Options = {}) {
    if (!/^https?:\/\//.test(baseUrl)) {
      throw new TypeError(`baseUrl has to begin with http:// or https://, unlike ${baseUrl}`);
    }
    this.baseUrl = new URL(baseUrl).href.replace(/\/+$/, "");
    this.makeKey = options.newKey ?? newKey;
    this.connection = {
      fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
      clock: options.clock ?? systemClock,
      random: options.random ?? Math.random,
      token: options.token,
      totalSeconds: options.totalSeconds ?? 20,
      trySeconds: options.trySeconds ?? 10,
      failFast: options.failFast ?? true,
    };
  }

  /** Submits one task; over the limit it is `queued` and waits. */
  async submit(userId: string, order: TaskOrder = {}, options: SubmitOptions = {}): Promise<SubmittedTask> {
    const key = checkedKey(options.idempotencyKey ?? this.makeKey(), MAX_KEY);
    const parts = { body: { ...order, user_id: userId }, headers: submitHeaders(key, options.strict ?? false) };
    try {
      const body = await this.submitted(this.exchange(options.signal), this.call("post", "/api/v1/task", parts));
      return read<SubmittedTask>(body, "task_id");
    } catch (error) {
      if (error instanceof PacelineError) error.idempotencyKey = key;
      throw error;
    }
  }

  /**
   * Submits tasks in order, a hundred at a time, and returns them. Each hundred is taken whole or not.
   *
   * When a later hundred fails, the ones before it stay: the error's `accepted` has them, and the same call with the
   * error's `idempotencyKey` goes on behind them. A key is for the same tasks in the same order.
   */
  async submitMany(
    userId: string,
    orders: readonly TaskOrder[],
    options: SubmitManyOptions = {},
  ): Promise<SubmittedTask[]> {
    const key = checkedKey(options.idempotencyKey ?? this.makeKey(), MAX_KEY_OF_MANY);
    const exchange = this.exchange(options.signal);
    const submitted: SubmittedTask[] = [];
    try {
      for (const tasks of inParts(orders)) {
        const headers = submitHeaders(`${key}:${submitted.length}`, options.strict ?? false);
        const call = this.call("post", "/api/v1/tasks", { body: { user_id: userId, tasks }, headers });
        submitted.push(...(await this.submittedPart(exchange, call, tasks.length, submitted.length)));
        options.progress?.(submitted.length, orders.length);
      }
    } catch (error) {
      if (error instanceof PacelineError) Object.assign(error, { idempotencyKey: key, accepted: submitted });
      throw error;
    }
    return submitted;
  }

  /** The task's current state. An error of the kind `not_found` if this user has no task with that id. */
  async task(userId: string, taskId: string, { signal }: CallOptions = {}): Promise<Task> {
    const path = { user: userId, task_id: taskId };
    return this.request("get", "/api/v1/users/{user}/tasks/{task_id}", { path, signal });
  }

  /** The user's tasks, newest first; pages are fetched as they are needed. */
  async *tasks(
    userId: string,
    { state, pageSize = 100, signal }: CallOptions & { state?: State; pageSize?: number } = {},
  ): AsyncGenerator<Task, void, undefined> {
    let before: string | undefined;
    do {
      const query = { limit: pageSize, ...(state && { state }), ...(before && { before }) };
      const page = await this.request("get", "/api/v1/users/{user}/tasks", { path: { user: userId }, query, signal });
      yield* page.tasks;
      before = page.next ?? undefined;
    } while (before);
  }

  /**
   * Returns the finished task; its `state` is succeeded, failed or cancelled.
   *
   * Sleeps until the task should start, then looks at it at growing intervals. An error of the kind `wait_timeout` when
   * `timeoutSeconds` are over.
   */
  async wait(which: TaskId, { timeoutSeconds = Infinity, signal }: WaitOptions = {}): Promise<Task> {
    const path = { user: which.user_id, task_id: which.task_id };
    const { clock, random, totalSeconds } = this.connection;
    const call = this.call("get", "/api/v1/users/{user}/tasks/{task_id}", { path });
    const readTask = (body: Record<string, unknown>) => read<Task>(body, "task_id");
    const exchange = this.exchange(signal);
    return ended({ exchange, clock, random, call, read: readTask, timeoutSeconds, totalSeconds, signal });
  }

  /**
   * Cancels a task; it takes no more start. An error of the kind `conflict` when it has ended.
   *
   * A running task is asked to stop: its state is then still `running`, and `wait` returns how it ended.
   */
  async cancel(userId: string, taskId: string, { signal }: CallOptions = {}): Promise<Task> {
    const path = { user: userId, task_id: taskId };
    return this.request("delete", "/api/v1/users/{user}/tasks/{task_id}", { path, signal });
  }

  /** The user's lane; it is empty for a user who never submitted. */
  async lane(userId: string, { signal }: CallOptions = {}): Promise<Lane> {
    return this.request("get", "/api/v1/users/{user}", { path: { user: userId }, signal });
  }

  /** All lanes by user id, of users whose id begins with `search`; pages are fetched as they are needed. For admins. */
  async *lanes(
    { search, pageSize = 100, signal }: CallOptions & { search?: string; pageSize?: number } = {},
  ): AsyncGenerator<Lane, void, undefined> {
    let before: string | undefined;
    do {
      const query = { limit: pageSize, ...(search && { search }), ...(before && { before }) };
      const page = await this.request("get", "/api/v1/lanes", { query, signal });
      yield* page.lanes;
      before = page.next ?? undefined;
    } while (before);
  }

  /** Gives the user limits of its own, such as `5/second; 100/minute`, in force from the next start on. */
  async setLimits(userId: string, limits: string, { signal }: CallOptions = {}): Promise<Lane> {
    return this.request("put", "/api/v1/users/{user}/limits", { path: { user: userId }, body: { limits }, signal });
  }

  /** Gives the user the deployment's limits again. */
  async clearLimits(userId: string, { signal }: CallOptions = {}): Promise<Lane> {
    return this.request("delete", "/api/v1/users/{user}/limits", { path: { user: userId }, signal });
  }

  /** Puts the user into a group, such as a tenant's, that takes turns as one; null for no group. */
  async setGroup(userId: string, group: string | null, { signal }: CallOptions = {}): Promise<Lane> {
    return this.request("put", "/api/v1/users/{user}", { path: { user: userId }, body: { group }, signal });
  }

  /** Pauses the lane until that time, epoch milliseconds or a Date, or without an end. Then no task starts. */
  async pause(userId: string, until?: number | Date, { signal }: CallOptions = {}): Promise<Lane> {
    const body = until === undefined ? {} : { until: Number(until) };
    return this.request("post", "/api/v1/users/{user}/pause", { path: { user: userId }, body, signal });
  }

  /** Ends the lane's pause, if there is one. */
  async resume(userId: string, { signal }: CallOptions = {}): Promise<Lane> {
    return this.request("post", "/api/v1/users/{user}/resume", { path: { user: userId }, signal });
  }

  /** The state of the services behind the API. Tries once. */
  async health({ signal }: CallOptions = {}): Promise<Health> {
    const exchange = this.exchange(signal);
    const reply = await exchange.sendOnce(this.call("get", "/health"));
    if (![200, 503].includes(reply.status) || !("dynamodb" in reply.body)) throw exchange.problem(reply);
    return read<Health>(reply.body, "dynamodb");
  }

  /** Any route of the API that answers with JSON, by the types of the OpenAPI document. */
  async request<R extends Route, M extends MethodOf<R>>(
    method: M,
    route: R,
    { path, query, body, signal }: Arguments<R, M> = {},
  ): Promise<AnswerOf<R, M>> {
    const call = this.call(method, route, { path, query, body } as Parts);
    return (await this.exchange(signal).body(call)) as AnswerOf<R, M>;
  }

  private call(method: string, route: Route, parts: Parts = {}): Call {
    return makeCall(this.baseUrl, method, route, parts);
  }

  private exchange(signal: AbortSignal | undefined): Exchange {
    return new Exchange(this.connection, signal);
  }

  /** Returns an accepted submit's answer: 202, or 429 with the queued task. */
  private async submitted(exchange: Exchange, call: Call): Promise<Record<string, unknown>> {
    const reply = await exchange.send(call);
    if (isSuccess(reply) || (reply.status === 429 && reply.body["queued"] === true)) return reply.body;
    throw exchange.problem(reply);
  }

  private async submittedPart(exchange: Exchange, call: Call, count: number, first: number): Promise<SubmittedTask[]> {
    try {
      const { tasks } = read<{ tasks: SubmittedTask[] }>(await this.submitted(exchange, call), "tasks");
      if (tasks.length !== count) throw new AnswerError(`${count} tasks were sent, and ${tasks.length} answered`);
      return tasks;
    } catch (error) {
      if (!(error instanceof ProblemError)) throw error;
      throw new ProblemError(error.kind, { ...error, field: fieldOfAll(error.field, first) });
    }
  }
}

/** AnswerError if the body lacks the field that each such answer has. */
function read<Value>(body: Record<string, unknown>, field: string): Value {
  if (!(field in body)) throw new AnswerError(`the answer has no \`${field}\``);
  return body as Value;
}
