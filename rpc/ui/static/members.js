// The members of a group: a list with shares as bars, and one member in full.

import { h, fill, setText } from './dom.js';
import { now } from './api.js';
import { colour } from './colour.js';
import { count, milliseconds, percent, ratio, span } from './format.js';
import { VirtualList } from './list.js';
import { pair } from './overview.js';

const phone = matchMedia('(max-width: 640px)');

const orders = {
  look: ['Needs a look first', (a, b) => rank(b) - rank(a) || byID(a, b)],
  id: ['Id', (a, b) => byID(a, b)],
  share: ['Largest share ÷ fair', (a, b) => b.ratio - a.ratio || byID(a, b)],
  newest: ['Newest', (a, b) => b.member.created_index - a.member.created_index || byID(a, b)],
  changed: ['Changed last', (a, b) => b.member.modified_index - a.member.modified_index || byID(a, b)],
};

const byID = (a, b) => (a.member.id < b.member.id ? -1 : 1);
const rank = ({ member }) => ({ held: 2, draining: 1 }[member.state] ?? 0);

export class Members {
  #items = []; #scale = 1.5; #bound = 0; #selected = ''; #only = null; #group;

  constructor(group, choose) {
    this.#group = group;
    this.filter = h('input', { type: 'search', placeholder: 'Find a member', 'aria-label': 'Find a member', autocomplete: 'off', spellcheck: 'false', oninput: () => this.draw() });
    this.order = h('select', { 'aria-label': 'Order of the members', onchange: () => this.draw() }, Object.entries(orders).map(([value, [text]]) => h('option', { value }, text)));
    this.only = h('button', { type: 'button', class: 'chip', hidden: true, onclick: () => this.limit(null) });
    this.counts = h('p', { class: 'counts' });
    this.list = new VirtualList({
      name: 'member', label: 'Members', rowHeight: () => (phone.matches ? 62 : 44), key: (i) => i.member.id, empty: 'This group has no members.',
      header: [{ text: 'Member', class: 'id' }, { text: 'State', class: 'state' }, { text: 'Share ÷ fair share', class: 'share' }, { text: 'Weight', class: 'num weight' }, { text: 'Age', class: 'num age' }, { text: 'Revision', class: 'num rev' }],
      row: (i) => this.#row(i), choose: (i) => choose(i.member.id),
    });
    this.element = h('section', { class: 'panel members', 'aria-labelledby': 'h-members' },
      h('div', { class: 'panel-head' }, h('h2', { id: 'h-members' }, 'Members'), this.counts, this.only, this.order, this.filter), this.list.element);
  }

  // show takes the members of a revision, and the picture of its ring, or null until that is there.
  show({ members, config }, picture) {
    const at = new Map(picture?.ids.map((id, i) => [id, i]));
    const total = picture ? picture.weights.reduce((a, b) => a + b, 0) : 0;
    this.#items = [...members.values()].map((member) => {
      const i = at.get(member.id), share = i === undefined ? null : picture.shares[i];
      return { member, share, ratio: share !== null && picture.weights[i] ? share * total / picture.weights[i] : 0 };
    });
    this.#bound = (picture?.boundInUse ?? config.bound) / 1000;
    this.#scale = Math.max(1.5, this.#bound, ...(this.#items.length < 5000 ? this.#items.map((i) => i.ratio) : [this.#items.reduce((m, i) => Math.max(m, i.ratio), 0)]));
    this.draw();
  }

  get(id) { return this.#items.find((i) => i.member.id === id) ?? null; }

  select(id) { this.#selected = id; this.list.redraw(); }

  // limit shows some of the members, by id; null shows all again.
  limit(ids) {
    this.#only = ids && new Set(ids);
    this.only.hidden = !ids;
    this.only.textContent = ids ? `${ids[0]} … ${ids.at(-1)} ✕` : '';
    this.only.setAttribute('aria-label', 'Show all members again');
    this.draw();
  }

  draw() {
    const text = this.filter.value.trim().toLowerCase();
    const shown = this.#items.filter(({ member: m }) => (!this.#only || this.#only.has(m.id)) && (!text || `${m.id}\n${m.addr}\n${m.state}`.toLowerCase().includes(text)));
    shown.sort(orders[this.order.value][1]);
    this.counts.textContent = shown.length === this.#items.length ? count(shown.length) : `${count(shown.length)} of ${count(this.#items.length)}`;
    this.list.show(shown, this.#items.length ? 'No member has this in its id, address or state.' : undefined);
  }

  #row(i) {
    const m = i.member, swatch = h('i', { class: 'swatch' });
    swatch.style.background = i.ratio ? colour(this.#group, m.id) : 'transparent';
    return {
      chosen: m.id === this.#selected, kind: m.id === this.#selected ? 'chosen' : '', cells: [
        [swatch, h('b', { title: m.id }, m.id), h('small', { title: m.addr }, m.addr)],
        m.state === 'active' ? h('span', { class: 'calm' }, 'active') : h('span', { class: `badge ${m.state}` }, m.state),
        this.#bar(i), String(m.weight), age(m), String(m.modified_index),
      ],
    };
  }

  #bar(i) {
    if (i.share === null) return h('span', { class: 'calm' }, '…');
    if (!i.ratio) return h('span', { class: 'calm' }, 'no points');
    const bar = h('i', { class: 'bar-fill' }), fair = h('i', { class: 'bar-fair' });
    bar.style.width = `${i.ratio / this.#scale * 100}%`;
    bar.style.background = colour(this.#group, i.member.id, 0.85);
    fair.style.left = `${100 / this.#scale}%`;
    let limit = null;
    if (this.#bound) {
      limit = h('i', { class: 'bar-bound' });
      limit.style.left = `${this.#bound / this.#scale * 100}%`;
    }
    return [h('span', { class: 'bar', 'aria-hidden': 'true' }, bar, fair, limit), h('span', { class: 'bar-text' }, percent(i.share), h('small', {}, ratio(i.ratio)))];
  }
}

const age = (m) => span(now() - Date.parse(m.registered_at));

// Detail is one member in full.
export class Detail {
  constructor(group, close, plan) {
    this.group = group;
    this.close = close;
    this.plan = plan;
    this.age = h('span');
    this.element = h('section', { class: 'panel detail', 'aria-labelledby': 'h-detail', hidden: true });
  }

  show(item, picture) {
    this.element.hidden = !item;
    if (!item) return;
    this.member = item.member;
    this.redraw();
    const m = item.member, meta = Object.entries(m.meta);
    const points = picture && m.state !== 'draining' ? m.weight * picture.params.virtual_nodes : 0;
    fill(this.element,
      h('div', { class: 'panel-head' }, h('h2', { id: 'h-detail' }, m.id), h('button', { type: 'button', class: 'quiet', onclick: this.close }, 'Close')),
      h('dl', { class: 'facts' },
        pair('Address', m.addr, 'mono'), pair('State', m.state), pair('Share', item.share === null ? '…' : `${percent(item.share)}, ${ratio(item.ratio)} fair`),
        pair('Weight', `${m.weight}, ${count(points)} points`), pair('Registered', this.age), pair('Lease ends', `${span(milliseconds(m.ttl))} after its last heartbeat`),
        pair('Lease', String(m.created_index)), pair('Last change', `index ${m.modified_index}`), m.hold && pair('Held for', m.hold),
        meta.map(([k, v]) => pair(k, v, 'mono'))),
      h('div', { class: 'actions' },
        h('button', { type: 'button', onclick: () => this.plan('leave', m) }, 'What if it leaves?'),
        m.state === 'draining' ? h('button', { type: 'button', onclick: () => this.plan('activate', m) }, 'What if it is active?')
          : h('button', { type: 'button', onclick: () => this.plan('drain', m) }, 'What if it drains?')));
  }

  // redraw writes the age, which grows, and nothing else: a control would lose the focus.
  redraw() {
    if (!this.element.hidden) setText(this.age, `${age(this.member)} ago`);
  }
}
