// The form for a token, and who the token says we are.

import { h, fill, field } from './dom.js';
import { get } from './api.js';
import { session } from './session.js';

export class TokenDialog {
  constructor() {
    this.input = h('input', { type: 'password', autocomplete: 'off', spellcheck: 'false', required: true, placeholder: 'rgt_…' });
    this.words = h('p', { role: 'status' });
    this.element = h('dialog', { class: 'token', 'aria-labelledby': 'h-token' },
      h('form', { method: 'dialog', onsubmit: (e) => this.#use(e) }, h('h2', { id: 'h-token' }, 'This cluster needs a token'), this.words, field('Token', this.input, 'It is kept for this tab alone and is sent in a header.'),
        h('div', { class: 'actions' }, h('button', { type: 'button', class: 'quiet', onclick: () => this.element.close() }, 'Cancel'), h('button', { type: 'submit', class: 'main' }, 'Use it'))));
  }

  open(words) {
    fill(this.words, words);
    if (!this.element.open) this.element.showModal();
    this.input.focus();
  }

  #use(e) {
    e.preventDefault();
    const text = this.input.value.trim();
    this.input.value = '';
    this.element.close();
    session.token = text;
  }
}

// who is the token in use, without its secret; null while tokens are off.
export async function who(signal) {
  return (await get(['tokens', 'self'], {}, signal)).body.token;
}

// rights says in words what a token may do.
export function rights(token) {
  return token.grants.map((g) => `${g.rights.join(', ')} on ${g.prefix ? `${g.prefix}…` : 'all groups'}`).join('; ');
}

// readable returns the prefixes of the groups that a token may read; null for all groups.
export function readable(token) {
  if (!token) return null; // tokens are off
  const prefixes = token.grants.filter((g) => g.rights.includes('discover')).map((g) => g.prefix);
  return prefixes.includes('') ? null : [...new Set(prefixes)];
}
