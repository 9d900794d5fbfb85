// A list that has elements for the visible rows only, so that 10,000 rows scroll like ten.

import { h, fill, later } from './dom.js';

const spare = 6; // rows above and below

export class VirtualList {
  #items = []; #index = new Map(); #active = -1; #rows = new Map(); #options;

  // options: label, rowHeight, key(item), row(item) → cells, empty (a text), choose(item), header (cells).
  constructor(options) {
    this.#options = options;
    this.body = h('div', { class: 'list-body', role: 'presentation' });
    this.header = h('div', { class: 'row header', role: 'row', 'aria-rowindex': '1' });
    for (const cell of options.header) this.header.append(h('span', { role: 'columnheader', class: cell.class }, cell.text));
    this.viewport = h('div', {
      class: 'list', role: 'grid', tabindex: '0', 'aria-label': options.label, 'aria-readonly': 'true',
      onscroll: later(() => this.#draw()), onkeydown: (e) => this.#key(e), onclick: (e) => this.#click(e),
      onfocus: () => { if (this.#active < 0 && this.#items.length) this.#activate(0); },
    }, this.header, this.body);
    this.none = h('p', { class: 'empty', hidden: true });
    this.element = h('div', { class: 'list-box' }, this.viewport, this.none);
    this.redraw = later(() => this.#draw(true));
    new ResizeObserver(() => this.redraw()).observe(this.viewport);
  }

  // show replaces the items. The active row stays with its item.
  show(items, empty) {
    const active = this.#items[this.#active];
    this.#items = items;
    this.#index = new Map(items.map((item, i) => [this.#options.key(item), i]));
    this.#active = active ? this.#index.get(this.#options.key(active)) ?? -1 : -1;
    this.viewport.setAttribute('aria-rowcount', String(items.length + 1));
    this.viewport.classList.toggle('none', items.length === 0);
    this.none.hidden = items.length > 0;
    this.none.textContent = empty ?? this.#options.empty;
    this.redraw();
  }

  // reveal scrolls to an item and makes it the active one.
  reveal(key) {
    const i = this.#index.get(key);
    if (i !== undefined) this.#activate(i);
  }

  get #height() { return this.#options.rowHeight(); }

  #activate(i) {
    this.#active = Math.max(0, Math.min(this.#items.length - 1, i));
    const v = this.viewport, top = this.#active * this.#height, room = v.clientHeight - this.header.offsetHeight;
    if (top < v.scrollTop) v.scrollTop = top;
    else if (top + this.#height > v.scrollTop + room) v.scrollTop = top + this.#height - room;
    this.#draw(true);
  }

  #key(e) {
    if (e.target !== this.viewport) return;
    const page = Math.max(1, Math.floor(this.viewport.clientHeight / this.#height) - 2);
    const to = { ArrowDown: this.#active + 1, ArrowUp: this.#active - 1, PageDown: this.#active + page, PageUp: this.#active - page, Home: 0, End: this.#items.length - 1 }[e.key];
    if (to !== undefined && this.#items.length) this.#activate(to);
    else if ((e.key === 'Enter' || e.key === ' ') && this.#items[this.#active]) this.#options.choose(this.#items[this.#active]);
    else return;
    e.preventDefault();
  }

  #click(e) {
    const row = e.target.closest('[data-row]');
    if (!row || e.target.closest('a, button')) return;
    this.#active = Number(row.dataset.row);
    this.#options.choose(this.#items[this.#active]);
    this.#draw(true);
  }

  #draw(all = false) {
    const height = this.#height, v = this.viewport;
    const first = Math.max(0, Math.floor(v.scrollTop / height) - spare);
    const last = Math.min(this.#items.length, Math.ceil((v.scrollTop + v.clientHeight) / height) + spare);
    this.body.style.height = `${this.#items.length * height}px`;
    v.style.height = `${this.#items.length * height + this.header.offsetHeight + 2}px`;
    if (all) this.#rows.clear();
    const rows = new Map();
    for (let i = first; i < last; i++) rows.set(i, this.#rows.get(i) ?? this.#row(i, height));
    this.#rows = rows;
    fill(this.body, [...rows.values()]);
    const active = rows.get(this.#active);
    if (active) v.setAttribute('aria-activedescendant', active.id);
    else v.removeAttribute('aria-activedescendant');
  }

  #row(i, height) {
    const item = this.#items[i], { cells, chosen, kind } = this.#options.row(item);
    const row = h('div', {
      class: `row${kind ? ` ${kind}` : ''}${i === this.#active ? ' active' : ''}`, role: 'row', id: `${this.#options.name}-${i}`, 'data-row': String(i),
      'aria-rowindex': String(i + 2), 'aria-selected': chosen ? 'true' : 'false',
    }, cells.map((c, n) => h('span', { role: 'gridcell', class: this.#options.header[n].class }, c)));
    row.style.transform = `translateY(${i * height}px)`;
    row.style.height = `${height}px`;
    return row;
  }
}
