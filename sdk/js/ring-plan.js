// What differs between two rings, and what a change would move. Internal to ring.js, which exports it.

import { RingError, compareIds } from './ring-members.js';
import { join } from './xxh64.js';

const max32 = 0xffffffff;

/** indexesIn returns for each member of a its index in b; -2 if it is not there. */
function indexesIn(a, b) {
  const index = new Int32Array(a.length).fill(-2);
  let j = 0;
  a.forEach(({ id }, i) => {
    while (j < b.length && compareIds(b[j].id, id) < 0) j++;
    if (b[j]?.id === id) index[i] = j;
  });
  return index;
}

/**
 * walk calls visit for each range of hashes that has another owner in b than in a, in order and as long as they can
 * be: the halves of the first hash, those of the last, and the owners' indexes in a and in b, or -1.
 */
function walk(a, b, visit) {
  const same = indexesIn(a.members, b.members);
  let i = 0, j = 0, lowHi = 0, lowLo = 0; // the present hash, and the points that end the present arcs
  let open = false, firstHi = 0, firstLo = 0, lastHi = 0, lastLo = 0, from = -1, to = -1; // the range so far
  for (;;) {
    const x = a.size > 0 ? a.owners[i < a.size ? i : 0] : -1, y = b.size > 0 ? b.owners[j < b.size ? j : 0] : -1;
    let hi = i < a.size ? a.hashHi[i] : max32, lo = i < a.size ? a.hashLo[i] : max32;
    const otherHi = j < b.size ? b.hashHi[j] : max32, otherLo = j < b.size ? b.hashLo[j] : max32;
    if (otherHi < hi || otherHi === hi && otherLo < lo) {
      hi = otherHi;
      lo = otherLo;
    }
    const differ = x < 0 ? y >= 0 : same[x] !== y;
    if (open && !(differ && x === from && y === to)) {
      visit(firstHi, firstLo, lastHi, lastLo, from, to);
      open = false;
    }
    if (differ && !open) [open, firstHi, firstLo, from, to] = [true, lowHi, lowLo, x, y];
    lastHi = hi;
    lastLo = lo;
    if (hi === max32 && lo === max32) break;
    lowHi = lo === max32 ? hi + 1 : hi;
    lowLo = lo === max32 ? 0 : lo + 1;
    while (i < a.size && (a.hashHi[i] < hi || a.hashHi[i] === hi && a.hashLo[i] <= lo)) i++;
    while (j < b.size && (b.hashHi[j] < hi || b.hashHi[j] === hi && b.hashLo[j] <= lo)) j++;
  }
  if (open) visit(firstHi, firstLo, lastHi, lastLo, from, to);
}

/** Sum adds up ranges, in halves. */
class Sum {
  #hi = 0;
  #lo = 0;

  add(firstHi, firstLo, lastHi, lastLo) {
    this.#hi += lastHi - firstHi;
    this.#lo += lastLo - firstLo + 1;
    if (this.#lo >= 2 ** 32) {
      this.#lo -= 2 ** 32;
      this.#hi++;
    } else if (this.#lo < 0) {
      this.#lo += 2 ** 32;
      this.#hi--;
    }
  }

  get share() {
    return (BigInt(this.#hi) << 32n) + BigInt(this.#lo);
  }
}

/** Diff is what differs between two rings. A key moves exactly if its hash is in one of the ranges. */
class Diff {
  #a;
  #b;

  constructor(a, b) {
    this.#a = a;
    this.#b = b;
    const moved = new Sum(), pairs = new Map(), width = b.members.length + 1;
    this.count = 0;
    walk(a, b, (firstHi, firstLo, lastHi, lastLo, from, to) => {
      const key = (from + 1) * width + to + 1;
      let pair = pairs.get(key);
      if (!pair) pairs.set(key, pair = { from, to, sum: new Sum() });
      pair.sum.add(firstHi, firstLo, lastHi, lastLo);
      moved.add(firstHi, firstLo, lastHi, lastLo);
      this.count++;
    });
    this.moved = moved.share;
    this.moves = Array.from(pairs.values(), ({ from, to, sum }) => ({ from: idOf(a, from), to: idOf(b, to), share: sum.share }));
    this.moves.sort((x, y) => compareShares(y.share, x.share) || compareIds(x.from, y.from) || compareIds(x.to, y.to));
  }

  /** ranges returns {lo, hi, from, to}: BigInt hashes from lo to below hi, and ids; "" where there is no owner. */
  ranges() {
    const ranges = [];
    walk(this.#a, this.#b, (firstHi, firstLo, lastHi, lastLo, from, to) => {
      ranges.push({ lo: join(firstHi, firstLo), hi: join(lastHi, lastLo) + 1n, from: idOf(this.#a, from), to: idOf(this.#b, to) });
    });
    return ranges;
  }

  /** arcs returns the ranges for a picture: numbers from 0 to 1, and the owners' indexes in the two rings, or -1. */
  arcs() {
    const lo = new Float64Array(this.count), hi = new Float64Array(this.count);
    const from = new Int32Array(this.count), to = new Int32Array(this.count);
    let n = 0;
    walk(this.#a, this.#b, (firstHi, firstLo, lastHi, lastLo, x, y) => {
      lo[n] = firstHi / 2 ** 32 + firstLo / 2 ** 64;
      hi[n] = lastHi / 2 ** 32 + (lastLo + 1) / 2 ** 64;
      from[n] = x;
      to[n++] = y;
    });
    return { lo, hi, from, to };
  }
}

/** diff compares two rings. */
export function diff(a, b) {
  return new Diff(a, b);
}

function idOf(ring, owner) {
  return owner < 0 ? '' : ring.members[owner].id;
}

function compareShares(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * applyChange returns [params, members] after a change. Each id may be named once; those of join must be new, all
 * others known. Throws RingError.
 */
export function applyChange(params, members, change) {
  const byId = new Map(members.map((m) => [m.id, m])), touched = new Set();
  const touch = (field, id, isNew) => {
    const quoted = JSON.stringify(id);
    if (touched.has(id)) throw new RingError(field, 'each id once', `${quoted} is named twice`);
    if (isNew && byId.has(id)) throw new RingError(field, 'new ids', `${field}: ${quoted} is a member already`);
    if (!isNew && !byId.has(id)) throw new RingError(field, 'ids of members', `${field}: ${quoted} is not a member`);
    touched.add(id);
  };
  for (const member of change.join ?? []) {
    touch('join', member.id, true);
    byId.set(member.id, member);
  }
  for (const id of change.leave ?? []) {
    touch('leave', id, false);
    byId.delete(id);
  }
  for (const [field, state] of [['activate', 'active'], ['drain', 'draining'], ['hold', 'held']]) {
    for (const id of change[field] ?? []) {
      touch(field, id, false);
      byId.set(id, { ...byId.get(id), state });
    }
  }
  for (const [id, weight] of Object.entries(change.weights ?? {})) {
    touch('weights', id, false);
    byId.set(id, { ...byId.get(id), weight });
  }
  const next = { virtual_nodes: change.virtual_nodes || params.virtual_nodes, bound: change.bound ?? params.bound };
  return [next, [...byId.values()]];
}

/** Plan is the exact effect of a change of a ring. Throws RingError. Shares are BigInt, in units of 2^-64. */
export class Plan {
  constructor(ring, change) {
    this.before = ring;
    this.after = ring.with(...applyChange(ring.params, ring.members, change));
    this.diff = new Diff(this.before, this.after);
    this.moved = this.diff.moved;
    this.moves = this.diff.moves;
    this.members = this.#members();
    this.least = this.#least();
  }

  /** #members returns the members before and after; weights and shares are 0 while one is no member. */
  #members() {
    const all = new Map();
    const add = (ring, when) => {
      const shares = ring.shares();
      ring.members.forEach(({ id, weight }, m) => {
        if (!all.has(id)) all.set(id, { id, weight_before: 0, weight_after: 0, before: 0n, after: 0n });
        all.get(id)[when] = shares[m];
        all.get(id)[`weight_${when}`] = weight;
      });
    };
    add(this.before, 'before');
    add(this.after, 'after');
    return [...all.values()].sort((a, b) => compareIds(a.id, b.id));
  }

  /** #least is what any ring would have to move between the same shares. */
  #least() {
    if (this.before.size > 0 && this.after.size === 0) return this.moved;
    return this.members.reduce((sum, { before, after }) => (after > before ? sum + after - before : sum), 0n);
  }
}
