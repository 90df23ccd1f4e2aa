// What the page does: the state, and everything that changes it from outside. No DOM here.

import { ApiError, api } from './api.js';
import { isLive, isPassing } from './answer.js';
import { Poll, randomId, sleep } from './background.js';
import { figures } from './figures.js';
import { memory } from './memory.js';
import { DRAFT, attachFrame, cancelFrame, createFrame, resumeFrames } from './resume.js';
import { Connection, retryDelay, socketUrl } from './socket.js';
import { INITIAL, liveHere, reduce, running } from './state.js';
import { titleFrom } from './title.js';
import { questionOf } from './transcript.js';

/** @import { Event, State, Turn } from './types.d.ts' */

/** How often readiness is asked for while the server is not ready. */
const READY_EVERY_MS = 2_000;

export class Chat {
  /** @param {{onChange: () => void, onRoute: (conversation: string | null) => void}} page */
  constructor(page) {
    this.page = page;
    this.state = INITIAL;
    this.token = memory.key;
    this.api = api(() => this.token);
    this.connection = new Connection(socketUrl(), {
      onOpen: () => resumeFrames(this.state).forEach((frame) => this.connection.send(frame)),
      onFrame: (frame) => this.#received(frame),
      onPhase: (phase, reason) => this.dispatch({ type: 'local.connection', phase, reason }),
      expecting: () => running(this.state).length > 0,
      token: () => this.token,
      onUnauthenticated: () => this.#askForKey(),
    });
    this.figures = figures(this);
    this.readiness = new Poll(() => this.#becameReady(), READY_EVERY_MS);
    this.starts = 0;
    this.begun = false;
  }

  /** @param {Event} event */
  dispatch(event) {
    this.state = reduce(this.state, event);
    this.page.onChange();
  }

  /** Begin, or begin again with another key. @param {string | null} conversation the one to open */
  async start(conversation) {
    for (const it of memory.running) {
      if (!this.state.live[it.streamId]) this.dispatch({ type: 'local.resumed', ...it });
    }
    if (conversation !== null) this.dispatch({ type: 'local.opened', conversation });
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
      if (error.status === 401) this.#askForKey();
      else if (error.status === 403) this.dispatch({ type: 'local.connection', phase: 'refused', reason: error.message });
      return false;
    }
    this.begun = true;
    this.dispatch({ type: 'local.sign_in', signIn: null });
    this.connection.restart();
    void this.readiness.start();
    this.reload();
    return true;
  }

  /** @param {string} key @param {boolean} remember in the browser, not only in this tab */
  signIn(key, remember) {
    this.token = key;
    memory.keepKey(key, remember);
    void this.start(null);
  }

  #askForKey() {
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

  /** Show a conversation, or a new one. @param {string | null} conversation */
  open(conversation) {
    if (conversation === this.state.open && conversation !== null) return;
    if (conversation === null) return this.dispatch({ type: 'local.new' });
    this.dispatch({ type: 'local.opened', conversation });
    this.reload();
  }

  /** Catch up with what other tabs did; a running answer needs no catching up. */
  refresh() {
    if (!this.begun || this.state.signIn !== null) return;
    void this.#guard(this.#loadList(null));
    if (!liveHere(this.state)) this.reload();
  }

  /** Ask. @param {string} text @returns {boolean} whether it was taken */
  send(text) {
    if (liveHere(this.state) || this.state.model === '') return false;
    const streamId = randomId();
    const conversation = this.state.open ?? DRAFT + streamId;
    const { model } = this.state;
    this.dispatch({ type: 'local.sent', conversation, streamId, model, text });
    if (conversation.startsWith(DRAFT)) void this.#sendFirst({ streamId, conversation, model, text });
    else this.connection.send(createFrame({ streamId, conversation, model, text }));
    return true;
  }

  /** Make the conversation, then ask in it. @param {Turn} turn */
  async #sendFirst(turn) {
    try {
      const created = await this.api.create();
      // The server will name it after the first message, too.
      const title = created.title || titleFrom(turn.text);
      const shown = this.state.open === turn.conversation;
      this.dispatch({ type: 'local.named', from: turn.conversation, conversation: { ...created, title } });
      if (shown) this.page.onRoute(created.id);
      this.connection.send(createFrame({ ...turn, conversation: created.id }));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 401) this.#askForKey();
      const failure = { code: error.code, message: error.message, status: error.status };
      this.dispatch({ type: 'local.failed', conversation: turn.conversation, streamId: turn.streamId, failure });
    }
  }

  /** Take a refused message back and send it again. @param {string} streamId */
  sendAgain(streamId) {
    const conversation = this.state.open ?? '';
    const transcript = this.state.transcripts[conversation];
    const question = transcript && questionOf(transcript, streamId);
    if (!question || liveHere(this.state)) return;
    this.dispatch({ type: 'local.withdrawn', conversation, streamId });
    if (conversation.startsWith(DRAFT)) this.dispatch({ type: 'local.removed', conversation });
    this.send(question.text);
  }

  /** Stop the answer of the open conversation. Before the server's first word the wish is kept until then. */
  stop() {
    const answer = liveHere(this.state);
    if (!answer || answer.stopAsked) return;
    this.dispatch({ type: 'local.stop_asked', conversation: this.state.open, streamId: answer.key });
    if (answer.responseId !== null) this.connection.send(cancelFrame(answer.responseId));
  }

  /** @param {string} conversation @param {string} title */
  async rename(conversation, title) {
    const before = this.state.list.conversations.find(({ id }) => id === conversation)?.title ?? '';
    this.dispatch({ type: 'local.renamed', conversation, title });
    const done = await this.#guard(this.api.rename(conversation, title));
    if (done === undefined) this.dispatch({ type: 'local.renamed', conversation, title: before });
  }

  /** @param {string} conversation */
  async remove(conversation) {
    if ((await this.#guard(this.api.remove(conversation))) === undefined) return;
    const here = this.state.open === conversation;
    this.dispatch({ type: 'local.removed', conversation });
    memory.keepRunning(this.state);
    if (here) this.page.onRoute(null);
  }

  more() {
    void this.#guard(this.#loadList(this.state.list.conversations.at(-1)?.id ?? null));
  }

  async earlier() {
    const conversation = this.state.open ?? '';
    const before = this.state.transcripts[conversation]?.oldest;
    const page = before && (await this.#guard(this.api.items(conversation, before)));
    if (page) this.dispatch({ type: 'local.earlier', conversation, ...page });
  }

  /** Read the items of the open conversation, if the server has it. */
  reload() {
    const { open } = this.state;
    if (open !== null && !open.startsWith(DRAFT)) void this.#loadItems(open);
  }

  /** An answer, if it is one and is known. @param {string | null | undefined} conversation @param {string} key */
  answer(conversation, key) {
    const entry = conversation ? this.state.transcripts[conversation]?.entries.find((it) => it.key === key) : undefined;
    return entry?.kind === 'answer' ? entry : undefined;
  }

  /** @param {any} frame */
  #received(frame) {
    const before = this.state;
    this.dispatch(frame);
    if (frame.type === 'error') this.#refused(frame);
    if (frame.type === 'response.created') this.#acknowledged(frame);
    if (before.live !== this.state.live) this.#ended(before, frame.stream_id);
  }

  /** @param {any} frame */
  #refused(frame) {
    if (frame.status === 401) return this.#askForKey();
    if (frame.status === 503) void this.readiness.start();
    const it = running(this.state).find(({ streamId }) => streamId === frame.stream_id);
    if (it && isPassing(frame)) this.connection.comeBack();
  }

  /** A stop that was asked for before there was anything to stop. @param {any} frame */
  #acknowledged(frame) {
    memory.keepRunning(this.state);
    const it = running(this.state).find(({ streamId }) => streamId === frame.stream_id);
    if (it?.answer.stopAsked) this.connection.send(cancelFrame(frame.response.id));
  }

  /** @param {State} before @param {string} streamId */
  #ended(before, streamId) {
    memory.keepRunning(this.state);
    const conversation = before.live[streamId];
    const entry = this.answer(conversation, streamId);
    if (!conversation || !entry || isLive(entry)) return;
    if (entry.phase === 'lost') void this.#loadItems(conversation);
    void this.#guard(this.#loadList(null));
  }

  /** @param {string | null} after */
  async #loadList(after) {
    this.dispatch({ type: 'local.listed', after, ...(await this.api.conversations(after)) });
  }

  /** Read a conversation, and follow its running answer wherever that was asked for. @param {string} conversation */
  async #loadItems(conversation) {
    const sent = this.state.transcripts[conversation]?.sent ?? 0;
    try {
      // In this order: an answer that ends in between is then among the items.
      const { active } = await this.api.conversation(conversation);
      this.dispatch({ type: 'local.items', conversation, sent, ...(await this.api.items(conversation)) });
      if (active) this.#follow(conversation, active);
    } catch (error) {
      this.dispatch({ type: 'local.items_failed', conversation });
      this.#report(error);
    }
  }

  /** @param {string} conversation @param {string} responseId */
  #follow(conversation, responseId) {
    const streamId = randomId();
    this.dispatch({ type: 'local.resumed', conversation, responseId, streamId });
    if (!this.state.live[streamId]) return;
    memory.keepRunning(this.state);
    this.connection.send(attachFrame(streamId, responseId, -1));
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
  async #guard(promise) {
    return promise.catch((error) => this.#report(error));
  }

  /** Show a failure of the server or the network; anything else is a bug and goes on to the console. @param {unknown} error */
  #report(error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) this.#askForKey();
    else if (error.status !== 0) this.dispatch({ type: 'local.notice', text: 'raw', values: { message: error.message } });
    return undefined;
  }
}
