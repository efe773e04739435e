/** The values of requests and answers: the schemas of the OpenAPI document. Times are epoch milliseconds. */

import type { components, paths } from "./api.js";

type Schemas = components["schemas"];

/** One task to be run; a field that is left out has its default. */
export type TaskOrder = Schemas["TaskRequest"];
export type SubmittedTask = Schemas["SubmittedTask"];
export type Task = Schemas["TaskAnswer"];
export type State = Task["state"];
export type Lane = Schemas["LaneAnswer"];
export type Limit = Schemas["LimitAnswer"];
export type Health = Schemas["HealthAnswer"];

export type Route = keyof paths;
type Verb = "get" | "put" | "post" | "delete";
/** The methods of a route. */
export type MethodOf<R extends Route> = {
  [M in Verb]: paths[R][M] extends { responses: unknown } ? M : never;
}[Verb];

type Operation<R extends Route, M extends Verb> = paths[R][M];
type Parameters<O> = O extends { parameters: infer P } ? P : never;
type Part<O, Name extends string> = Parameters<O> extends { [K in Name]?: infer P } ? P : never;
type JsonBody<O> = O extends { requestBody?: { content: { "application/json": infer B } } } ? B : never;
type Success<O> = O extends { responses: infer R } ? R[Extract<keyof R, 200 | 202>] : never;

/** The body of a successful answer. */
export type AnswerOf<R extends Route, M extends Verb> =
  Success<Operation<R, M>> extends { content: { "application/json": infer B } } ? B : unknown;

/** A route's arguments: the parameters of its path, its query, its body. */
export interface Arguments<R extends Route, M extends Verb> {
  path?: Part<Operation<R, M>, "path">;
  query?: Part<Operation<R, M>, "query">;
  body?: JsonBody<Operation<R, M>>;
  signal?: AbortSignal | undefined;
}
