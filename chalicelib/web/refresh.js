// Refreshes a page: one request at a time, none while hidden, with growing intervals while the API does not answer.

const SLOWEST_MS = 15_000;

/** Calls `work` repeatedly. `work` returns the milliseconds until its next call. */
export class Refresher {
  constructor(work, { onError, onGood }) {
    this.work = work;
    this.onError = onError;
    this.onGood = onGood;
    this.failures = 0;
    this.abort = new AbortController();
    this.onVisible = () => (document.hidden ? clearTimeout(this.timer) : this.now());
    document.addEventListener("visibilitychange", this.onVisible);
    this.now();
  }

  /** Calls it now, after a running call has ended, and then at its usual rhythm. */
  now() {
    clearTimeout(this.timer);
    if (this.busy) this.again = true;
    else void this.run();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    this.abort.abort();
    document.removeEventListener("visibilitychange", this.onVisible);
  }

  async run() {
    if (this.stopped || document.hidden) return;
    this.busy = true;
    this.again = false;
    let wait;
    try {
      wait = await this.work(this.abort.signal);
      this.failures = 0;
      if (!this.stopped) this.onGood();
    } catch (error) {
      if (this.stopped) return;
      this.failures += 1;
      wait = Math.min(SLOWEST_MS, 1000 * 2 ** (this.failures - 1));
      if (this.onError(error, wait) === false) return this.stop();
    } finally {
      this.busy = false;
    }
    if (!this.stopped) this.timer = setTimeout(() => this.run(), this.again ? 0 : wait);
  }
}
