/**
 * Sends one call's requests: time-outs, retries and their budget, and problem answers as errors.
 *
 * Every request may be sent again: a submit carries an idempotency key, all others change nothing the second time.
 */

import type { Clock } from "./clock.js";
import { AnswerError, ProblemError, UnavailableError, problemKind } from "./errors.js";
import { type Call, type Fetch, Lost, type Reply, tryOnce } from "./network.js";

/** Seconds before the second try; they double from try to try, up to the most. */
const FIRST_BACKOFF_SECONDS = 0.2;
const MAX_BACKOFF_SECONDS = 5;
/** Answers that say nothing about the request itself. */
const TRANSIENT = new Set([502, 503, 504]);

export type Token = string | (() => string | Promise<string>) | undefined;

export interface Connection {
  fetch: Fetch;
  clock: Clock;
  random: () => number;
  token: Token;
  totalSeconds: number;
  trySeconds: number;
  failFast: boolean;
}

export class Exchange {
  private hasReached = false;

  constructor(
    private readonly connection: Connection,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** Sends until an answer is final; UnavailableError if none is within the time. */
  async send(call: Call, withinSeconds = Infinity): Promise<Reply> {
    const { clock, totalSeconds, trySeconds } = this.connection;
    const deadline = clock.monotonic() + Math.min(totalSeconds, withinSeconds);
    let wasSent = false;
    for (let tries = 1; ; tries += 1) {
      const seconds = Math.max(0.01, Math.min(trySeconds, deadline - clock.monotonic()));
      const outcome = await this.attempt(call, seconds);
      if (!(outcome instanceof Lost) && !isTransient(outcome)) return outcome;
      wasSent ||= !(outcome instanceof Lost) || outcome.wasSent;
      const pause = this.backoff(outcome, tries);
      if (this.isHopeless(outcome) || clock.monotonic() + pause >= deadline) {
        throw unavailable(outcome, tries, wasSent);
      }
      await clock.sleep(pause, this.signal);
    }
  }

  async sendOnce(call: Call): Promise<Reply> {
    const outcome = await this.attempt(call, this.connection.trySeconds);
    if (outcome instanceof Lost) throw unavailable(outcome, 1, outcome.wasSent);
    return outcome;
  }

  /** Returns a successful answer's body; throws the error of any other answer. */
  async body(call: Call): Promise<Record<string, unknown>> {
    const reply = await this.send(call);
    if (!isSuccess(reply)) throw this.problem(reply);
    if (reply.status !== 204 && !Object.keys(reply.body).length) throw new AnswerError("the answer is no JSON object");
    return reply.body;
  }

  /** The error of an unsuccessful answer: its problem body (RFC 9457), else its status. */
  problem(reply: Reply): ProblemError | AnswerError {
    const { status, body } = reply;
    if (status === 0) return new AnswerError("the answer is a redirect");
    return new ProblemError(problemKind(status), {
      status,
      title: String(body["title"] ?? body["message"] ?? reply.statusText),
      detail: String(body["detail"] ?? ""),
      field: typeof body["field"] === "string" ? body["field"] : undefined,
      retryAfterSeconds: this.retryAfter(reply),
    });
  }

  private async attempt(call: Call, seconds: number): Promise<Reply | Lost> {
    const headers = { ...call.headers, ...(await this.authorization()) };
    const outcome = await tryOnce(this.connection.fetch, { ...call, headers }, seconds, this.signal);
    this.hasReached ||= !(outcome instanceof Lost) || outcome.wasSent;
    return outcome;
  }

  private async authorization(): Promise<Record<string, string>> {
    const { token } = this.connection;
    const text = typeof token === "function" ? await token() : token;
    if (text === undefined) return {};
    if (!/^[ -~]+$/.test(text)) throw new RangeError("the token has characters that no header can hold");
    return { Authorization: `Bearer ${text}` };
  }

  /** Seconds until the next try: half fixed, half random, so that clients do not retry in step. */
  private backoff(outcome: Reply | Lost, tries: number): number {
    const backoff = Math.min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** Math.min(tries - 1, 10));
    const jittered = backoff / 2 + (backoff / 2) * this.connection.random();
    const asked = outcome instanceof Lost ? undefined : this.retryAfter(outcome);
    return asked === undefined ? jittered : asked + jittered;
  }

  /** Seconds from now; the header holds seconds or a date. */
  private retryAfter(reply: Reply): number | undefined {
    const text = reply.headers.get("Retry-After") ?? "";
    if (/^\d+$/.test(text)) return Number(text);
    const at = httpDate(text);
    return at === undefined ? undefined : Math.max(0, at - this.connection.clock.now());
  }

  /** The call gives up now: no connection, where that fails fast, or a request that no retry helps. */
  private isHopeless(outcome: Reply | Lost): boolean {
    if (!(outcome instanceof Lost)) return false;
    const isUnreached = this.connection.failFast && !this.hasReached;
    return outcome.isHopeless || (isUnreached && !outcome.wasSent);
  }
}

export function isSuccess(reply: Reply): boolean {
  return reply.status >= 200 && reply.status < 300;
}

/** Epoch seconds; undefined if it is not a date. */
export function httpDate(text: string): number | undefined {
  const at = /^[A-Z][a-z]{2}, /.test(text) ? Date.parse(text) / 1000 : NaN;
  return Number.isNaN(at) ? undefined : at;
}

/** A 409 about the key means that the first try is still being served. */
function isTransient({ status, body }: Reply): boolean {
  return TRANSIENT.has(status) || (status === 409 && body["field"] === "Idempotency-Key");
}

function unavailable(outcome: Reply | Lost, tries: number, wasSent: boolean): UnavailableError {
  if (outcome instanceof Lost) return new UnavailableError(outcome.text, tries, undefined, wasSent, outcome.reason);
  const title = String(outcome.body["title"] ?? outcome.statusText);
  return new UnavailableError(`${outcome.status} ${title}`, tries, outcome.status, wasSent);
}
