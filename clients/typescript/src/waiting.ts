/** Waits for a task's outcome: sleeps until the task should start, then looks at growing intervals. */

import type { Clock } from "./clock.js";
import { UnavailableError, WaitTimeoutError } from "./errors.js";
import { type Exchange, httpDate, isSuccess } from "./exchange.js";
import type { Call, Reply } from "./network.js";
import type { Task } from "./types.js";

/** Shortest and longest seconds between two looks at a task that should have started. */
const FIRST_LOOK_SECONDS = 0.1;
const LAST_LOOK_SECONDS = 5;
const LOOK_GROWTH = 1.5;
/** Longest sleep: cancellations and changed limits are noticed after it. */
const MAX_SLEEP_SECONDS = 60;
/** Seconds that the last request gets, even after the deadline. */
const SHORTEST_TRY_SECONDS = 1;
/** Clock differences below this are ignored: the Date header has whole seconds. */
const CLOCK_DOUBT_SECONDS = 2;

const FINAL = new Set<string>(["succeeded", "failed", "cancelled"]);

export function hasEnded(task: Task): boolean {
  return FINAL.has(task.state) || task.completed_at !== null;
}

export interface Wait {
  exchange: Exchange;
  clock: Clock;
  random: () => number;
  call: Call;
  read: (body: Record<string, unknown>) => Task;
  timeoutSeconds: number;
  totalSeconds: number;
  signal: AbortSignal | undefined;
}

/** Returns the finished task. WaitTimeoutError after the timeout. */
export async function ended(wait: Wait): Promise<Task> {
  const { clock } = wait;
  const deadline = clock.monotonic() + wait.timeoutSeconds;
  let seen: Task | undefined;
  for (let look = FIRST_LOOK_SECONDS; ; ) {
    const reply = await looked(wait, deadline - clock.monotonic(), seen);
    seen = wait.read(reply.body);
    if (hasEnded(seen)) return seen;
    const untilStart = secondsUntilStart(seen, reply, clock);
    const left = deadline - clock.monotonic();
    if (left <= 0) throw new WaitTimeoutError(seen);
    const pause = Math.max(untilStart, 0) + look * (0.75 + wait.random() / 2);
    await clock.sleep(Math.min(pause, MAX_SLEEP_SECONDS, left), wait.signal);
    if (untilStart < look) look = Math.min(look * LOOK_GROWTH, LAST_LOOK_SECONDS);
  }
}

async function looked(wait: Wait, left: number, seen: Task | undefined): Promise<Reply> {
  try {
    const reply = await wait.exchange.send(wait.call, Math.max(left, SHORTEST_TRY_SECONDS));
    if (!isSuccess(reply)) throw wait.exchange.problem(reply);
    return reply;
  } catch (error) {
    const isLate = error instanceof UnavailableError && left <= wait.totalSeconds && (seen !== undefined || error.wasSent);
    throw isLate ? new WaitTimeoutError(seen, error) : error;
  }
}

/** By this machine's clock, or the server's if they differ; 0 if the start is unknown. */
function secondsUntilStart(task: Task, reply: Reply, clock: Clock): number {
  if (task.estimated_at === null) return 0;
  const here = clock.now();
  const there = httpDate(reply.headers.get("Date") ?? "");
  const now = there === undefined || Math.abs(there - here) <= CLOCK_DOUBT_SECONDS ? here : there;
  return task.estimated_at / 1000 - now;
}
