// Scrolling that follows the newest text until the reader scrolls away, and again once they come back.

import { byId } from '../dom.js';

/** This close to the end counts as the end. CSS pixels. */
const NEAR = 48;

export class Follow {
  constructor() {
    this.scroller = byId('scroller', HTMLElement);
    this.button = byId('latest', HTMLButtonElement);
    this.following = true;
    this.top = 0;
    this.scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    // A wheel or a finger going up means "let go", even before the first pixel has moved.
    this.scroller.addEventListener('wheel', (event) => event.deltaY < 0 && this.#release(), { passive: true });
    this.button.addEventListener('pointerdown', (event) => event.preventDefault());
    this.button.addEventListener('click', () => this.jump());
    new ResizeObserver(() => this.settle()).observe(this.scroller);
    new ResizeObserver(() => this.settle()).observe(byId('column', HTMLElement));
  }

  /** Go to the end and follow again. */
  jump() {
    this.following = true;
    this.settle();
  }

  /** Stay where the reader is. */
  letGo() {
    this.following = false;
  }

  /** After the transcript changed: stay at the end, if that is where the reader is. */
  settle() {
    if (this.following) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.top = this.scroller.scrollTop;
    this.button.hidden = this.following || this.#distance() <= NEAR;
  }

  #distance() {
    return this.scroller.scrollHeight - this.scroller.clientHeight - this.scroller.scrollTop;
  }

  #release() {
    if (this.scroller.scrollHeight <= this.scroller.clientHeight) return;
    this.following = false;
    this.button.hidden = this.#distance() <= NEAR;
  }

  #scrolled() {
    const up = this.scroller.scrollTop < this.top - 1;
    this.top = this.scroller.scrollTop;
    if (up && this.#distance() > 1) this.following = false;
    else if (this.#distance() <= NEAR) this.following = true;
    this.button.hidden = this.following || this.#distance() <= NEAR;
  }
}
