// Reads the branch that is shown, again whenever the server says that its conversation has changed.

import { ApiError } from './api.js';
import { isLive } from './answer.js';
import { randomId } from './background.js';
import { attachFrame } from './resume.js';
import { endOf, liveAnswer } from './transcript.js';

export class Reader {
  /** @param {import('./chat.js').Chat} chat */
  constructor(chat) {
    this.chat = chat;
    /** @type {string | null} the conversation to be read next, while one is read */
    this.due = null;
    this.reading = false;
  }

  /** While a conversation is read the last wish waits, and those before it are forgotten. @param {string} conversation */
  async read(conversation) {
    this.due = conversation;
    if (this.reading) return;
    this.reading = true;
    try {
      for (let it = /** @type {string | null} */ (conversation); it !== null; it = this.due) {
        this.due = null;
        await this.#once(it);
      }
    } finally {
      this.reading = false;
    }
  }

  /** Read the branch that is wanted, and follow its running answer wherever that was asked for. @param {string} conversation */
  async #once(conversation) {
    const { chat } = this;
    const transcript = chat.state.transcripts[conversation];
    if (!transcript) return;
    const { sent, leaf } = transcript;
    const through = leaf ?? endOf(transcript);
    // What an answer will be is no item yet: it stands under its question.
    const running = transcript.running.find((it) => it.item_id === through);
    const live = transcript.entries.filter((it) => it.kind === 'answer' && isLive(it)).map(({ key }) => key);
    try {
      const page = await chat.api.items(conversation, running ? { leaf: running.parent } : { through });
      chat.dispatch({ type: 'local.items', conversation, sent, leaf, live, ...page });
      this.#follow(conversation, through);
    } catch (error) {
      if (error instanceof ApiError && error.status === 404 && through !== null) return this.#forgetBranch(conversation);
      chat.dispatch({ type: 'local.items_failed', conversation });
      chat.report(error);
    }
  }

  /** The branch that was shown is gone: show the conversation as it is now. @param {string} conversation */
  #forgetBranch(conversation) {
    this.chat.dispatch({ type: 'local.forgotten', conversation });
    this.due ??= conversation;
  }

  /** Follow the running answer at the end of the branch: the one wanted, else the newest. @param {string} conversation @param {string | null} wanted */
  #follow(conversation, wanted) {
    const { chat } = this;
    const transcript = chat.state.transcripts[conversation];
    if (!transcript || liveAnswer(transcript)) return;
    const under = transcript.running.filter((it) => it.parent === endOf(transcript));
    const it = under.find(({ item_id: id }) => id === wanted) ?? under.at(-1);
    if (!it) return;
    const streamId = randomId();
    chat.dispatch({ type: 'local.resumed', conversation, running: it, streamId });
    if (chat.state.live[streamId]) chat.connection.send(attachFrame(streamId, it.response_id, -1));
  }
}
