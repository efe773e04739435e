/**
 * The errors of a call. A task that waits or failed is a value, not an error.
 *
 * Tell errors apart by `kind`, or by their classes. `kind` also works where a program loads both the ES module and the
 * CommonJS build of this package.
 */

import type { SubmittedTask, Task } from "./types.js";

export type ProblemKind =
  | "invalid"
  | "unauthenticated"
  | "forbidden"
  | "not_found"
  | "conflict"
  | "refused"
  | "problem";
export type ErrorKind = ProblemKind | "unavailable" | "answer" | "wait_timeout";

export class PacelineError extends Error {
  readonly kind: ErrorKind;
  /** The failed submit's key, with which it can be repeated safely. */
  idempotencyKey: string | undefined;
  /** From `submitMany`: the tasks that were submitted before the error. */
  accepted: readonly SubmittedTask[] = [];

  constructor(kind: ErrorKind, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.kind = kind;
  }
}

export interface Problem {
  status: number;
  title: string;
  detail: string;
  /** The JSON pointer, header or parameter at fault. */
  field: string | undefined;
  /** Seconds after which to retry; undefined if the answer has no Retry-After. */
  retryAfterSeconds: number | undefined;
}

/** Paceline refused the request. A repeat helps only if `retryAfterSeconds` is given. */
export class ProblemError extends PacelineError implements Problem {
  declare readonly kind: ProblemKind;
  readonly status: number;
  readonly title: string;
  readonly detail: string;
  readonly field: string | undefined;
  readonly retryAfterSeconds: number | undefined;

  constructor(kind: ProblemKind, problem: Problem) {
    const { status, title, detail, field, retryAfterSeconds } = problem;
    super(kind, `${status} ${title}${field ? ` (${field})` : ""}${detail ? `: ${detail}` : ""}`);
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.field = field;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/**
 * No connection, or no answer in the time that the call had, all tries included.
 *
 * If it `wasSent`, it is not known whether a submit was taken: submit the same again with the error's `idempotencyKey`.
 */
export class UnavailableError extends PacelineError {
  readonly tries: number;
  /** The last answer's HTTP status; undefined when there was none. */
  readonly status: number | undefined;
  /** False if the server can't have read the request: then nothing was submitted. Browsers don't say, so it is true there. */
  readonly wasSent: boolean;

  constructor(reason: string, tries: number, status: number | undefined, wasSent: boolean, cause?: unknown) {
    super("unavailable", `${reason}; gave up after ${tries} ${tries === 1 ? "try" : "tries"}`, { cause });
    this.tries = tries;
    this.status = status;
    this.wasSent = wasSent;
  }
}

/** The answer is not Paceline's, or of another version. */
export class AnswerError extends PacelineError {
  constructor(message: string) {
    super("answer", `${message}: is this a Paceline?`);
  }
}

/** The task did not finish within the timeout. It stays queued or running. */
export class WaitTimeoutError extends PacelineError {
  /** The task as it was seen last; undefined if no look succeeded. */
  readonly task: Task | undefined;

  constructor(task: Task | undefined, cause?: unknown) {
    super("wait_timeout", task ? `task ${task.task_id} is ${task.state}` : "nothing is known of the task", { cause });
    this.task = task;
  }
}

const KINDS: Record<number, ProblemKind> = {
  400: "invalid",
  401: "unauthenticated",
  403: "forbidden",
  404: "not_found",
  409: "conflict",
  413: "invalid",
  415: "invalid",
  422: "invalid",
  429: "refused",
};

export function problemKind(status: number): ProblemKind {
  return KINDS[status] ?? "problem";
}
