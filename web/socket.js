// One WebSocket that comes back: back-off with jitter, sign-in as the first message, and a watch for silence.
// It knows nothing of answers; what to ask on a fresh connection is its owner's business (`onOpen`).

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;
/** Give up on a connection that does not open within this time. */
const OPEN_WITHIN_MS = 10_000;
/** While something is expected, a connection silent for this long is taken for dead: resuming costs nothing. */
const SILENCE_MS = 60_000;
/** A frame larger than this is not ours. UTF-16 units. */
const LONGEST_FRAME = 16 * 1024 * 1024;

/** Close codes after which coming back is pointless (WIRE: 3500–3999 and 4500–4999). @param {number} code */
export const isTerminal = (code) => (code >= 3500 && code <= 3999) || (code >= 4500 && code <= 4999);

/** The close code of a connection without a valid key. */
export const UNAUTHENTICATED = 4501;

/** Where this page's server takes frames. */
export const socketUrl = () => `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/v1/responses`;

/** @param {number} attempt 0 for the first retry @param {() => number} random in [0, 1) @returns {number} milliseconds */
export function retryDelay(attempt, random = Math.random) {
  const whole = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(attempt, 10));
  return whole / 2 + (whole / 2) * random();
}

/** @import { ConnectionListener, Surroundings } from './types.d.ts' */

/** @type {Surroundings} */
const BROWSER = {
  connect: (url) => new WebSocket(url),
  setTimeout: (call, ms) => setTimeout(call, ms),
  clearTimeout: (timer) => clearTimeout(timer),
  online: () => navigator.onLine,
};

export class Connection {
  /** @param {string} url @param {ConnectionListener} listener @param {Surroundings} [surroundings] */
  constructor(url, listener, surroundings = BROWSER) {
    this.url = url;
    this.listener = listener;
    this.around = surroundings;
    this.attempt = 0;
    /** @type {WebSocket | null} */
    this.socket = null;
    this.isOpen = false;
    /** @type {any} */
    this.timer = null;
  }

  /** Connect now, whatever the back-off says. A connection that is open or opening stays. */
  start() {
    if (this.socket) return;
    this.#wait(null);
    if (!this.around.online()) return this.listener.onPhase('offline');
    this.listener.onPhase('connecting');
    const socket = this.around.connect(this.url);
    this.socket = socket;
    // A replaced socket must not be heard any more: its late frames would come twice.
    const mine = (/** @type {(event: any) => void} */ act) => (/** @type {any} */ event) => {
      if (this.socket === socket) act(event);
    };
    socket.onopen = mine(() => this.#opened());
    socket.onmessage = mine((event) => this.#received(event.data));
    socket.onclose = mine((event) => this.#closed(event.code, event.reason));
    this.#wait(() => this.comeBack(), OPEN_WITHIN_MS);
  }

  /** Close for good, until `start`. */
  stop() {
    this.#wait(null);
    this.#drop();
  }

  /** Connect afresh at once: with another key, or after the network changed. */
  restart() {
    this.attempt = 0;
    this.stop();
    this.start();
  }

  /** The network is gone. */
  offline() {
    this.stop();
    this.listener.onPhase('offline');
  }

  /** @param {object} frame @returns {boolean} whether it was handed to an open connection */
  send(frame) {
    if (!this.isOpen || !this.socket) return false;
    this.socket.send(JSON.stringify(frame));
    this.#watch();
    return true;
  }

  #opened() {
    this.isOpen = true;
    this.#wait(null);
    const token = this.listener.token();
    if (token !== null) this.send({ type: 'auth', token });
    this.listener.onPhase('open');
    this.listener.onOpen();
  }

  /** @param {unknown} data */
  #received(data) {
    this.#watch();
    const frame = parsed(data);
    if (frame && frame.type !== 'error') this.attempt = 0;
    if (frame) this.listener.onFrame(frame);
  }

  /** @param {number} code @param {string} reason */
  #closed(code, reason) {
    this.#wait(null);
    this.#drop();
    if (code === UNAUTHENTICATED) return this.listener.onUnauthenticated();
    if (isTerminal(code)) return this.listener.onPhase('refused', reason || String(code));
    this.#retry();
  }

  /** Leave this connection and come back after the usual pause. Closing a dead one can take minutes: forget it. */
  comeBack() {
    this.#drop();
    this.#retry();
  }

  #retry() {
    this.listener.onPhase('waiting');
    this.#wait(() => this.start(), retryDelay(this.attempt));
    this.attempt += 1;
  }

  #drop() {
    const socket = this.socket;
    this.socket = null;
    this.isOpen = false;
    socket?.close();
  }

  #watch() {
    this.#wait(() => (this.listener.expecting() ? this.comeBack() : undefined), SILENCE_MS);
  }

  /** The one timer: opening, silence or back-off, never two of them. @param {(() => void) | null} call @param {number} [ms] */
  #wait(call, ms = 0) {
    this.around.clearTimeout(this.timer);
    this.timer = call && this.around.setTimeout(call, ms);
  }
}

/** @param {unknown} data @returns {any} the frame, or null for what is no JSON object */
function parsed(data) {
  if (typeof data !== 'string' || data.length > LONGEST_FRAME) return null;
  try {
    const frame = JSON.parse(data);
    return typeof frame?.type === 'string' ? frame : null;
  } catch {
    return null;
  }
}
