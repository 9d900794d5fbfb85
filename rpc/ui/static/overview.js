// The first view: the cluster, what needs a look, and the groups.

import { h, icon, refill } from './dom.js';
import { clock, count, milliseconds, plural, span } from './format.js';
import { Groups } from './groups.js';
import { VirtualList } from './list.js';
import { eventList } from './events.js';

export const groupHref = (name) => `#/groups/${encodeURIComponent(name)}`;

export const marks = {
  bad: icon('M8 1.5 15 14H1Z M8 6v4 M8 12v.5'),
  warn: icon('M8 1.5 15 14H1Z M8 6v4 M8 12v.5'),
};

export class Overview {
  title = 'Overview';
  constructor(cluster, changed) {
    this.cluster = cluster;
    this.groups = new Groups(changed);
    this.attention = h('ul', { class: 'attention', 'aria-label': 'Needs a look' });
    this.nodes = h('ul', { class: 'nodes' });
    this.search = h('input', { type: 'search', id: 'group-search', placeholder: 'Find a group', 'aria-label': 'Find a group', autocomplete: 'off', spellcheck: 'false', oninput: () => this.#drawGroups() });
    this.counts = h('p', { class: 'counts' });
    this.list = new VirtualList({
      name: 'group', label: 'Groups', rowHeight: () => 44, key: (g) => g.name, empty: 'There are no groups yet.',
      header: [{ text: 'Group' }, { text: 'Members', class: 'num' }, { text: 'Revision', class: 'num wide' }, { text: 'Bound', class: 'num wide' }, { text: '', class: 'note' }],
      row: (g) => this.#row(g), choose: (g) => { location.hash = groupHref(g.name); },
    });
    this.events = eventList('What this page has seen of the cluster');
    this.element = h('div', { class: 'view' },
      h('section', { class: 'panel look', 'aria-labelledby': 'h-look' }, h('h2', { id: 'h-look' }, 'Needs a look'), this.attention),
      h('section', { class: 'plain', 'aria-labelledby': 'h-nodes' }, h('h2', { id: 'h-nodes' }, 'Nodes'), this.nodes),
      h('section', { class: 'panel', 'aria-labelledby': 'h-groups' },
        h('div', { class: 'panel-head' }, h('h2', { id: 'h-groups' }, 'Groups'), this.counts, this.search), this.list.element),
      h('section', { class: 'panel', 'aria-labelledby': 'h-events' }, h('h2', { id: 'h-events' }, 'Events'), this.events.element));
  }

  run(signal, token) { return this.groups.run(signal, token); }

  // state is the one of the stream.
  get state() { return [this.groups.state, this.groups.problem]; }

  draw() {
    this.#drawNodes();
    this.#drawAttention();
    this.#drawGroups();
    this.events.show(this.cluster.told, 'No change since this page was opened.');
  }

  #drawAttention() {
    const items = this.cluster.attention.map((a) => h('li', { class: a.level }, marks[a.level].cloneNode(true), h('span', {}, h('b', {}, a.what), ` ${a.text}`)));
    const groups = [...this.groups.attention];
    for (const [name, a] of groups.slice(0, 8)) {
      items.push(h('li', { class: a.level }, marks[a.level].cloneNode(true), h('span', {}, h('a', { href: groupHref(name) }, name), ` ${a.text}`)));
    }
    if (groups.length > 8) items.push(h('li', {}, `and ${plural(groups.length - 8, 'more group')}`));
    if (!this.cluster.status) items.push(h('li', { class: 'calm' }, this.cluster.problem ? 'The cluster is not known.' : 'Asking the nodes …'));
    if (!items.length) items.push(h('li', { class: 'good' }, icon('M2.5 8.5 6.5 12.5 13.5 4'), h('span', {}, 'Nothing: all nodes answer and agree.')));
    refill(this.attention, items.map((i) => i.textContent).join('\n'), () => items);
  }

  #drawNodes() {
    const { status, self, digests } = this.cluster;
    if (!status) return;
    refill(this.nodes, JSON.stringify([status, self]), () => status.nodes.map((n) => {
      const role = n.error ? 'no answer' : n.id === status.leader ? 'leader' : n.role || 'unknown';
      const same = digests.get(n.id);
      return h('li', { class: `node ${n.error ? 'bad' : role}` },
        h('div', { class: 'node-head' }, h('b', {}, n.id), h('span', { class: `badge ${n.error ? 'bad' : role}` }, role), n.id === self && h('span', { class: 'badge quiet' }, 'this node')),
        h('dl', {},
          pair('Clients', n.addr || '–'), pair('Lag', n.error ? '–' : span(milliseconds(n.lag))), pair('Applied', n.error ? '–' : count(n.applied_index)),
          pair('State', n.error ? '–' : [n.digest.slice(0, 8), same === null || same === undefined ? '' : same ? ' ✓' : ' ✗ differs'], same === false ? 'bad' : 'mono'),
          pair('Version', n.version || '–'), n.zone ? pair('Zone', n.zone) : null));
    }));
  }

  #drawGroups() {
    const text = this.search.value.trim().toLowerCase(), attention = this.groups.attention;
    const all = [...this.groups.all.values()];
    const shown = all.filter((g) => g.name.toLowerCase().includes(text));
    shown.sort((a, b) => attention.has(b.name) - attention.has(a.name) || (a.name < b.name ? -1 : 1));
    const members = all.reduce((n, g) => n + g.members, 0);
    this.counts.textContent = `${plural(all.length, 'group')}, ${plural(members, 'member')}`;
    if (text && shown.length !== all.length) this.counts.textContent += `; ${count(shown.length)} found`;
    let empty = text ? 'No group has this in its name.' : undefined;
    if (this.groups.state === 'connecting') empty = 'Reading the groups …';
    if (this.groups.state === 'refused') empty = this.groups.problem.message;
    if (this.groups.prefixes?.length === 0) empty = 'This token may not read any group: it lacks the right discover.';
    this.list.show(shown, empty);
  }

  #row(g) {
    const a = this.groups.attention.get(g.name);
    const note = a ? a.text : Date.now() - g.changed < 60_000 ? `changed ${clock(g.changed)}` : '';
    return {
      kind: a?.level, cells: [
        h('a', { href: groupHref(g.name), tabindex: '-1' }, g.name), count(g.members), String(g.revision), g.config.bound ? `${g.config.bound} ‰` : 'off', note,
      ],
    };
  }
}

export function pair(name, value, kind) {
  return h('div', {}, h('dt', {}, name), h('dd', { class: kind }, value));
}
