export { Paceline } from "./client.js";
export type { CallOptions, Options, SubmitManyOptions, SubmitOptions, TaskId, WaitOptions } from "./client.js";
export type { Clock } from "./clock.js";
export { AnswerError, PacelineError, ProblemError, UnavailableError, WaitTimeoutError } from "./errors.js";
export type { ErrorKind, Problem, ProblemKind } from "./errors.js";
export type { Token } from "./exchange.js";
export type {
  AnswerOf,
  Arguments,
  Health,
  Lane,
  Limit,
  MethodOf,
  Route,
  State,
  SubmittedTask,
  Task,
  TaskOrder,
} from "./types.js";
export { hasEnded } from "./waiting.js";
