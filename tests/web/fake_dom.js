// As much of a document as the Markdown renderer uses, so that its properties can be tested without a browser.

class Node {
  /** @type {Element | null} */
  parentNode = null;

  remove() {
    this.parentNode?.removeChild(this);
  }

  /** @param {Node} other */
  replaceWith(other) {
    this.parentNode?.replaceChild(other, this);
  }
}

class Text extends Node {
  /** @param {string} data */
  constructor(data) {
    super();
    this.data = data;
  }

  /** @param {string} more */
  appendData(more) {
    this.data += more;
  }

  get outline() {
    return this.data;
  }
}

class Element extends Node {
  /** @type {Node[]} */
  childNodes = [];
  /** @type {Map<string, string>} */
  attributes = new Map();

  /** @param {string} tag */
  constructor(tag) {
    super();
    this.tag = tag;
  }

  /** @param {string} name @param {string} value */
  setAttribute(name, value) {
    this.attributes.set(name, value);
  }

  /** @param {...(Node | string)} nodes */
  append(...nodes) {
    for (const node of nodes) this.appendChild(typeof node === 'string' ? new Text(node) : node);
  }

  /** @param {Node} node */
  appendChild(node) {
    node.remove();
    node.parentNode = this;
    this.childNodes.push(node);
    return node;
  }

  /** @param {Node} node */
  removeChild(node) {
    this.childNodes.splice(this.childNodes.indexOf(node), 1);
    node.parentNode = null;
    return node;
  }

  /** @param {Node} fresh @param {Node} old */
  replaceChild(fresh, old) {
    this.childNodes[this.childNodes.indexOf(old)] = fresh;
    fresh.parentNode = this;
    old.parentNode = null;
    return old;
  }

  replaceChildren() {
    for (const node of [...this.childNodes]) node.remove();
  }

  /** The tree as text, for comparing. @returns {string} */
  get outline() {
    const attributes = [...this.attributes].map(([name, value]) => ` ${name}=${JSON.stringify(value)}`).join('');
    return `<${this.tag}${attributes}>${this.childNodes.map((it) => /** @type {any} */ (it).outline).join('')}</${this.tag}>`;
  }
}

/** Make `document` available to the modules under test. */
export function installDocument() {
  const fake = {
    createElement: (/** @type {string} */ tag) => new Element(tag),
    createTextNode: (/** @type {string} */ data) => new Text(data),
  };
  Object.assign(globalThis, { document: fake });
}
