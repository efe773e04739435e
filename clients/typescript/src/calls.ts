/** Builds requests: paths, keys, and the parts of a large submit. */

import type { Call } from "./network.js";
import type { TaskOrder } from "./types.js";

/** Tasks of one request to the API, and bytes of their JSON, with room for the rest of the body. */
const MAX_TASKS = 100;
const MAX_BYTES = 3_900_000;
/** Longest key for one task, and for many, which get a part number appended. */
export const MAX_KEY = 255;
export const MAX_KEY_OF_MANY = 240;

export interface Parts {
  path?: Record<string, unknown> | undefined;
  query?: Record<string, unknown> | undefined;
  body?: unknown;
  headers?: Record<string, string>;
}

export function makeCall(baseUrl: string, method: string, route: string, parts: Parts): Call {
  const path = route.replace(/\{(\w+)\}/g, (_, name: string) => pathPart(String(parts.path?.[name])));
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parts.query ?? {})) {
    if (value !== undefined && value !== null) query.set(name, String(value));
  }
  const headers: Record<string, string> = { Accept: "application/json", ...parts.headers };
  const url = `${baseUrl}${path}${query.size ? `?${query}` : ""}`;
  if (parts.body === undefined) return { method: method.toUpperCase(), url, headers };
  headers["Content-Type"] = "application/json";
  return { method: method.toUpperCase(), url, headers, body: JSON.stringify(parts.body) };
}

/** `.` and `..` are legal ids, but would be tidied out of a path; a space before them is not part of the id. */
function pathPart(id: string): string {
  return id === "." || id === ".." ? `%20${id}` : encodeURIComponent(id);
}

export function submitHeaders(key: string, strict: boolean): Record<string, string> {
  const headers = { "Idempotency-Key": `"${key.replace(/[\\"]/g, "\\$&")}"` };
  return strict ? { ...headers, Prefer: "handling=strict" } : headers;
}

/** RangeError for a key that no header can hold. */
export function checkedKey(key: string, longest: number): string {
  if (!/^[ -~]+$/.test(key) || key.length > longest) {
    throw new RangeError(`idempotencyKey has to be 1 to ${longest} printable ASCII characters`);
  }
  return key;
}

/** A UUID; also in pages without https, where browsers have no randomUUID. */
export function newKey(): string {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Splits the orders into requests; the same orders always give the same parts. */
export function inParts(orders: readonly TaskOrder[]): TaskOrder[][] {
  const found: TaskOrder[][] = [];
  let size = 0;
  for (const order of orders) {
    const orderSize = new TextEncoder().encode(JSON.stringify(order)).length + 1;
    let part = found.at(-1);
    if (part === undefined || part.length === MAX_TASKS || size + orderSize > MAX_BYTES) {
      part = [];
      found.push(part);
      size = 0;
    }
    part.push(order);
    size += orderSize;
  }
  return found;
}

/** Turns a pointer into one part into a pointer into all tasks. */
export function fieldOfAll(field: string | undefined, first: number): string | undefined {
  return field?.replace(/^\/tasks\/(\d+)/, (_, index: string) => `/tasks/${Number(index) + first}`);
}
