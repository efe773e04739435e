/** One try of one request. */

/** A request, the same for each try. */
export interface Call {
  method: string;
  url: string;
  body?: string | undefined;
  headers: Readonly<Record<string, string>>;
}

/** An answer, read to its end. */
export interface Reply {
  status: number;
  statusText: string;
  headers: Headers;
  /** Empty if the body is not a JSON object. */
  body: Record<string, unknown>;
}

/** A try without an answer. */
export class Lost {
  constructor(
    readonly reason: unknown,
    readonly timedOut: boolean,
  ) {}

  get text(): string {
    if (this.timedOut) return "no answer in time";
    const codes = codesOf(this.reason);
    return codes.length ? `${String(this.reason)} (${codes.join(", ")})` : String(this.reason);
  }

  /** False only if the server can't have read the request. Browsers hide the reason, so there it is true. */
  get wasSent(): boolean {
    return !this.isHopeless && !codesOf(this.reason).some((code) => UNSENT.has(code));
  }

  /** No retry helps: an invalid certificate, or a request that Node refuses to send, which has a cause without a code. */
  get isHopeless(): boolean {
    const codes = codesOf(this.reason);
    if (codes.some((code) => /CERT|UNABLE_TO_VERIFY/.test(code))) return true;
    return !this.timedOut && !codes.length && this.reason instanceof Error && this.reason.cause instanceof Error;
  }
}

/** Node's codes of errors before a connection was there. */
const UNSENT = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
]);

function codesOf(error: unknown): string[] {
  if (!(error instanceof Error)) return [];
  const { code, cause, errors } = error as { code?: unknown; cause?: unknown; errors?: unknown[] };
  const own = typeof code === "string" ? [code] : [];
  return [...own, ...[cause, ...(errors ?? [])].flatMap(codesOf)];
}

export type Fetch = typeof globalThis.fetch;

/** Sends once. Rejects only with the reason of the caller's aborted signal. */
export async function tryOnce(fetch: Fetch, call: Call, seconds: number, signal?: AbortSignal): Promise<Reply | Lost> {
  signal?.throwIfAborted();
  const controller = new AbortController();
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    controller.abort();
  }, seconds * 1000);
  const stop = () => controller.abort();
  signal?.addEventListener("abort", stop, { once: true });
  try {
    return await answered(fetch, call, controller.signal);
  } catch (error) {
    signal?.throwIfAborted();
    return new Lost(error, timedOut);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

async function answered(fetch: Fetch, call: Call, signal: AbortSignal): Promise<Reply> {
  const { method, url, headers, body } = call;
  const init: RequestInit = { method, headers, redirect: "manual", signal };
  const response = await fetch(url, body === undefined ? init : { ...init, body });
  const { status, statusText } = response;
  return { status, statusText, headers: response.headers, body: jsonObject(await response.text()) };
}

function jsonObject(text: string): Record<string, unknown> {
  try {
    const body: unknown = JSON.parse(text);
    return typeof body === "object" && body !== null && !Array.isArray(body) ? (body as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
