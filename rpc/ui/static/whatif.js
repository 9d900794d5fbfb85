// What a change would do, beside the ring of today. Nothing is changed.

import { h, fill, field } from './dom.js';
import { learn } from './colour.js';
import { count, percent, plural, ratio } from './format.js';
import { RingView } from './ringview.js';

const text = (name, placeholder, list) => h('input', { type: 'text', name, placeholder, list, autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false', maxlength: '255' });
const number = (name, value, min, max) => h('input', { type: 'number', name, value, min, max, inputmode: 'numeric' });
const listed = 200; // ids that are offered

export class WhatIf {
  #group; #rings; #picture = null; #data = null; #turn = 0;

  constructor(group, rings) {
    this.#group = group;
    this.#rings = rings;
    const redo = () => this.update();
    this.kind = h('select', { onchange: () => { this.#form(); redo(); } },
      [['join', 'A member joins'], ['leave', 'A member leaves'], ['drain', 'A member drains'], ['activate', 'A member is active again'], ['weight', 'A member gets another weight'], ['k', 'Other virtual nodes'], ['bound', 'Another bound']]
        .map(([value, label]) => h('option', { value }, label)));
    this.known = h('datalist', { id: 'known-members' });
    this.id = text('id', 'web-4', 'known-members');
    this.weight = number('weight', '1', '1', '1000');
    this.k = h('select', {}, [64, 128, 256, 512, 1024, 2048, 4096].map((k) => h('option', { value: String(k) }, count(k))));
    this.bound = number('bound', '1100', '0', '10000');
    for (const e of [this.id, this.weight, this.bound]) e.addEventListener('input', redo);
    this.k.addEventListener('change', redo);
    this.fields = h('div', { class: 'fields' });
    this.said = h('p', { class: 'said', role: 'status' });
    this.today = new RingView({ label: 'The ring of today; what would move is lit', still: true });
    this.after = new RingView({ label: 'The ring after the change; what moved is lit', still: true });
    this.moves = h('div', { class: 'moves' });
    this.rings = h('div', { class: 'pair' }, figure(this.today, 'Today'), figure(this.after, 'After'), this.moves);
    this.element = h('section', { class: 'panel whatif', 'aria-labelledby': 'h-whatif' },
      h('div', { class: 'panel-head' }, h('h2', { id: 'h-whatif' }, 'What if'), h('p', { class: 'counts' }, 'computed here; nothing is changed')),
      h('form', { class: 'fields', onsubmit: (e) => { e.preventDefault(); redo(); } }, field('Change', this.kind), this.fields), this.known, this.said, this.rings);
    this.#form();
    this.#say('', false);
  }

  // show takes the ring that changes are compared with.
  show(data, picture) {
    this.#data = data;
    this.#picture = picture;
    fill(this.known, picture.ids.slice(0, listed).map((value) => h('option', { value })));
    this.update();
  }

  // choose fills the form in for a member.
  choose(kind, member) {
    this.kind.value = kind;
    this.#form();
    this.id.value = member.id;
    this.update();
    this.element.scrollIntoView({ block: 'start' });
    this.kind.focus({ preventScroll: true });
  }

  #form() {
    const kind = this.kind.value;
    const id = field(kind === 'join' ? 'New id' : 'Member', this.id);
    if (kind === 'k') fill(this.fields, field('Virtual nodes', this.k));
    else if (kind === 'bound') fill(this.fields, field('Bound, ‰ (0: off)', this.bound));
    else fill(this.fields, id, (kind === 'join' || kind === 'weight') && field('Weight', this.weight));
  }

  #change() {
    const id = this.id.value, weight = Number(this.weight.value);
    switch (this.kind.value) {
      case 'join': return id && { join: [{ id, weight, state: 'active' }] };
      case 'weight': return id && { weights: { [id]: weight } };
      case 'k': return { virtual_nodes: Number(this.k.value) };
      case 'bound': return { bound: Number(this.bound.value) };
      default: return id && { [this.kind.value]: [id] };
    }
  }

  async update() {
    const change = this.#change(), turn = ++this.#turn;
    if (!change || !this.#picture) {
      this.#say(this.#picture ? 'Name a member.' : '', false);
      return;
    }
    const id = this.id.value, needs = !['join', 'k', 'bound'].includes(this.kind.value);
    if (needs && !this.#data.members.has(id)) {
      this.#say(`There is no member “${id}”.`, false);
      return;
    }
    try {
      const plan = await this.#rings.call('plan', { change });
      if (turn === this.#turn) this.#show(plan);
    } catch (e) {
      if (turn === this.#turn) this.#say(e.message, false);
    }
  }

  #say(words, rings) {
    fill(this.said, words);
    this.rings.hidden = !rings;
  }

  #show(plan) {
    learn(this.#group, plan.after.ids);
    this.#say([h('b', { class: 'moved' }, percent(plan.moved)), plan.moved ? ' of the keys would move' : ' of the keys would move: nothing changes',
      plan.moved > plan.least + 1e-9 ? `; the least for these shares is ${percent(plan.least)}.` : plan.moved ? ', which is the least for these shares.' : '.',
      ` Largest share: ${largest(this.#picture)} before, ${largest(plan.after)} after.`], true);
    this.today.show(this.#group, this.#picture, plan.from);
    this.after.show(this.#group, plan.after, plan.to);
    this.today.summary = [percent(plan.moved), 'would move'];
    this.after.summary = [count(plan.after.owning), plan.after.owning === 1 ? 'owner' : 'owners'];
    const most = plan.moves[0]?.share ?? 1;
    fill(this.moves, h('h3', {}, `From and to${plan.pairs > 10 ? `, the largest 10 of ${count(plan.pairs)}` : ''}`),
      h('ul', {}, plan.moves.slice(0, 10).map(({ from, to, share }) => {
        const bar = h('i', { class: 'move-bar' });
        bar.style.width = `${share / most * 100}%`;
        return h('li', {}, h('span', {}, from || 'nobody', ' → ', h('b', {}, to || 'nobody')), h('span', { class: 'num' }, percent(share)), bar);
      })), !plan.moves.length && h('p', { class: 'calm' }, plural(0, 'range')));
  }
}

function largest({ shares, weights }) {
  const total = weights.reduce((a, b) => a + b, 0);
  let most = 0;
  shares.forEach((s, m) => { if (weights[m]) most = Math.max(most, s * total / weights[m]); });
  return most ? `${ratio(most)} fair` : 'none';
}

const figure = (view, caption) => h('figure', {}, view.element, h('figcaption', {}, caption));
