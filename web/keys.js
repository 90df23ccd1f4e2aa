// Whether Enter sends: the input-method rules, pure, so that every order of events can be tested.
//
// With an input method, Enter may confirm a candidate (Japanese, Chinese) or simply end a syllable (Hangul),
// and then the writer means "send". Browsers disagree on the order:
//
//   Chrome, Firefox   keydown Enter (composing) → compositionend → for Hangul often a second keydown Enter
//   Safari            compositionend → keydown Enter (keyCode 229, no longer composing)
//
// So Enter while composing only sets a flag; after compositionend, in a later task, the text decides: it ends
// in Hangul → send, once; else the Enter was a confirmation and is dropped.

/** Safari's Enter follows its compositionend within the same key press. Milliseconds. */
const SAME_PRESS_MS = 80;

/** What a browser says of a key that an input method took. */
const TAKEN_BY_INPUT_METHOD = 229;

/** @param {string} text up to the caret */
export const endsInHangul = (text) => /\p{Script=Hangul}$/u.test(text);

/** @import { Press } from './types.d.ts' */

/** On Windows a key that an input method took is called "Process". @param {Press} event */
const isEnter = ({ key, code, keyCode }) =>
  key === 'Enter' || (keyCode === TAKEN_BY_INPUT_METHOD && (code === 'Enter' || code === 'NumpadEnter'));

export class EnterRule {
  #composing = false;
  #wanted = false;
  #endedAt = -Infinity;

  /** Whether an input method is in the middle of a word. */
  get composing() {
    return this.#composing;
  }

  compositionStart() {
    this.#composing = true;
  }

  /**
   * @param {number} now milliseconds
   * @returns {'decide' | 'nothing'} decide: call `decide` in a later task
   */
  compositionEnd(now) {
    this.#composing = false;
    this.#endedAt = now;
    return this.#wanted ? 'decide' : 'nothing';
  }

  /**
   * A key went down in the message field.
   * @param {Press} event
   * @param {number} now milliseconds
   * @returns {'send' | 'decide' | 'pass'} pass: the browser does what it would; decide: as for `compositionEnd`
   */
  keyDown(event, now) {
    if (!isEnter(event) || event.shiftKey) {
      // Another key after the Enter: the word goes on, so the Enter chose a candidate.
      this.#wanted = false;
      return 'pass';
    }
    if (event.isComposing || this.#composing) {
      this.#wanted = true;
      return 'pass';
    }
    if (event.keyCode === TAKEN_BY_INPUT_METHOD && now - this.#endedAt < SAME_PRESS_MS) {
      this.#wanted = true;
      return 'decide';
    }
    this.#wanted = false;
    return 'send';
  }

  /** Whether a line break that is about to be inserted comes from an Enter that `decide` will judge. */
  get swallowsLineBreak() {
    return this.#wanted;
  }

  /** @param {string} text up to the caret @returns {boolean} whether to send now; a second call says no */
  decide(text) {
    const send = this.#wanted && !this.#composing && endsInHangul(text);
    this.#wanted = false;
    return send;
  }
}
