// The list of groups that the token may read: by a watch if that is all of them, else by asking for each
// prefix that it may read.

import { get, watch } from './api.js';
import { readable } from './token.js';

const interval = 3000; // of the questions
const lossShown = 0.2; // members that went while the page was open

export class Groups {
  all = new Map(); // name → {name, config, members, revision, peak, changed}
  state = 'connecting';
  problem = null;
  prefixes = null; // null: all groups
  #changed;

  constructor(changed) { this.#changed = changed; }

  async run(signal, token) {
    this.prefixes = readable(token);
    try {
      if (this.prefixes === null) await this.#watch(signal);
      else await this.#poll(signal);
    } catch (e) {
      if (signal.aborted) return;
      this.state = 'refused';
      this.problem = e;
      this.#changed();
    }
  }

  async #watch(signal) {
    let first = true;
    await watch({ groups: 'true' }, signal, (name, data) => {
      if (name !== 'groups') return;
      if (first) this.#replace(data.groups);
      else this.#update(data);
      first = false;
      this.#changed();
    }, (state, problem) => {
      this.state = state;
      this.problem = problem ?? null;
      if (state !== 'live') first = true; // a new watch starts with the whole list
      this.#changed();
    });
  }

  async #poll(signal) {
    while (!signal.aborted && this.prefixes.length) {
      const groups = [];
      for (const prefix of this.prefixes) {
        for (let token = ''; ;) {
          const { body } = await get(['groups'], { prefix, page_size: '10000', ...(token && { page_token: token }) }, signal);
          groups.push(...body.groups);
          if (!(token = body.next_page_token)) break;
        }
      }
      this.state = 'live';
      this.#replace(groups);
      this.#changed();
      await new Promise((r) => { setTimeout(r, interval); });
    }
    this.state = 'live';
    this.#changed();
  }

  #replace(groups) {
    const names = new Set(groups.map((g) => g.name));
    this.#update({ groups, removed: [...this.all.keys()].filter((n) => !names.has(n)) });
  }

  #update({ groups, removed }) {
    for (const name of removed) this.all.delete(name);
    for (const g of groups) {
      const old = this.all.get(g.name);
      this.all.set(g.name, { ...g, peak: Math.max(old?.peak ?? 0, g.members), changed: old && old.revision !== g.revision ? Date.now() : old?.changed ?? 0 });
    }
  }

  // attention lists the groups that need a look, by name.
  get attention() {
    const out = new Map();
    for (const g of this.all.values()) {
      if (g.members === 0) out.set(g.name, { level: 'bad', text: 'has no members' });
      else if (g.peak - g.members > 1 && g.members < g.peak * (1 - lossShown)) out.set(g.name, { level: 'warn', text: `lost ${g.peak - g.members} of ${g.peak} members while this page was open` });
    }
    return out;
  }
}
