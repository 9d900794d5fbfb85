// The bound of a ring: no member owns more than its cap. Internal to ring.js; the steps are those of the specification.

import { find, pointHashes, sort } from './ring-table.js';
import { hashBytes, join } from './xxh64.js';

// The points that an arc looks at, clockwise, for a member with room.
const maxWalk = 4096;

const space = 1n << 64n;

/** sums adds up the arcs of each member, in units of 2^-64. */
export function sums(t, owners, members) {
  const hi = new Float64Array(members), lo = new Float64Array(members);
  for (let i = 0, last = t.size - 1; i < t.size; last = i++) {
    let l = t.lo[i] - t.lo[last], h = t.hi[i] - t.hi[last];
    if (l < 0) {
      l += 2 ** 32;
      h--;
    }
    const m = owners[i], sum = lo[m] + l;
    lo[m] = sum % 2 ** 32;
    hi[m] += h + (sum >= 2 ** 32 ? 1 : 0);
  }
  // The first arc wraps around, so its difference is negative. All differences are 0 if all points have one
  // hash: then the first has the whole key space.
  if (t.size > 0) hi[owners[0]] += 2 ** 32;
  return Array.from(hi, (h, m) => (BigInt(h) << 32n) + BigInt(lo[m]));
}

/** arcSize is the size of the arc that ends at a position, modulo 2^64. */
function arcSize(t, at) {
  const last = at === 0 ? t.size - 1 : at - 1;
  return BigInt.asUintN(64, join(t.hi[at], t.lo[at]) - join(t.hi[last], t.lo[last]));
}

/**
 * applyBound returns the owners under a bound, and the bound in use: if whole arcs cannot keep it, its excess
 * doubles. members have id, count (of points) and weight.
 */
export function applyBound(t, members, bound) {
  const plain = sums(t, t.owner, members.length);
  for (; ; bound = 1000 + 2 * (bound - 1000)) {
    const limits = caps(members, bound), shares = plain.slice();
    const arcs = shed(t, members, limits, shares);
    const owners = arcs && place(t, arcs, limits, shares);
    if (owners) return { owners, bound };
  }
}

/** caps returns the largest share of each member, or null if that is the whole key space. */
function caps(members, bound) {
  let total = 0;
  for (const m of members) if (m.count > 0) total += m.weight;
  return members.map(({ weight }) => {
    const scaled = BigInt(bound) * BigInt(weight), whole = 1000n * BigInt(total);
    return scaled >= whole ? null : space * scaled / whole;
  });
}

/**
 * shed takes arcs from each member above its cap, from its last point downwards, and returns their positions in
 * the order in which they are to be placed; null if a member stays above.
 */
function shed(t, members, limits, shares) {
  const positions = [];
  members.forEach(({ id, count }, m) => {
    if (limits[m] === null || shares[m] <= limits[m]) return;
    const hi = new Uint32Array(count), lo = new Uint32Array(count);
    pointHashes(id, count, hi, lo, 0);
    for (let i = count - 1; i >= 0 && shares[m] > limits[m]; i--) {
      const at = positionOf(t, m, hi, lo, i), size = arcSize(t, at);
      if (size === 0n) continue;
      shares[m] -= size;
      positions.push(at);
    }
  });
  if (shares.some((share, m) => limits[m] !== null && share > limits[m])) return null;
  return mixed(t, positions);
}

/** positionOf returns the position of point i of member m, all of whose points have the hashes hi and lo. */
function positionOf(t, m, hi, lo, i) {
  let at = find(t, hi[i], lo[i]);
  while (t.owner[at] !== m) at++;
  if (at + 1 < t.size && t.owner[at + 1] === m && t.hi[at + 1] === hi[i] && t.lo[at + 1] === lo[i]) {
    for (let j = 0; j < i; j++) if (hi[j] === hi[i] && lo[j] === lo[i]) at++;
  }
  return at;
}

/** mixed orders positions by XXH64 of the eight bytes, little endian, of their points' hashes. */
function mixed(t, positions) {
  const size = positions.length, hi = new Uint32Array(size), lo = new Uint32Array(size);
  const bytes = new Uint8Array(8), view = new DataView(bytes.buffer), out = new Uint32Array(2);
  positions.forEach((at, i) => {
    view.setUint32(0, t.lo[at], true);
    view.setUint32(4, t.hi[at], true);
    hashBytes(out, bytes, 0, 8);
    hi[i] = out[0];
    lo[i] = out[1];
  });
  return sort({ size, hi, lo, owner: Uint32Array.from(positions) }).owner;
}

/** place gives each arc to the first member clockwise with room; it returns null if an arc finds none. */
function place(t, arcs, limits, shares) {
  const owners = t.owner.slice();
  const room = limits.map((limit, m) => (limit === null ? space : limit - shares[m]));
  const steps = Math.min(t.size - 1, maxWalk);
  for (const arc of arcs) {
    const size = arcSize(t, arc);
    let at = arc, step = 0;
    for (; step < steps; step++) {
      at = at + 1 === t.size ? 0 : at + 1;
      if (room[t.owner[at]] >= size) break;
    }
    if (step === steps) return null;
    const m = t.owner[at];
    if (limits[m] !== null) room[m] -= size;
    owners[arc] = m;
  }
  return owners;
}
