// Models each lane's starts and draws them: starts and planned starts on a time axis around now, and the fill of each
// limit's window over time.

/** The server's clock, estimated from its answers. */
export const clock = {
  offset: null,
  set(serverNow) {
    const offset = serverNow - Date.now();
    this.offset = this.offset === null || Math.abs(offset - this.offset) > 2000 ? offset : this.offset + (offset - this.offset) / 8;
  },
  now() {
    return Date.now() + (this.offset ?? 0);
  },
};

const KEPT_MS = 300_000;
/** Longest window whose fill is drawn; a longer one changes too slowly to see. */
const DRAWN_WINDOW_SECONDS = 120;
/** Largest quota whose starts the API lists one by one; what a larger one, or one of units, has used is sampled. */
const LISTED_QUOTA = 100;
const isSampled = (policy) => policy.counts === "units" || policy.quota > LISTED_QUOTA;

/** A lane's starts. The API returns only the newest, so earlier answers are kept. */
export class Line {
  constructor() {
    this.starts = [];
    this.planned = [];
    this.policies = [];
    /** By policy name: [time, used] of each answer. */
    this.samples = new Map();
    /** Units by time of start, as far as the tasks of the page tell. */
    this.units = new Map();
    /** Time from which on every start is known. */
    this.knownFrom = Infinity;
  }

  update(lane) {
    const oldest = lane.starts.at(-1);
    const all = lane.starts.length >= lane.started;
    const gap = this.starts.length && oldest > this.starts.at(-1);
    if (all) this.knownFrom = -Infinity;
    else if (this.knownFrom === Infinity || gap) this.knownFrom = oldest ?? clock.now();
    const kept = new Set([...this.starts, ...lane.starts]);
    this.starts = [...kept].filter((at) => at > lane.now - KEPT_MS).sort((a, b) => a - b);
    this.planned = lane.next_starts;
    this.policies = lane.policies;
    this.sample(lane);
    /** End of a pause or throttling. */
    this.barredUntil = lane.paused ? (lane.paused_until ?? Infinity) : (lane.throttled_until ?? 0);
  }

  sample(lane) {
    for (const policy of lane.policies.filter(isSampled)) {
      const key = `${policy.name} ${policy.quota}`;
      const known = (this.samples.get(key) ?? []).filter(([at]) => at > lane.now - KEPT_MS && at < lane.now);
      this.samples.set(key, [...known, [lane.now, policy.used]]);
    }
  }

  /** Takes starts and their units from tasks. The API lists few starts of a lane with large limits only. */
  learn(tasks) {
    for (const { started_at: at, units = 1 } of tasks) if (at !== null) this.units.set(at, units);
    for (const at of this.units.keys()) if (at <= clock.now() - KEPT_MS) this.units.delete(at);
    this.starts = [...new Set([...this.starts, ...this.units.keys()])].sort((a, b) => a - b);
  }

  /** True if a limit counts units: starts are then drawn as high as their units. */
  get hasUnits() {
    return this.policies.some((policy) => policy.counts === "units");
  }

  /** Starts, or units, in the window that ends now; the API's count if it is sampled or longer than the known starts. */
  used(policy, now) {
    if (isSampled(policy)) return policy.used;
    const since = now - policy.window_seconds * 1000;
    if (since < this.knownFrom && policy.window_seconds > DRAWN_WINDOW_SECONDS) return policy.quota - policy.remaining;
    const count = this.starts.filter((at) => at > since && at <= now).length;
    return Math.min(policy.quota, count);
  }

  /** The limit whose window is drawn in the overview: the longest that fits. */
  main() {
    const fitting = this.policies.filter((policy) => policy.window_seconds <= DRAWN_WINDOW_SECONDS);
    return fitting.at(-1) ?? this.policies.at(-1);
  }

  /** The units of that start as a share of the most of any known start; 0 if they are not known. */
  share(at) {
    return this.units.size ? (this.units.get(at) ?? 0) / Math.max(...this.units.values()) : 0;
  }

  /** Planned starts; overdue ones count as due now. */
  due(now) {
    return this.planned.map((at) => Math.max(at, now));
  }

  /** Time from which on the fill of the limit's window is known. */
  filledFrom(policy) {
    if (isSampled(policy)) return this.samples.get(`${policy.name} ${policy.quota}`)?.[0][0] ?? Infinity;
    return this.knownFrom + policy.window_seconds * 1000;
  }

  /**
   * Fill of the window that ends at each moment: [time, starts in it] at every change, planned starts included. A
   * sampled limit's fill is known up to now.
   */
  filling(policy, now) {
    if (isSampled(policy)) return [...(this.samples.get(`${policy.name} ${policy.quota}`) ?? []), [now, 0]];
    const width = policy.window_seconds * 1000;
    const changes = [...this.starts, ...this.due(now)].flatMap((at) => [[at, 1], [at + width, -1]]);
    changes.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    let count = 0;
    return changes.map(([at, step]) => [at, (count += step)]);
  }
}

/** Time span that a picture of that width shows, ms before and after now. */
export function spanFor(width) {
  if (width < 420) return [40_000, 25_000];
  return width < 640 ? [60_000, 40_000] : [75_000, 60_000];
}

export const colors = {
  read() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["ink", "muted", "line", "accent", "full", "card", "warn"]) this[name] = style.getPropertyValue(`--${name}`).trim();
  },
};

/** Prepares a canvas for drawing in CSS pixels; null before layout. */
function prepared(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || !height) return null;
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  const [before, after] = spanFor(width);
  const now = clock.now();
  const x = (at) => ((at - now + before) / (before + after)) * width;
  return { context, width, height, now, from: now - before, to: now + after, x };
}

/** Draws the time axis: seconds from now. */
export function drawAxis(canvas) {
  const view = prepared(canvas);
  if (!view) return;
  const { context, width, height, now, from, to, x } = view;
  context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  const step = width < 420 ? 20_000 : 30_000;
  for (let offset = -3 * step; offset <= 2 * step; offset += step) {
    const at = now + offset;
    if (at < from || at > to || offset === 0) continue;
    const text = `${offset > 0 ? "+" : "−"}${Math.abs(offset) / 1000} s`;
    const half = context.measureText(text).width / 2;
    if (x(at) - half < 0 || x(at) + half > width) continue;
    context.fillStyle = colors.muted;
    context.fillText(text, x(at), height / 2);
  }
  context.fillStyle = colors.ink;
  context.font = `600 ${context.font}`;
  context.fillText("now", x(now), height / 2);
}

/** Draws a lane as one line: the fill of its main limit's window, with the starts at the bottom. */
export function drawLine(canvas, line) {
  const view = prepared(canvas);
  if (!view) return;
  const policy = line.main();
  const ground = view.height - 8;
  drawGrid(view, 0, view.height);
  if (policy) drawFilling(view, line, policy, 5, ground - 5);
  drawBar(view, line, 0, view.height);
  drawStarts(view, line, ground);
  drawNow(view, 0, view.height);
}

/** Draws the window of one limit. */
export function drawBand(canvas, line, policy) {
  const view = prepared(canvas);
  if (!view) return;
  drawGrid(view, 0, view.height);
  drawFilling(view, line, policy, 6, view.height - 1);
  drawBar(view, line, 0, view.height);
  drawNow(view, 0, view.height);
}

/** Draws the starts. */
export function drawTrack(canvas, line) {
  const view = prepared(canvas);
  if (!view) return;
  drawGrid(view, 0, view.height);
  drawBar(view, line, 0, view.height);
  drawStarts(view, line, line.hasUnits ? view.height - 6 : view.height / 2);
  drawNow(view, 0, view.height);
}

function drawGrid({ context, width, now, from, to, x }, top, bottom) {
  context.strokeStyle = colors.line;
  context.lineWidth = 1;
  const step = width < 420 ? 10_000 : 15_000;
  for (let offset = -90_000; offset <= 60_000; offset += step) {
    const at = now + offset;
    if (at < from || at > to || offset === 0) continue;
    const left = Math.round(x(at)) + 0.5;
    context.beginPath();
    context.moveTo(left, top);
    context.lineTo(left, bottom);
    context.stroke();
  }
}

function drawNow({ context, now, x }, top, bottom) {
  context.strokeStyle = colors.ink;
  context.globalAlpha = 0.75;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(Math.round(x(now)) + 0.5, top);
  context.lineTo(Math.round(x(now)) + 0.5, bottom);
  context.stroke();
  context.globalAlpha = 1;
}

function drawFilling(view, line, policy, top, bottom) {
  const { context, width, now, from, to, x } = view;
  const knownAt = Math.max(from, line.filledFrom(policy));
  const begin = Math.min(knownAt, now);
  const y = (count) => bottom - (Math.min(count, policy.quota) / policy.quota) * (bottom - top);
  const steps = line.filling(policy, now);
  const part = (since, until, alpha, isFull) => {
    context.globalAlpha = alpha;
    context.fillStyle = isFull ? colors.full : colors.accent;
    let level = 0;
    let at = since;
    // One path for all, since adjacent fills would show a seam.
    context.beginPath();
    const column = (end) => {
      const shown = isFull ? level >= policy.quota : level < policy.quota;
      if (level > 0 && end > at && shown) context.rect(x(at), y(level), x(end) - x(at), bottom - y(level));
    };
    for (const [when, count] of steps) {
      if (when > until) break;
      if (when > since) {
        column(when);
        at = when;
      }
      level = count;
    }
    column(until);
    context.fill();
  };
  for (const isFull of [false, true]) {
    part(begin, now, isFull ? 0.3 : 0.34, isFull);
    part(now, to, 0.14, isFull);
  }
  context.globalAlpha = 1;
  context.strokeStyle = colors.muted;
  context.globalAlpha = 0.55;
  context.setLineDash([2, 3]);
  context.beginPath();
  context.moveTo(0, Math.round(top) - 0.5);
  context.lineTo(width, Math.round(top) - 0.5);
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 1;
}

function drawBar({ context, width, now, to, x }, line, top, bottom) {
  if (!(line.barredUntil > now)) return;
  const left = x(now);
  const right = Math.min(width, x(Math.min(line.barredUntil, to)));
  context.save();
  context.beginPath();
  context.rect(left, top, right - left, bottom - top);
  context.clip();
  context.strokeStyle = colors.warn;
  context.globalAlpha = 0.3;
  context.beginPath();
  for (let at = left - (bottom - top); at < right; at += 7) {
    context.moveTo(at, bottom);
    context.lineTo(at + bottom - top, top);
  }
  context.stroke();
  context.restore();
}

function drawStarts({ context, width, now, from, to, x }, line, ground) {
  context.strokeStyle = colors.muted;
  context.globalAlpha = 0.5;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(0, Math.round(ground) + 0.5);
  context.lineTo(width, Math.round(ground) + 0.5);
  context.stroke();
  context.globalAlpha = 1;
  context.fillStyle = colors.accent;
  for (const at of line.starts) {
    if (at < from || at > to) continue;
    // A new start is drawn larger for a moment, so that it is seen at the line of now.
    const fresh = Math.max(0, 1 - (now - at) / 900);
    const height = line.hasUnits ? (ground - 5) * line.share(at) : 0;
    if (height > 1) context.fillRect(x(at) - 1, ground - height, 2, height);
    dot(context, x(at), ground - height, 2.6 + 1.8 * fresh);
    context.fill();
  }
  context.strokeStyle = colors.accent;
  context.lineWidth = 1.3;
  for (const at of line.due(now)) {
    if (at > to || at < from) continue;
    dot(context, x(at), ground, 2.6);
    context.fillStyle = colors.card;
    context.fill();
    context.stroke();
  }
}

function dot(context, left, top, radius) {
  context.beginPath();
  context.arc(left, top, radius, 0, 2 * Math.PI);
}

const still = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

/** Milliseconds between frames: pictures move about 6 pixels a second, so more frames would look no smoother. */
const FRAME_MS = 80;

/** Draws all pictures of the page; once a second if the user prefers reduced motion. */
export function animate(draw) {
  let drawnAt = 0;
  let frame;
  colors.read();
  const recolor = () => colors.read();
  dark.addEventListener("change", recolor);
  const step = (at) => {
    if (at - drawnAt >= (still.matches ? 1000 : FRAME_MS)) {
      drawnAt = at;
      draw();
    }
    frame = requestAnimationFrame(step);
  };
  frame = requestAnimationFrame(step);
  return () => {
    cancelAnimationFrame(frame);
    dark.removeEventListener("change", recolor);
  };
}
