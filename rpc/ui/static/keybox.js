// A key, its owner, and why: in words, on the ring, and on a piece of the circle seen close.

import { h, fill, field } from './dom.js';
import { colour } from './colour.js';

export class KeyBox {
  #group; #rings; #view; #turn = 0;

  constructor(group, rings, view) {
    this.#group = group;
    this.#rings = rings;
    this.#view = view;
    this.input = h('input', { type: 'text', placeholder: 'user-42', autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false', maxlength: '4096', oninput: () => this.update() });
    this.answer = h('div', { class: 'key-answer', role: 'status' });
    this.strip = h('div', { class: 'strip', 'aria-hidden': 'true' });
    this.why = h('p', { class: 'why' });
    this.element = h('div', { class: 'keybox' }, field('Who owns a key?', this.input), this.answer, this.strip, this.why);
    this.#clear();
  }

  #clear() {
    fill(this.answer, h('span', { class: 'calm' }, 'Type a key: its owner is computed here, by the rule that every node has.'));
    this.strip.hidden = this.why.hidden = true;
    this.#view.locate(null);
  }

  // update asks again, after another key or another ring.
  async update() {
    const key = this.input.value, turn = ++this.#turn;
    if (!key) {
      this.#clear();
      return;
    }
    const l = await this.#rings.call('locate', { key });
    if (turn !== this.#turn) return;
    if (!l.owner) {
      this.#clear();
      fill(this.answer, 'No member has points: no key has an owner.');
      return;
    }
    fill(this.answer, this.#name(l.owner, l.state === 'held' ? 'held' : ''),
      l.state === 'held' && h('span', {}, l.fallback ? ['served by ', this.#name(l.fallback)] : 'no other member serves it'),
      l.next.length > 0 && h('span', { class: 'calm' }, 'then ', l.next.map((id, i) => [i > 0 && ', ', h('b', {}, id)])));
    fill(this.strip, this.#arcs(l));
    this.why.textContent = `Why: ${l.why}.`;
    this.strip.hidden = this.why.hidden = false;
    this.#view.locate({ turn: l.turn, owner: l.owner });
  }

  #name(id, note) {
    const swatch = h('i', { class: 'swatch' });
    swatch.style.background = colour(this.#group, id);
    return h('span', { class: 'owner' }, swatch, h('b', {}, id), note && h('span', { class: 'badge held' }, note));
  }

  // arcs draws the circle near the key, as a line from left to right.
  #arcs({ around, turn }) {
    const first = around[0].from, whole = (to) => (to - first + 1) % 1 || 1;
    const width = whole(around.at(-1).to), out = [];
    for (const a of around) {
      const left = a === around[0] ? 0 : whole(a.from), arc = h('i', { class: a.own ? 'arc own' : 'arc' });
      arc.style.left = `${left / width * 100}%`;
      arc.style.width = `${(whole(a.to) - left) / width * 100}%`;
      arc.style.background = colour(this.#group, a.owner);
      out.push(arc);
      if (!a.rank) continue;
      const rank = h('span', { class: 'rank' }, String(a.rank));
      rank.style.left = `${whole(a.to) / width * 100}%`;
      out.push(rank);
    }
    const at = whole(turn) / width;
    const mark = h('span', { class: at > 0.85 ? 'key-mark end' : 'key-mark' }, 'key');
    mark.style.left = `${at * 100}%`;
    return [...out, mark];
  }
}
