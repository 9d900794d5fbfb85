// The points of a ring in order, in typed arrays: how they are made, sorted, merged and found. Internal to ring.js.
//
// The top bits of a hash name its bucket of 4 to 8 points; start has the position of each bucket's first point. Points
// are made in the order of (id, index), and every step is stable, so that points with equal hashes stay in that order.

import { hashBytes } from './xxh64.js';

// Buckets above this size are sorted and searched by halves. XXH64 does not resist ids chosen to collide.
const window = 32;

// The shift of the first pass of sort: 256 buckets.
const coarse = 24;

const encoder = new TextEncoder();

/**
 * @typedef {object} Table
 * @property {number} size of the points
 * @property {Uint32Array} hi upper halves of the hashes
 * @property {Uint32Array} lo lower halves
 * @property {Uint32Array} owner indexes of the points' members
 * @property {Uint32Array} start positions of the buckets' first points, and size at the end
 * @property {number} shift of an upper half, to its bucket
 */

function newTable(size) {
  return { size, hi: new Uint32Array(size), lo: new Uint32Array(size), owner: new Uint32Array(size), start: null, shift: 0 };
}

/** shiftFor makes buckets of 4 to 8 points on average. */
function shiftFor(size) {
  return 32 - Math.max(1, 29 - Math.clz32(Math.max(size, 2) - 1));
}

/** pointHashes writes the hashes of points 0 to count-1 of an id to hi and lo, from a position on. */
export function pointHashes(id, count, hi, lo, at) {
  const name = new Uint8Array(id.length * 3 + 12);
  const first = encoder.encodeInto(id + '_', name).written;
  const out = new Uint32Array(2);
  let end = first + 1;
  name[first] = 48;
  for (let i = 0; i < count; i++) {
    hashBytes(out, name, 0, end);
    hi[at + i] = out[0];
    lo[at + i] = out[1];
    end = increment(name, first, end);
  }
}

/** increment adds 1 to the decimal text at [first, end) and returns its new end. */
function increment(text, first, end) {
  let i = end - 1;
  while (i >= first && text[i] === 57) text[i--] = 48;
  if (i >= first) {
    text[i]++;
    return end;
  }
  text[first] = 49;
  text[end] = 48;
  return end + 1;
}

/** build makes the table of members: counts[m] points of the member with the index m and the id ids[m]. */
export function build(ids, counts) {
  let size = 0;
  for (const count of counts) size += count;
  const t = newTable(size);
  let at = 0;
  for (let m = 0; m < ids.length; m++) {
    pointHashes(ids[m], counts[m], t.hi, t.lo, at);
    t.owner.fill(m, at, at + counts[m]);
    at += counts[m];
  }
  return sort(t);
}

/** sort returns a table with the points in order. It may use the memory of the points that it gets. */
export function sort(points) {
  const t = newTable(points.size), shift = shiftFor(points.size);
  // Two passes take less time than one, in which each point goes to another page of memory.
  scatter(points, t, coarse);
  const start = scatter(t, points, shift);
  const sorted = { ...points, start, shift };
  for (let b = 1; b < start.length; b++) {
    if (start[b] - start[b - 1] > window) sortLarge(sorted, start[b - 1], start[b]);
  }
  insertionSort(sorted);
  return sorted;
}

/** scatter copies points into the order of the buckets that a shift of the upper halves gives, and returns the buckets' starts. */
function scatter(from, to, shift) {
  const { size, hi, lo, owner } = from, buckets = 2 ** (32 - shift);
  const next = new Uint32Array(buckets + 1);
  for (let i = 0; i < size; i++) next[(hi[i] >>> shift) + 1]++;
  for (let b = 0; b < buckets; b++) next[b + 1] += next[b];
  const start = next.slice();
  for (let i = 0; i < size; i++) {
    const at = next[hi[i] >>> shift]++;
    to.hi[at] = hi[i];
    to.lo[at] = lo[i];
    to.owner[at] = owner[i];
  }
  return start;
}

/** insertionSort takes little time because no point leaves its bucket. */
function insertionSort({ size, hi, lo, owner }) {
  for (let i = 1; i < size; i++) {
    const h = hi[i];
    if (hi[i - 1] < h) continue;
    const l = lo[i], m = owner[i];
    let j = i;
    for (; j > 0 && (hi[j - 1] > h || hi[j - 1] === h && lo[j - 1] > l); j--) {
      hi[j] = hi[j - 1];
      lo[j] = lo[j - 1];
      owner[j] = owner[j - 1];
    }
    hi[j] = h;
    lo[j] = l;
    owner[j] = m;
  }
}

function sortLarge({ hi, lo, owner }, from, to) {
  const order = Array.from({ length: to - from }, (_, i) => from + i);
  order.sort((a, b) => hi[a] - hi[b] || lo[a] - lo[b] || a - b);
  for (const part of [hi, lo, owner]) part.set(order.map((at) => part[at]), from);
}

/** index fills in where the buckets of a sorted table start. */
function index(t) {
  t.shift = shiftFor(t.size);
  const buckets = 2 ** (32 - t.shift);
  t.start = new Uint32Array(buckets + 1);
  let b = 0;
  for (let i = 0; i < t.size; i++) {
    for (const own = t.hi[i] >>> t.shift; b <= own; b++) t.start[b] = i;
  }
  for (; b <= buckets; b++) t.start[b] = t.size;
  return t;
}

/**
 * merge returns the points of a table whose members stay, and those of another. renamed[m] is the new index of the
 * table's member m, in the same order as before, or -1 if its points go.
 */
export function merge(table, renamed, added) {
  let kept = 0;
  for (let i = 0; i < table.size; i++) if (renamed[table.owner[i]] >= 0) kept++;
  const out = newTable(kept + added.size);
  let at = 0, next = 0;
  const put = (h, l, m) => {
    out.hi[at] = h;
    out.lo[at] = l;
    out.owner[at++] = m;
  };
  for (let i = 0; i < table.size; i++) {
    const m = renamed[table.owner[i]], h = table.hi[i], l = table.lo[i];
    if (m < 0) continue;
    while (next < added.size && before(added, next, h, l, m)) {
      put(added.hi[next], added.lo[next], added.owner[next]);
      next++;
    }
    put(h, l, m);
  }
  for (; next < added.size; next++) put(added.hi[next], added.lo[next], added.owner[next]);
  return index(out);
}

/** before tells whether the point at a position is before a point (h, l) of member m, which is another member. */
function before(t, at, h, l, m) {
  const hi = t.hi[at];
  if (hi !== h) return hi < h;
  const lo = t.lo[at];
  return lo !== l ? lo < l : t.owner[at] < m;
}

/** find returns the position of the first point whose hash is at least (h, l), or the number of points. */
export function find(t, h, l) {
  const bucket = h >>> t.shift, { hi, lo } = t;
  let i = t.start[bucket], end = t.start[bucket + 1];
  while (end - i > window) {
    const mid = (i + end) >>> 1;
    if (hi[mid] < h || hi[mid] === h && lo[mid] < l) i = mid + 1;
    else end = mid;
  }
  while (i < end && (hi[i] < h || hi[i] === h && lo[i] < l)) i++;
  return i;
}
