// What can be asked in a conversation: a message, an answer anew, an edited question, an answer that goes on; and
// what can be done to its items. Each way of asking makes a branch where something stands already, never an overwrite.

import { ApiError } from './api.js';
import { isLive } from './answer.js';
import { randomId } from './background.js';
import { DRAFT, createFrame } from './resume.js';
import { liveHere } from './state.js';
import { endOf, questionOf } from './transcript.js';

/** @import { Answer, Entry, Turn } from './types.d.ts' */

export class Talk {
  /** @param {import('./chat.js').Chat} chat */
  constructor(chat) {
    this.chat = chat;
  }

  /** Ask at the end of the branch. @param {string} text @returns {boolean} whether it was taken */
  send(text) {
    return this.#ask({ text, parent: endOf(this.chat.here) }, null);
  }

  /** Another answer to the same question. @param {string} key the answer's */
  regenerate(key) {
    const question = this.#question(key);
    if (question?.id) this.#ask({ parent: question.id }, question.key);
  }

  /** Go on with an answer that was stopped or cut off. @param {string} key */
  goOn(key) {
    const it = this.#entry(key);
    if (it?.kind === 'answer' && it.responseId) this.#ask({ parent: it.parent ?? null, continues: it.responseId }, this.#above(key));
  }

  /** Ask another question in its place. @param {string} key the question's @param {string} text */
  edit(key, text) {
    const it = this.#entry(key);
    if (it?.id) this.#ask({ text, parent: it.parent ?? null }, this.#above(key));
  }

  /** Ask again for what was refused. @param {string} key the answer's */
  again(key) {
    const it = this.#entry(key);
    if (it?.kind !== 'answer' || !it.asked) return;
    const { text, parent, continues } = it.asked;
    this.#ask({ text, parent, continues }, this.#above(text === null ? key : (this.#question(key)?.key ?? key)));
  }

  /** A conversation of its own that begins as this one does, up to an entry. @param {string} key */
  async fork(key) {
    const { chat } = this;
    const id = this.#entry(key)?.id;
    const copy = id && chat.state.open && (await chat.guard(chat.api.fork(chat.state.open, id)));
    if (!copy) return;
    chat.dispatch({ type: 'local.changed', conversation: copy });
    chat.open(copy.id);
    chat.dispatch({ type: 'local.notice', text: 'forked', calm: true });
  }

  /** Delete an entry and everything under it. @param {string} key */
  async remove(key) {
    const { chat } = this;
    const conversation = chat.state.open;
    const id = this.#entry(key)?.id;
    if (!id || !conversation) return;
    // At once: the server tells of the change before it answers.
    chat.dispatch({ type: 'local.cut', conversation, key });
    if (!(await chat.guard(chat.api.removeItem(conversation, id)))) chat.choose(id);
  }

  /**
   * @param {Partial<Turn>} what @param {string | null} after the entry that stays, '' none, null all
   * @returns {boolean} whether it was taken
   */
  #ask(what, after) {
    const { chat } = this;
    const { model, open } = chat.state;
    if (liveHere(chat.state) || model === '') return false;
    const streamId = randomId();
    /** @type {Turn} */
    const turn = { text: null, parent: null, continues: null, ...what, streamId, model, conversation: open ?? DRAFT + streamId };
    chat.dispatch({ type: 'local.sent', turn, after });
    if (turn.conversation.startsWith(DRAFT)) void this.#sendFirst(turn);
    else chat.connection.send(createFrame(turn));
    return true;
  }

  /** Make the conversation, then ask in it. @param {Turn} turn */
  async #sendFirst(turn) {
    const { chat } = this;
    try {
      const created = await chat.api.create();
      chat.dispatch({ type: 'local.named', from: turn.conversation, conversation: created });
      chat.connection.send(createFrame({ ...turn, conversation: created.id }));
      chat.reload();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 401) chat.askForKey();
      const failure = { code: error.code, message: error.message, status: error.status };
      chat.dispatch({ type: 'local.failed', conversation: turn.conversation, streamId: turn.streamId, failure });
    }
  }

  /** @param {string} key @returns {Entry | undefined} */
  #entry(key) {
    return this.chat.here?.entries.find((it) => it.key === key);
  }

  /** @param {string} key */
  #question(key) {
    return this.chat.here ? questionOf(this.chat.here, key) : null;
  }

  /** The key of the entry above, '' if there is none. @param {string} key */
  #above(key) {
    const entries = this.chat.here?.entries ?? [];
    return entries[entries.findIndex((it) => it.key === key) - 1]?.key ?? '';
  }
}

/** Whether more can be written of an answer. @param {Answer} it */
export const canGoOn = (it) => !isLive(it) && (it.phase === 'stopped' || it.phase === 'incomplete') && it.id !== null && it.responseId !== null;
