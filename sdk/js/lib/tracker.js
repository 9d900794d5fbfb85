// What of the events about a group is believed.

import { Inputs, compareIds, pointsOf } from '../ring-members.js';
import { leaderReceipt } from './calls.js';
import { RegistryError } from './errors.js';

/** StreamEnd is why a stream is left although its node answers. With again the same node may be asked at once. */
export class StreamEnd extends Error {
  constructor(message, { again = false, mismatch = false } = {}) {
    super(message);
    this.again = again;
    this.mismatch = mismatch;
  }
}

const behind = () => new StreamEnd('the node is behind an earlier answer');
const gap = (why = 'an event does not follow from the state before') => new StreamEnd(why, { again: true });

/** sameCluster compares two cluster ids; an empty one is unknown. */
export function sameCluster(a, b) {
  return a === b || !a || !b;
}

/**
 * Tracker keeps a group by the events of a watch. A node that is behind must not undo what was seen: a snapshot of an
 * older revision, of the same one with another fingerprint, or of another cluster, and the word that the group does
 * not exist, need the leader's confirmation. If the leader has the newer state, the node is behind, and the stream is
 * left; if not, the cluster lost its log or was restored, and the older state is accepted.
 *
 * For example at revision 50 the stream breaks. The next node sends a snapshot of revision 48. If the leader has 51,
 * another node is asked. If it has 30, the minimum becomes 30, and 48 is accepted.
 */
export class Tracker {
  #core;
  #group;
  #minimum = { revision: 0, fingerprint: '', cluster: '' }; // the least that is accepted
  #rebuilt = false; // the minimum went down
  #resync = false; // the next event has to be a snapshot
  #inputs = new Inputs();
  state = null; // {revision, index, fingerprint, cluster_id, config, members: Map}
  unknown = false; // the group does not exist
  deleted = false; // and existed before

  constructor(core, group) {
    this.#core = core;
    this.#group = group;
  }

  /** position is what a stream resumes from. */
  position() {
    if (!this.state || this.#resync || this.#rebuilt) return {};
    const { revision, fingerprint, cluster_id } = this.state;
    return { revision, fingerprint, cluster_id: cluster_id || undefined };
  }

  /** accept returns what changed: {type, ...}, or null. It throws StreamEnd when the stream is to be left. */
  async accept(e) {
    const change = await this.#change(e);
    if (!change) return null;
    this.#rebuilt = this.#resync = false;
    this.unknown = change.type === 'unknown_group';
    this.deleted = Boolean(change.deleted);
    this.state = change.state ?? null;
    this.#minimum = this.unknown
      ? { revision: e.index, fingerprint: '', cluster: e.cluster_id }
      : { revision: this.state.revision, fingerprint: this.state.fingerprint, cluster: this.state.cluster_id };
    this.#core.observe(e.index);
    return change;
  }

  #change(e) {
    if (e.type === 'unknown_group') return this.#absent(e);
    if (e.type === 'snapshot') return this.#snapshot(e);
    if (e.type === 'delta') return this.#delta(e);
    return null; // of a newer node
  }

  async #absent(e) {
    if (this.unknown && !this.#rebuilt) return null;
    const m = this.#minimum;
    const deleted = m.revision > 0 && e.index >= m.revision && Boolean(e.cluster_id) && e.cluster_id === m.cluster;
    if (!deleted) {
      await this.#askLeader();
      if (this.#minimum.revision !== 0) throw behind();
    }
    return { type: 'unknown_group', index: e.index, deleted, rebuilt: this.#rebuilt };
  }

  async #snapshot(e) {
    if (!(e.revision > 0)) throw gap();
    if (!this.#acceptable(e)) {
      await this.#askLeader();
      if (!this.#acceptable(e)) throw behind();
    }
    const inputs = new Inputs(), members = new Map();
    for (const m of e.members) {
      members.set(m.id, m);
      inputs.add(m.id, pointsOf(m, e.config.virtual_nodes));
    }
    this.#check(inputs, e);
    this.#inputs = inputs;
    const s = this.state;
    if (s && s.revision === e.revision && s.fingerprint === e.fingerprint && sameCluster(s.cluster_id, e.cluster_id) && !this.#rebuilt) {
      this.#resync = false;
      return null;
    }
    const { revision, index, fingerprint, cluster_id, config } = e;
    return { type: 'snapshot', rebuilt: this.#rebuilt, state: { revision, index, fingerprint, cluster_id, config, members }, put: e.members, removed: [] };
  }

  #acceptable({ revision, fingerprint, cluster_id }) {
    const m = this.#minimum;
    return sameCluster(cluster_id, m.cluster) && (revision > m.revision || (revision === m.revision && fingerprint === m.fingerprint));
  }

  #delta(e) {
    const s = this.state;
    if (!s || this.#resync || this.#rebuilt || e.from !== s.revision || e.revision <= s.revision) throw gap();
    const members = new Map(s.members), config = e.config ?? s.config, k = config.virtual_nodes;
    const rehash = k !== s.config.virtual_nodes; // every member has another number of points
    const drop = (id) => {
      const m = members.get(id);
      if (m && !rehash) this.#inputs.remove(id, pointsOf(m, k));
      members.delete(id);
    };
    for (const id of e.removed) drop(id);
    for (const m of e.put) {
      drop(m.id);
      members.set(m.id, m);
      if (!rehash) this.#inputs.add(m.id, pointsOf(m, k));
    }
    if (rehash) {
      this.#inputs = new Inputs();
      for (const m of members.values()) this.#inputs.add(m.id, pointsOf(m, k));
    }
    this.#check(this.#inputs, { ...e, config });
    const { revision, index, fingerprint } = e;
    return { type: 'delta', from: e.from, rebuilt: false, state: { revision, index, fingerprint, cluster_id: s.cluster_id, config, members }, put: e.put, removed: e.removed };
  }

  /** #check compares the fingerprint of the members here with that of the node. */
  #check(inputs, { revision, fingerprint, config }) {
    const own = inputs.fingerprint(config);
    if (own === fingerprint) return;
    this.#resync = true;
    throw new StreamEnd(`at revision ${revision} the members have the fingerprint ${own}, the node sent ${fingerprint}`, { again: true, mismatch: true });
  }

  /** #askLeader lowers the minimum if the leader is behind this client, and throws if it is not. */
  async #askLeader() {
    let leader = { revision: 0, fingerprint: '', cluster_id: '' };
    try {
      leader = await leaderReceipt(this.#core, this.#group);
    } catch (e) {
      if (!(e instanceof RegistryError)) throw e;
      if (e.reason !== 'unknown_group') throw new StreamEnd(`the node is behind an earlier answer, and the leader did not answer: ${e.message}`);
      if (this.unknown && !this.#rebuilt) throw behind();
    }
    const m = this.#minimum;
    const notBehind = leader.revision > m.revision || (leader.revision === m.revision && leader.fingerprint === m.fingerprint && m.revision !== 0);
    if (sameCluster(leader.cluster_id, m.cluster) && notBehind) throw behind();
    if (m.revision === 0) return;
    this.#minimum = { revision: leader.revision, fingerprint: leader.fingerprint, cluster: leader.cluster_id };
    this.#rebuilt = true;
  }
}

/** listOf returns the members of a state in the order of their ids. */
export function listOf(state) {
  return [...state.members.values()].sort((a, b) => compareIds(a.id, b.id));
}
