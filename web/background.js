// Small machinery beside the conversation: a queue with few calls at a time, a poll that ends, sleep and chance.

/** At most `width` calls run at once; what waits is each key once, the newest `bound` of them. */
export class Queue {
  /** @param {(key: string) => Promise<void>} call must not reject @param {number} width @param {number} bound */
  constructor(call, width, bound) {
    this.call = call;
    this.width = width;
    this.bound = bound;
    this.calls = 0;
    /** @type {Set<string>} */
    this.waiting = new Set();
  }

  /** @param {string} key */
  add(key) {
    this.waiting.add(key);
    for (const oldest of this.waiting) {
      if (this.waiting.size <= this.bound) break;
      this.waiting.delete(oldest);
    }
    this.#next();
  }

  #next() {
    for (const key of this.waiting) {
      if (this.calls >= this.width) return;
      this.waiting.delete(key);
      this.calls += 1;
      void this.call(key).finally(() => {
        this.calls -= 1;
        this.#next();
      });
    }
  }
}

/** Calls `step` again and again, `pause` milliseconds apart, until it returns true; never twice at a time. */
export class Poll {
  /** @param {() => Promise<boolean>} step must not reject @param {number} pause */
  constructor(step, pause) {
    this.step = step;
    this.pause = pause;
    this.going = false;
  }

  async start() {
    if (this.going) return;
    this.going = true;
    while (!(await this.step())) await sleep(this.pause);
    this.going = false;
  }
}

/** @param {number} ms @returns {Promise<void>} */
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** `crypto.randomUUID` exists only on secure origins; this works on a plain http one, too. */
export const randomId = () =>
  [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
