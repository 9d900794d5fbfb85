// A group as its watch tells it, and the revisions that this page has seen. Nothing here knows the
// document.

const maxRevisions = 500;
const maxChanges = 50_000; // members in the kept revisions

// Group has the members now, and the steps back to earlier revisions.
export class Group {
  exists = null; // null: not known yet
  members = new Map();
  config = { virtual_nodes: 256, bound: 0 };
  revision = 0;
  fingerprint = '';
  version = 0; // counts the changes that this page saw
  steps = []; // oldest first: {revision, from, at, back: {put, removed, config}, changes}
  #cost = 0;

  // apply takes an event of the watch and returns what changed, as events for people.
  apply(name, data, at) {
    switch (name) {
      case 'snapshot': return this.#snapshot(data, at);
      case 'delta': return this.#delta(data, at);
      case 'unknown_group': return this.#absent(data, at);
    }
    return [];
  }

  #snapshot(data, at) {
    const first = this.exists === null;
    const put = [], removed = [];
    const next = new Map(data.members.map((m) => [m.id, m]));
    for (const m of data.members) {
      const old = this.members.get(m.id);
      if (!old || old.modified_index !== m.modified_index) put.push(m);
    }
    for (const id of this.members.keys()) if (!next.has(id)) removed.push(id);
    if (first) {
      this.members = next;
      this.#position(data);
      this.steps = [{ revision: data.revision, at, changes: [], cost: 0 }];
      this.version++;
      return [];
    }
    return this.#step(data, put, removed, at);
  }

  #delta(data, at) {
    if (data.from !== this.revision) return []; // of a state that this page does not have; a snapshot follows
    return this.#step(data, data.put, data.removed, at);
  }

  #absent(data, at) {
    const had = this.exists;
    if (!had) {
      this.exists = false;
      return [];
    }
    const changes = this.#step({ ...data, revision: this.revision, fingerprint: '', config: this.config }, [], [...this.members.keys()], at);
    this.exists = false;
    return [{ at, kind: 'left', text: 'the group was deleted' }, ...changes.slice(0, 5)];
  }

  #position(data) {
    this.exists = true;
    this.revision = data.revision;
    this.fingerprint = data.fingerprint;
    this.config = data.config ?? this.config;
  }

  #step(data, put, removed, at) {
    const back = { put: [], removed: [], config: this.config };
    const changes = differences(this.config, data.config, this.members, put, removed).map((c) => ({ ...c, at, revision: data.revision }));
    const gone = new Set(removed);
    for (const id of gone) {
      const old = this.members.get(id);
      if (old) back.put.push(old);
      this.members.delete(id);
    }
    for (const m of put) {
      const old = this.members.get(m.id);
      if (old) back.put.push(old);
      else if (!gone.has(m.id)) back.removed.push(m.id);
      this.members.set(m.id, m);
    }
    this.#position(data);
    if (back.put.length + back.removed.length + changes.length > 0) this.#remember({ revision: data.revision, at, back, changes, cost: put.length + removed.length });
    return changes;
  }

  #remember(step) {
    this.version++;
    this.steps.push(step);
    this.#cost += step.cost;
    while (this.steps.length > 2 && (this.steps.length > maxRevisions || this.#cost > maxChanges)) this.#cost -= this.steps.shift().cost;
  }

  // at returns the group as it was after a step, by its place in steps.
  at(place) {
    const members = new Map(this.members);
    let config = this.config;
    for (let i = this.steps.length - 1; i > place; i--) {
      const { back } = this.steps[i];
      for (const id of back.removed) members.delete(id);
      for (const m of back.put) members.set(m.id, m);
      config = back.config;
    }
    const step = this.steps[place];
    return { members, config, revision: step.revision, step: `${step.revision} ${step.at}` };
  }
}

// differences says in words what a step changed.
function differences(config, next, members, put, removed) {
  const out = [];
  if (next && next.virtual_nodes !== config.virtual_nodes) out.push({ kind: 'changed', text: `virtual nodes ${config.virtual_nodes} → ${next.virtual_nodes}` });
  if (next && next.bound !== config.bound) out.push({ kind: 'changed', text: `bound ${config.bound} → ${next.bound} ‰` });
  const again = new Set(put.map((m) => m.id));
  for (const id of removed) if (!again.has(id)) out.push({ kind: 'left', id, text: 'left' });
  for (const m of put) {
    const old = members.get(m.id);
    if (!old) out.push({ kind: 'joined', id: m.id, text: `joined at ${m.addr}` });
    else out.push({ kind: 'changed', id: m.id, text: memberChange(old, m) });
  }
  return out;
}

function memberChange(old, m) {
  const parts = [];
  if (old.created_index !== m.created_index) parts.push('registered again');
  if (old.state !== m.state) parts.push(`${old.state} → ${m.state}`);
  if (old.weight !== m.weight) parts.push(`weight ${old.weight} → ${m.weight}`);
  if (old.addr !== m.addr) parts.push(`moved to ${m.addr}`);
  return parts.join(', ') || 'changed its metadata';
}
