// The ring of a group, computed here: the specification is the package comment of ring/doc.go, and the vectors are
// in testdata/ring. Runs in browsers. A ring never changes; with() makes another one.

import { applyBound, sums } from './ring-bound.js';
import { Inputs, canonical, compareIds, isHeld, pointsOf, validParams } from './ring-members.js';
import { build, find, merge, pointHashes } from './ring-table.js';
import { hashInto, hex16, join, xxh64 } from './xxh64.js';

export { RingError, limits } from './ring-members.js';
export { Plan, applyChange, diff } from './ring-plan.js';
export { xxh64 };

/** servingOwners bounds the owners among which serving() finds those that are not held. */
const servingOwners = 64;

/** nextOwners is the number of members that locate() lists after the owner. */
const nextOwners = 3;

const encoder = new TextEncoder();
const out = new Uint32Array(2);

/** hashOf returns the hash of a key, XXH64, as its upper and its lower half. */
export function hashOf(key) {
  hashInto(out, key);
  return [out[0], out[1]];
}

/** fraction returns a share as a number from 0 to 1. */
export function fraction(share) {
  return Number(share) / 2 ** 64;
}

/** percent returns a share in per cent with six decimals, rounded down. */
export function percent(share) {
  const parts = (BigInt(share) * 100_000_000n) >> 64n;
  return `${parts / 1_000_000n}.${String(parts % 1_000_000n).padStart(6, '0')}%`;
}

/** tableOf makes the points of members, of which counts are the numbers; it takes over those of base where most stay. */
function tableOf(members, counts, base) {
  const ids = members.map((m) => m.id);
  if (!base) return build(ids, counts);
  const renamed = new Int32Array(base.members.length).fill(-1), added = [];
  let old = 0, most = 0, same = base.members.length === members.length;
  ids.forEach((id, m) => {
    while (old < base.members.length && compareIds(base.members[old].id, id) < 0) old++;
    if (base.members[old]?.id === id && base.counts[old] === counts[m]) {
      renamed[old] = m;
      same &&= old === m;
    } else {
      added.push(m);
      most += counts[m];
    }
  });
  if (same && added.length === 0) return base.table;
  if (most * 4 > base.table.size) return build(ids, counts);
  const news = build(added.map((m) => ids[m]), added.map((m) => counts[m]));
  for (let i = 0; i < news.size; i++) news.owner[i] = added[news.owner[i]];
  return merge(base.table, renamed, news);
}

/** Ring assigns every key to one of the members. Members may have further fields: they are kept as they are. */
export class Ring {
  #table;
  #counts; // of each member's points

  /**
   * The members, {id, weight, state}, may come in any order; params is {virtual_nodes, bound}. Throws RingError.
   * It takes over the points that base, another ring, has too; the result does not depend on it.
   */
  constructor(params, members, base = null) {
    this.params = validParams(params);
    this.members = canonical(this.params, members);
    const k = this.params.virtual_nodes;
    this.#counts = this.members.map((m) => pointsOf(m, k));
    const t = tableOf(this.members, this.#counts, base && { members: base.members, counts: base.#counts, table: base.#table });
    this.#table = t;
    this.size = t.size;
    this.hashHi = t.hi;
    this.hashLo = t.lo;
    this.plain = t.owner;
    this.owners = t.owner;
    this.owning = this.#counts.reduce((n, count) => n + (count > 0 ? 1 : 0), 0);
    this.boundInUse = this.params.bound;
    if (this.boundInUse > 0 && t.size > 0) {
      const counted = this.members.map(({ id, weight }, m) => ({ id, weight, count: this.#counts[m] }));
      ({ owners: this.owners, bound: this.boundInUse } = applyBound(t, counted, this.boundInUse));
    }
    Object.freeze(this);
  }

  /** with returns the ring of another complete set of members, and takes over the points that both have. */
  with(params, members) {
    return new Ring(params, members, this);
  }

  /** find returns the position of the first point whose hash is at least that of the halves; size if there is none. */
  find(hi, lo) {
    return find(this.#table, hi, lo);
  }

  #position(key) {
    hashInto(out, key);
    const at = find(this.#table, out[0], out[1]);
    return at === this.size ? 0 : at;
  }

  /** match returns the owner of a key, a text or bytes; null if no member has points. */
  match(key) {
    return this.size === 0 ? null : this.members[this.owners[this.#position(key)]];
  }

  /** ownerOf returns the owner of all keys with a hash, a BigInt. */
  ownerOf(hash) {
    if (this.size === 0) return null;
    const at = this.find(Number(hash >> 32n), Number(hash & 0xffffffffn));
    return this.members[this.owners[at === this.size ? 0 : at]];
  }

  /** matchN returns the owner of a key and the next distinct members clockwise: n, or all that have points. */
  matchN(key, n) {
    if (this.size === 0) return [];
    return this.#clockwise(this.#position(key), n).map((m) => this.members[m]);
  }

  #clockwise(at, n) {
    const seen = new Set(), wanted = Math.min(n, this.owning);
    if (wanted >= 1) seen.add(this.owners[at]);
    for (; seen.size < wanted; at = at + 1 === this.size ? 0 : at + 1) seen.add(this.plain[at]);
    return [...seen];
  }

  /**
   * serving returns the members that serve a key, at most n: its owners, those that are not held first. If one of
   * the first n is held, it looks at the first 64 owners.
   */
  serving(key, n) {
    const first = this.matchN(key, n);
    if (!first.some(isHeld)) return first;
    const owners = this.matchN(key, Math.max(n, servingOwners));
    return [...owners.filter((m) => !isHeld(m)), ...owners.filter(isHeld)].slice(0, first.length);
  }

  /** fallback returns the member that serves a key while its owner is held; null if it is not, or all are. */
  fallback(key) {
    const owner = this.match(key);
    if (!owner || !isHeld(owner)) return null;
    const [first] = this.serving(key, 1);
    return first === owner ? null : first;
  }

  /** fingerprint names the parameters and the members with points, in 16 hexadecimal digits. */
  get fingerprint() {
    const inputs = new Inputs();
    this.members.forEach(({ id }, m) => inputs.add(id, this.#counts[m]));
    return inputs.fingerprint(this.params);
  }

  /** digest hashes all points and their owners, in 16 hexadecimal digits: it shows whether two rings were built alike. */
  digest() {
    const numbers = new Uint32Array(this.members.length), ids = [];
    this.members.forEach(({ id }, m) => {
      if (this.#counts[m] > 0) numbers[m] = ids.push(encoder.encode(id)) - 1;
    });
    const bytes = new Uint8Array(ids.reduce((n, id) => n + 1 + id.length, 8) + 12 * this.size), view = new DataView(bytes.buffer);
    view.setUint32(0, ids.length, true);
    let at = 4;
    for (const id of ids) {
      bytes[at] = id.length;
      bytes.set(id, at + 1);
      at += 1 + id.length;
    }
    view.setUint32(at, this.size, true);
    at += 4;
    for (let i = 0; i < this.size; i++, at += 12) {
      view.setUint32(at, this.hashLo[i], true);
      view.setUint32(at + 4, this.hashHi[i], true);
      view.setUint32(at + 8, numbers[this.owners[i]], true);
    }
    return hex16(xxh64(bytes));
  }

  /** points yields the points in order: {hash, id, index, owner}. It hashes all of them again for their indexes. */
  * points() {
    const indexes = this.members.map((_, m) => this.#indexes(m)), next = new Uint32Array(this.members.length);
    for (let at = 0; at < this.size; at++) {
      const m = this.plain[at];
      yield this.#point(at, indexes[m][next[m]++]);
    }
  }

  #point(at, index) {
    return {
      hash: join(this.hashHi[at], this.hashLo[at]), id: this.members[this.plain[at]].id, index,
      owner: this.members[this.owners[at]].id,
    };
  }

  /** #indexes returns the indexes of a member's points in ring order. */
  #indexes(m) {
    const count = this.#counts[m], hi = new Uint32Array(count), lo = new Uint32Array(count);
    pointHashes(this.members[m].id, count, hi, lo, 0);
    return Uint32Array.from(hi, (_, i) => i).sort((a, b) => hi[a] - hi[b] || lo[a] - lo[b] || a - b);
  }

  /** #pointAt returns the point at a position. */
  #pointAt(at) {
    const m = this.plain[at];
    let rank = 0;
    for (let i = 0; i < at; i++) if (this.plain[i] === m) rank++;
    return this.#point(at, this.#indexes(m)[rank]);
  }

  /** shares returns each member's part of the key space, by index, as BigInt in units of 2^-64. */
  shares() {
    return sums(this.#table, this.owners, this.members.length);
  }

  /** fractions returns the shares as numbers from 0 to 1. */
  fractions() {
    return Float64Array.from(this.shares(), fraction);
  }

  /**
   * arcs returns the arcs of the circle for a picture: owner[i], an index, owns what is above upTo[i-1], from 0
   * on, up to upTo[i]. Neighbours of one owner are joined; the last one ends at 1.
   */
  arcs() {
    const upTo = new Float64Array(this.size + 1), owner = new Int32Array(this.size + 1);
    let n = 0;
    const add = (end, m) => {
      if (n > 0 && owner[n - 1] === m) n--;
      upTo[n] = end;
      owner[n++] = m;
    };
    for (let at = 0; at < this.size; at++) add(this.hashHi[at] / 2 ** 32 + this.hashLo[at] / 2 ** 64, this.owners[at]);
    if (this.size > 0) add(1, this.owners[0]);
    return { upTo: upTo.slice(0, n), owner: owner.slice(0, n) };
  }

  /** locate explains what match does, for people. */
  locate(key) {
    const [hi, lo] = hashOf(key), found = this.find(hi, lo);
    const at = found === this.size ? 0 : found;
    const where = { key, hash: hex16(join(hi, lo)), owner: null, state: null, point: null, next: [], fallback: null, wrapped: false, bounded: false };
    if (this.size === 0) return { ...where, why: 'no member has points' };
    const [owner, ...next] = this.#clockwise(at, nextOwners + 1).map((m) => this.members[m]);
    const point = this.#pointAt(at);
    Object.assign(where, {
      owner: owner.id, state: owner.state ?? 'active', next: next.map((m) => m.id), wrapped: found === this.size,
      point: { hash: hex16(point.hash), id: point.id, index: point.index }, bounded: point.owner !== point.id,
      fallback: isHeld(owner) ? next.find((m) => !isHeld(m))?.id ?? null : null,
    });
    return { ...where, why: this.#why(where) };
  }

  #why({ hash, owner, state, point, fallback, wrapped, bounded }) {
    let why = `the first point at or after 0x${hash} is 0x${point.hash}, number ${point.index} of "${point.id}"`;
    if (wrapped) why += ', past the end of the circle';
    if (bounded) why += `; that member would be above ${this.boundInUse} per mille of its fair share, so this arc went to "${owner}"`;
    if (state === 'held') why += `; "${owner}" is held` + (fallback ? `, and "${fallback}" is next` : '');
    return why;
  }
}
