// What the page does: the state, and everything that changes it from outside. No DOM here.

import { ApiError, api } from './api.js';
import { isLive, isPassing } from './answer.js';
import { Poll, sleep } from './background.js';
import { figures } from './figures.js';
import { memory } from './memory.js';
import { Reader } from './reader.js';
import { DRAFT, FEED, cancelFrame, feedFrame, resumeFrames, typingFrame } from './resume.js';
import { Connection, retryDelay, socketUrl } from './socket.js';
import { INITIAL, liveHere, reduce, running } from './state.js';
import { Talk } from './talk.js';
import { endOf } from './transcript.js';

/** @import { Event, State } from './types.d.ts' */

/** How often readiness is asked for while the server is not ready. */
const READY_EVERY_MS = 2_000;
/** The server hears this often that somebody types. */
const TYPING_EVERY_MS = 5_000;

export class Chat {
  /** @param {{onChange: () => void}} page */
  constructor(page) {
    this.page = page;
    this.state = INITIAL;
    this.token = memory.key;
    this.api = api(() => this.token);
    this.connection = new Connection(socketUrl(), {
      onOpen: () => {
        this.told = null;
        resumeFrames(this.state).forEach((frame) => this.connection.send(frame));
        this.reload();
      },
      onFrame: (frame) => this.#received(frame),
      onPhase: (phase, reason) => this.dispatch({ type: 'local.connection', phase, reason }),
      expecting: () => running(this.state).length > 0,
      token: () => this.token,
      onUnauthenticated: () => this.askForKey(),
    });
    this.figures = figures(this);
    this.readiness = new Poll(() => this.#becameReady(), READY_EVERY_MS);
    this.talk = new Talk(this);
    this.reader = new Reader(this);
    this.starts = 0;
    this.begun = false;
    this.typedAt = -Infinity;
    /** @type {string | null} the conversation that the server tells of */
    this.told = null;
  }

  /** @param {Event} event */
  dispatch(event) {
    this.state = reduce(this.state, event);
    this.page.onChange();
  }

  /** Begin, or begin again with another key. @param {string | null} conversation the one to open @param {string | null} [leaf] */
  async start(conversation, leaf = null) {
    if (conversation !== null) this.dispatch({ type: 'local.opened', conversation, leaf });
    const start = (this.starts += 1);
    for (let attempt = 0; start === this.starts; attempt += 1) {
      if (await this.#began()) return;
      if (this.state.signIn !== null || this.state.connection.phase === 'refused') return;
      this.dispatch({ type: 'local.connection', phase: navigator.onLine ? 'waiting' : 'offline' });
      await sleep(retryDelay(attempt));
    }
  }

  /** @returns {Promise<boolean>} whether the server answered */
  async #began() {
    try {
      await this.#loadList(null);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 401) this.askForKey();
      else if (error.status === 403) this.dispatch({ type: 'local.connection', phase: 'refused', reason: error.message });
      return false;
    }
    this.begun = true;
    this.dispatch({ type: 'local.sign_in', signIn: null });
    this.connection.restart();
    void this.readiness.start();
    return true;
  }

  /** @param {string} key @param {boolean} remember in the browser, not only in this tab */
  signIn(key, remember) {
    this.token = key;
    memory.keepKey(key, remember);
    void this.start(null);
  }

  askForKey() {
    const signIn = this.token === null ? 'needed' : 'refused';
    this.token = null;
    memory.forgetKey();
    this.connection.stop();
    this.dispatch({ type: 'local.sign_in', signIn });
  }

  /** Connect now. */
  reconnect() {
    if (this.begun) this.connection.restart();
    else void this.start(null);
  }

  /** Show a conversation, or a new one. @param {string | null} conversation @param {string | null} [leaf] an item on the branch */
  open(conversation, leaf = null) {
    if (conversation === null) return this.dispatch({ type: 'local.new' });
    if (conversation === this.state.open) return leaf === null || leaf === endOf(this.here) ? undefined : this.choose(leaf);
    this.dispatch({ type: 'local.opened', conversation, leaf });
    this.reload();
  }

  /** The transcript that is shown. */
  get here() {
    return this.state.open === null ? undefined : this.state.transcripts[this.state.open];
  }

  /** Show the branch of an item. @param {string} leaf */
  choose(leaf) {
    const conversation = this.state.open;
    if (conversation === null) return;
    this.dispatch({ type: 'local.chosen', conversation, leaf });
    void this.reader.read(conversation);
  }

  /** Catch up with what other tabs did: the feed tells of the open conversation, not of the list. */
  refresh() {
    if (this.begun && this.state.signIn === null) this.#relist();
  }

  /** Somebody writes: the server may warm up. */
  typing() {
    const { open } = this.state;
    if (open === null || open.startsWith(DRAFT) || performance.now() - this.typedAt < TYPING_EVERY_MS) return;
    this.typedAt = performance.now();
    this.connection.send(typingFrame(open));
  }

  /** Stop the answer of the open conversation. Before the server's first word the wish is kept until then. */
  stop() {
    const answer = liveHere(this.state);
    if (!answer || answer.stopAsked) return;
    this.dispatch({ type: 'local.stop_asked', conversation: this.state.open, streamId: answer.key });
    if (answer.responseId !== null) this.connection.send(cancelFrame(answer.responseId));
  }

  /** @param {string} id @param {string} title */
  async rename(id, title) {
    const before = this.state.list.conversations.find((it) => it.id === id);
    this.dispatch({ type: 'local.changed', conversation: { ...before, id, title } });
    const done = await this.guard(this.api.rename(id, title));
    if (done === undefined) this.dispatch({ type: 'local.changed', conversation: before });
  }

  /** @param {string} conversation */
  async remove(conversation) {
    if (await this.guard(this.api.remove(conversation))) this.dispatch({ type: 'local.removed', conversation });
  }

  more() {
    void this.guard(this.#loadList(this.state.list.conversations.at(-1)?.id ?? null));
  }

  async earlier() {
    const conversation = this.state.open ?? '';
    const before = this.here?.oldest;
    const page = before && (await this.guard(this.api.items(conversation, { after: before, through: endOf(this.here) })));
    if (page) this.dispatch({ type: 'local.earlier', conversation, ...page });
  }

  /** Have the server tell of the open conversation: what it says first has it read, and so does each change. */
  reload() {
    const open = this.state.open?.startsWith(DRAFT) ? null : this.state.open;
    if (this.told !== null && this.told !== open) this.connection.send(feedFrame(this.told, false));
    this.told = open !== null && this.connection.send(feedFrame(open, true)) ? open : null;
  }

  /** An answer, if it is one and is known. @param {string | null | undefined} conversation @param {string} key */
  answer(conversation, key) {
    const entry = conversation ? this.state.transcripts[conversation]?.entries.find((it) => it.key === key) : undefined;
    return entry?.kind === 'answer' ? entry : undefined;
  }

  /** @param {any} frame */
  #received(frame) {
    const before = this.state;
    if (frame.type === 'conversation.changed') return this.#changed(frame.conversation);
    if (frame.type === 'conversation.deleted') return this.dispatch({ type: 'local.removed', conversation: frame.conversation_id });
    this.dispatch({ ...frame, at: performance.now() });
    if (frame.type === 'error') this.#refused(frame);
    if (frame.type === 'response.created') this.#acknowledged(frame);
    if (before.live !== this.state.live) this.#ended(before, frame.stream_id);
  }

  /** @param {any} frame */
  #refused(frame) {
    if (frame.status === 401) return this.askForKey();
    if (frame.status === 503) void this.readiness.start();
    if (frame.stream_id === FEED) this.dispatch({ type: 'local.items_failed', conversation: this.told });
    const it = running(this.state).find(({ streamId }) => streamId === frame.stream_id);
    if (it && isPassing(frame)) this.connection.comeBack();
  }

  /** A stop that was asked for before there was anything to stop. @param {any} frame */
  #acknowledged(frame) {
    const it = running(this.state).find(({ streamId }) => streamId === frame.stream_id);
    if (it?.answer.stopAsked) this.connection.send(cancelFrame(frame.response.id));
  }

  /** @param {State} before @param {string} streamId */
  #ended(before, streamId) {
    const conversation = before.live[streamId];
    const entry = this.answer(conversation, streamId);
    if (!conversation || !entry || isLive(entry)) return;
    if (entry.phase === 'lost') void this.reader.read(conversation);
    this.#relist();
  }

  /** Nobody asked for it: if the network fails, the status says enough. */
  #relist() {
    this.#loadList(null).catch((error) => this.report(error));
  }

  /** @param {string | null} after */
  async #loadList(after) {
    this.dispatch({ type: 'local.listed', after, ...(await this.api.conversations(after)) });
  }

  /** @param {any} conversation as it stands now */
  #changed(conversation) {
    this.dispatch({ type: 'local.changed', conversation });
    void this.reader.read(conversation.id);
  }

  /** Whether asking can end: the server is ready and its models are known, or nobody is signed in. */
  async #becameReady() {
    if (this.state.signIn !== null) return true;
    const { ready, reason } = await this.api.readiness().catch((error) => ({ ready: false, reason: String(error.message) }));
    this.dispatch({ type: 'local.server', ready, reason });
    return (this.state.models.length > 0 || (await this.#loadModels())) && ready;
  }

  /** A server that is starting up may not know its models yet: that is no failure. */
  async #loadModels() {
    const models = await this.api.models().catch(() => []);
    if (models.length > 0) this.dispatch({ type: 'local.models', models });
    return models.length > 0;
  }

  /** @template T @param {Promise<T>} promise @returns {Promise<T | undefined>} undefined after a failure, which is shown */
  async guard(promise) {
    return promise.catch((error) => this.report(error, 'unreached'));
  }

  /**
   * Show a failure of the server; anything else is a bug and goes on to the console.
   * @param {unknown} error @param {string} [lost] what is said of one of the network
   */
  report(error, lost) {
    if (!(error instanceof ApiError)) throw error;
    const { status, message } = error;
    if (status === 401) this.askForKey();
    else if (status || lost) this.dispatch({ type: 'local.notice', text: status ? 'raw' : lost, values: { message } });
    return undefined;
  }
}
