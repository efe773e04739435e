// Keeping a page fresh: one request at a time, none while hidden, fewer and fewer while the API does not answer.

const SLOWEST_MS = 15_000;

/** Calls `work` again and again. `work` returns after how many ms it wants to be called next. */
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

  /** Now, and then in its rhythm; what is under way is waited for. */
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
