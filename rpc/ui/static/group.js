// The view of one group. Its watch feeds the model, the model feeds the worker, and the picture of the ring
// feeds what is drawn.

import { h, fill, later, refill } from './dom.js';
import { get, watch } from './api.js';
import { learn } from './colour.js';
import { eventList } from './events.js';
import { bound, count, milliseconds, plural, ratio, span } from './format.js';
import { KeyBox } from './keybox.js';
import { Detail, Members } from './members.js';
import { Group } from './model.js';
import { marks, pair } from './overview.js';
import { RingView, condensedFrom } from './ringview.js';
import { Timeline } from './timeline.js';
import { WhatIf } from './whatif.js';

const guardInterval = 5000;
const uneven = 1.35; // share ÷ fair share that is told
const kept = 500; // events
const aging = 5000; // of the ages in the list

export class GroupView {
  state = ['connecting', null];
  #picture = null; #shown = null; #selected = ''; #told = []; #guard = null; #aged = 0;

  constructor(name, cluster, rings, changed) {
    this.cluster = cluster;
    this.name = this.title = name;
    this.rings = rings;
    this.changed = changed;
    this.group = new Group();
    this.refresh = later(() => this.#refresh());
    this.#build();
  }

  #build() {
    this.facts = h('dl', { class: 'facts top' });
    this.attention = h('ul', { class: 'attention', 'aria-label': 'Needs a look' });
    this.timeline = new Timeline(() => this.#refresh());
    this.ring = new RingView({ label: `Ring of ${this.name}: arrow keys go from member to member, Enter selects`, choose: (id, ids) => (id ? this.select(id) : this.members.limit(ids)) });
    this.caption = h('p', { class: 'calm caption' });
    this.keys = new KeyBox(this.name, this.rings, this.ring);
    this.members = new Members(this.name, (id) => this.select(id));
    this.whatif = new WhatIf(this.name, this.rings);
    this.detail = new Detail(this.name, () => this.select(''), (kind, member) => this.whatif.choose(kind, member));
    this.events = eventList(`What this page has seen of ${this.name}`);
    this.compare = h('button', { type: 'button', onclick: () => this.#compare() }, 'Compare the nodes’ rings');
    this.compared = h('div', { class: 'compared', role: 'status' });
    this.absent = h('div', { class: 'panel empty-state', hidden: true });
    this.body = h('div', { class: 'group-grid' },
      h('div', { class: 'left' },
        h('section', { class: 'panel', 'aria-labelledby': 'h-ring' }, h('div', { class: 'panel-head' }, h('h2', { id: 'h-ring' }, 'Ring')), this.ring.element, this.caption, this.keys.element),
        this.detail.element),
      h('div', { class: 'right' }, this.members.element,
        h('section', { class: 'panel', 'aria-labelledby': 'h-gevents' }, h('div', { class: 'panel-head' }, h('h2', { id: 'h-gevents' }, 'Events')), this.events.element),
        h('section', { class: 'panel digests', 'aria-labelledby': 'h-digests' }, h('div', { class: 'panel-head' }, h('h2', { id: 'h-digests' }, 'The same ring everywhere?'), this.compare), this.compared)),
      this.whatif.element);
    this.element = h('div', { class: 'view' },
      h('div', { class: 'group-head' }, h('a', { href: '#/', class: 'back' }, '← All groups'), h('h1', { title: this.name }, this.name), this.facts),
      this.attention, this.absent, this.timeline.element, this.body);
  }

  async run(signal) {
    this.#watchGuard(signal);
    await watch({ group: this.name }, signal, (name, data) => {
      const changes = this.group.apply(name, data, Date.now());
      this.#told = changes.reverse().concat(this.#told).slice(0, kept);
      if (name !== 'progress') this.refresh();
    }, (state, problem) => {
      this.state = [state, problem ?? null];
      this.changed();
      this.refresh();
    });
  }

  // The guard is asked from time to time, because no watch has it. Only the leader knows.
  async #watchGuard(signal) {
    while (!signal.aborted) {
      try {
        if (this.group.exists && !this.cluster.leaderless) this.#guard = (await get(['groups', this.name, 'guard'], {}, signal)).body;
      } catch {
        this.#guard = null; // no leader, or no such group: other things tell
      }
      this.draw();
      await new Promise((r) => { setTimeout(r, guardInterval); });
    }
  }

  #refresh() {
    const { group } = this;
    this.timeline.update(group.steps);
    this.#absence();
    if (!group.exists && !this.#shown) return;
    const place = this.timeline.place;
    const data = place < 0 ? group : group.at(place);
    const version = place < 0 ? `now ${group.version}` : `step ${data.step}`;
    if (version !== this.#shown?.version) {
      const shown = { version, members: new Map(data.members), config: data.config, revision: data.revision, fingerprint: place < 0 ? group.fingerprint : '' };
      this.#shown = shown;
      if (!this.#picture) this.members.show(shown, null); // the ring of a large group takes seconds
      this.rings.build(shown, (error, picture) => this.#drawn(shown, error, picture));
    }
    this.draw();
  }

  #absence() {
    const { exists } = this.group, [state, problem] = this.state;
    const none = exists === false && this.group.steps.length === 0;
    this.absent.hidden = !none && !(exists === null);
    this.body.hidden = this.timeline.element.hidden = none || exists === null;
    if (none) fill(this.absent, h('h2', {}, 'There is no such group'), h('p', {}, `“${this.name}” appears here as soon as its first member registers.`));
    else if (state === 'refused') fill(this.absent, h('h2', {}, 'This group cannot be shown'), h('p', {}, problem.message));
    else if (exists === null) fill(this.absent, h('p', { class: 'calm' }, 'Reading the group …'));
  }

  #drawn(shown, error, picture) {
    if (error) {
      this.caption.textContent = `The ring cannot be computed here: ${error.message}`;
      this.members.show(shown, null);
      return;
    }
    this.#picture = picture;
    this.verified = shown.fingerprint ? shown.fingerprint === picture.fingerprint : null;
    learn(this.name, picture.ids);
    this.ring.show(this.name, picture);
    this.caption.textContent = caption(picture, this.ring.condensed);
    this.members.show(shown, picture);
    this.keys.update();
    this.whatif.show(shown, picture);
    this.#drawDetail();
    this.draw();
  }

  select(id) {
    this.#selected = this.#selected === id ? '' : id;
    this.ring.select(this.#selected);
    this.members.select(this.#selected);
    if (this.#selected) this.members.list.reveal(id);
    this.#drawDetail();
  }

  #drawDetail() {
    const item = this.members.get(this.#selected);
    this.detail.show(item, this.#picture);
  }

  // draw is called every second, too.
  draw() {
    const g = this.#shown;
    this.events.show(this.#told, 'No change since this page was opened.');
    if (!g) return;
    if (Date.now() - this.#aged > aging && getSelection().isCollapsed) {
      this.#aged = Date.now();
      this.members.list.redraw();
      this.detail.redraw();
    }
    const p = this.#picture;
    refill(this.facts, `${g.version} ${p?.fingerprint} ${this.verified}`, () => [
      pair('Members', count(g.members.size)), pair('Revision', String(g.revision)), pair('Virtual nodes', count(g.config.virtual_nodes)), pair('Bound', bound(g.config.bound)),
      pair('Fingerprint', [g.fingerprint || p?.fingerprint || '', this.verified === true ? ' ✓' : this.verified === false ? ' ✗ not the one computed here' : ''], this.verified === false ? 'bad mono' : 'mono')]);
    const items = this.#look(g, p);
    refill(this.attention, items.map((i) => i.text).join('\n'), () => items.map((i) => h('li', { class: i.level }, marks[i.level].cloneNode(true), h('span', {}, i.text))));
  }

  // recolour draws again what has the colours of members, for light or for dark.
  recolour() {
    for (const view of [this.ring, this.whatif.today, this.whatif.after, this.members.list]) view.redraw();
    this.keys.update();
  }

  // look lists what needs a look in the group.
  #look(g, p) {
    const out = [], states = { held: 0, draining: 0 };
    for (const m of g.members.values()) if (m.state in states) states[m.state]++;
    if (this.group.exists === false) out.push({ level: 'bad', text: 'The group was deleted.' });
    else if (!g.members.size) out.push({ level: 'bad', text: 'No members: no key of this group has an owner.' });
    else if (p && !p.owning) out.push({ level: 'bad', text: 'All members drain: no key of this group has an owner.' });
    const guard = this.#guard;
    if (guard && guard.phase !== 'idle') out.push({ level: 'bad', text: guardText(guard) });
    if (states.held) out.push({ level: 'warn', text: `${plural(states.held, 'member')} held for a restart: ${states.held === 1 ? 'its fallback serves its keys' : 'their fallbacks serve their keys'} meanwhile.` });
    if (states.draining) out.push({ level: 'warn', text: `${plural(states.draining, 'member')} draining, without keys.` });
    const most = p ? largest(p) : 0;
    if (most > uneven && !g.config.bound) out.push({ level: 'warn', text: `The largest share is ${ratio(most)} the fair one. A bound, or more virtual nodes, would level it.` });
    if (p && p.boundInUse > g.config.bound) out.push({ level: 'warn', text: `Whole arcs cannot keep the bound: ${p.boundInUse} ‰ is in use.` });
    return out;
  }

  async #compare() {
    fill(this.compared, h('p', { class: 'calm' }, 'Asking all nodes …'));
    try {
      const [own, { body }] = await Promise.all([this.rings.call('digest'), get(['cluster'], { group: this.name })]);
      fill(this.compared, h('table', {}, h('thead', {}, h('tr', {}, ['Ring of', 'Revision', 'Fingerprint', 'Digest of the points'].map((t) => h('th', { scope: 'col' }, t)))),
        h('tbody', {}, digestRow('this page', this.#shown.revision, this.#picture.fingerprint, own, own),
          body.nodes.map((n) => (n.error ? h('tr', {}, h('th', { scope: 'row' }, n.id), h('td', { colspan: '3' }, n.error)) : digestRow(n.id, n.revision, n.fingerprint, n.ring_digest, n.revision === this.#shown.revision ? own : ''))))));
    } catch (e) {
      fill(this.compared, h('p', { class: 'bad' }, e.message));
    }
  }
}

const digestRow = (name, revision, fingerprint, digest, own) => h('tr', {}, h('th', { scope: 'row' }, name), h('td', {}, String(revision)), h('td', { class: 'mono' }, fingerprint),
  h('td', { class: 'mono' }, digest, own ? (digest === own ? ' ✓' : h('b', { class: 'bad' }, ' ✗ differs')) : ''));

function caption(p, condensed) {
  if (!p.size) return 'No member has points.';
  const points = `${count(p.size)} points of ${plural(p.owning, 'member')}.`;
  return condensed ? `${points} Above ${condensedFrom}, each bar is a bundle of members, from the smallest share in it to the largest; the line is the fair share.`
    : `${points} Outside: who owns which hash. Inside: how much each owns.`;
}

function largest({ shares, weights }) {
  const total = weights.reduce((a, b) => a + b, 0);
  return shares.reduce((most, s, m) => (weights[m] ? Math.max(most, s * total / weights[m]) : most), 0);
}

function guardText(g) {
  const silent = plural(g.silent, 'silent member');
  switch (g.phase) {
    case 'waiting': return `${silent}: the mass-loss guard waits whether others follow.`;
    case 'holding': return `The mass-loss guard holds ${silent} of ${count(g.members)}${g.hold_left ? `, for ${span(milliseconds(g.hold_left))} more` : ''}.`;
    case 'releasing': return `The mass-loss guard releases ${silent} one after another; ${count(g.gone)} are gone, ${count(g.returned)} returned.`;
    default: return `An operator accepted the loss of ${plural(g.gone, 'member')}.`;
  }
}
