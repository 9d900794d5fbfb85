// The revisions that this page has seen since it was opened. A node keeps steps for watchers that come
// back, and offers no list of them.

import { h } from './dom.js';
import { clock, plural } from './format.js';

export class Timeline {
  #steps = []; #place = -1; #show;

  // show is called with a place in the steps, or with -1 for now.
  constructor(show) {
    this.#show = show;
    this.range = h('input', { type: 'range', min: '0', max: '0', value: '0', 'aria-label': 'Revision', oninput: () => this.#move() });
    this.now = h('button', { type: 'button', hidden: true, onclick: () => this.live() }, 'Back to now');
    this.words = h('p', { class: 'when', role: 'status' });
    this.note = h('p', { class: 'calm' });
    this.element = h('section', { class: 'timeline panel', 'aria-label': 'Revisions' }, this.words, this.range, this.now, this.note);
  }

  // place is that of the step that is shown, or -1 for now.
  get place() { return this.#place; }

  // update takes the steps of the group. When the oldest is dropped, the place moves with its step.
  update(steps) {
    if (this.#place >= 0) {
      const at = steps.indexOf(this.#steps[this.#place]);
      this.#place = at;
    }
    this.#steps = [...steps];
    this.range.max = String(Math.max(0, steps.length - 1));
    this.range.disabled = steps.length < 2;
    if (this.#place < 0) this.range.value = this.range.max;
    this.#words();
  }

  live() {
    this.#place = -1;
    this.range.value = this.range.max;
    this.#words();
    this.range.focus();
    this.#show(-1);
  }

  #move() {
    const i = Number(this.range.value);
    this.#place = i === this.#steps.length - 1 ? -1 : i;
    this.#words();
    this.#show(this.#place);
  }

  #words() {
    const n = this.#steps.length, i = this.#place < 0 ? n - 1 : this.#place, step = this.#steps[i];
    this.now.hidden = this.#place < 0;
    this.element.classList.toggle('past', this.#place >= 0);
    if (!step) {
      this.words.textContent = '';
      return;
    }
    const when = this.#place < 0 ? 'now' : `${clock(step.at)}, ${plural(n - 1 - i, 'change')} ago`;
    this.words.textContent = `Revision ${step.revision}, ${when}`;
    this.range.setAttribute('aria-valuetext', this.words.textContent);
    this.note.textContent = n < 2 ? 'Revisions that this page sees are kept here, to go back to.' : `${plural(n, 'revision')} seen by this page since ${clock(this.#steps[0].at)}`;
  }
}
