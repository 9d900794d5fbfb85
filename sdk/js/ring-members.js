// Parameters and members of a ring: their limits, their order, and their fingerprint. Internal to ring.js.

import { hashBytes, hex16, join } from './xxh64.js';

/** The limits of a ring. Bounds are per mille of the fair share. */
export const limits = Object.freeze({
  minVirtualNodes: 64, maxVirtualNodes: 4096, minBound: 1010, maxBound: 10000,
  maxWeight: 1000, maxIdBytes: 255, maxPoints: 2 ** 25, maxMembers: 2 ** 20,
});

/** RingError says which field of the parameters or members is outside its limit. */
export class RingError extends Error {
  constructor(field, limit, message) {
    super(message);
    this.name = 'RingError';
    this.field = field;
    this.limit = limit;
  }
}

const encoder = new TextEncoder();

/** compareIds compares ids by the bytes of their UTF-8, which is the order of code points and not that of strings. */
export function compareIds(a, b) {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    let x = a.charCodeAt(i), y = b.charCodeAt(i);
    if (x === y) continue;
    // Surrogates, 0xd800 to 0xdfff, stand for code points above all other units.
    if (x >= 0xd800) x = x >= 0xe000 ? x - 0x800 : x + 0x2000;
    if (y >= 0xd800) y = y >= 0xe000 ? y - 0x800 : y + 0x2000;
    return x - y;
  }
  return a.length - b.length;
}

/** validParams returns a copy of valid parameters. */
export function validParams({ virtual_nodes: k, bound = 0 }) {
  if (!Number.isInteger(k) || k < limits.minVirtualNodes || k > limits.maxVirtualNodes || (k & (k - 1)) !== 0) {
    throw new RingError('virtual_nodes', 'a power of two, 64-4096', `virtual_nodes is ${k}, want a power of two from 64 to 4096`);
  }
  if (bound !== 0 && !(Number.isInteger(bound) && bound >= limits.minBound && bound <= limits.maxBound)) {
    throw new RingError('bound', '0 or 1010-10000', `bound is ${bound} per mille, want 0 (off) or 1010 to 10000`);
  }
  return Object.freeze({ virtual_nodes: k, bound });
}

function validMember({ id, weight, state = 'active' }) {
  const bytes = typeof id === 'string' ? (id.length > limits.maxIdBytes ? id.length : encoder.encode(id).length) : 0;
  if (bytes < 1 || bytes > limits.maxIdBytes || /\p{Surrogate}/u.test(id)) {
    throw new RingError('id', '1-255 bytes of UTF-8', `id ${JSON.stringify(id)}, want 1 to 255 bytes of UTF-8`);
  }
  if (!Number.isInteger(weight) || weight < 1 || weight > limits.maxWeight) {
    throw new RingError('weight', '1-1000', `weight of ${JSON.stringify(id)} is ${weight}, want 1 to 1000`);
  }
  if (state !== 'active' && state !== 'draining' && state !== 'held') {
    throw new RingError('state', 'active, draining or held', `state of ${JSON.stringify(id)} is ${JSON.stringify(state)}, want active, draining or held`);
  }
}

/** pointsOf returns the number of a member's points. */
export function pointsOf(member, k) {
  return member.state === 'draining' ? 0 : k * member.weight;
}

/** canonical returns the valid members in the order of their ids. */
export function canonical(params, members) {
  const sorted = [...members];
  if (sorted.length > limits.maxMembers) {
    throw new RingError('members', `at most ${limits.maxMembers}`, `${sorted.length} members, want at most ${limits.maxMembers}`);
  }
  let points = 0;
  for (const m of sorted) {
    validMember(m);
    points += pointsOf(m, params.virtual_nodes);
  }
  if (points > limits.maxPoints) {
    throw new RingError('members', `at most ${limits.maxPoints} points`, `${points} points (virtual_nodes times the sum of the weights), want at most ${limits.maxPoints}`);
  }
  sorted.sort((a, b) => compareIds(a.id, b.id));
  for (let i = 1; i < sorted.length; i++) {
    if (sorted[i - 1].id === sorted[i].id) throw new RingError('id', 'unique', `two members have the id ${JSON.stringify(sorted[i].id)}`);
  }
  return Object.freeze(sorted);
}

/** isHeld tells whether another member is to serve a member's keys. */
export function isHeld(member) {
  return member.state === 'held';
}

const version = 1; // of the specification
const out = new Uint32Array(2);
const bytes = new Uint8Array(1 + limits.maxIdBytes + 4), view = new DataView(bytes.buffer);

/** Inputs adds up the members that have points, for the fingerprint. A change of one member costs two hashes. */
export class Inputs {
  #sum = 0n;
  #members = 0;

  /** add counts a member with so many points. */
  add(id, points) {
    if (points === 0) return;
    this.#sum += hashOf(id, points);
    this.#members++;
  }

  /** remove takes out a member that add counted with so many points. */
  remove(id, points) {
    if (points === 0) return;
    this.#sum -= hashOf(id, points);
    this.#members--;
  }

  /** fingerprint returns 16 hexadecimal digits. */
  fingerprint({ virtual_nodes, bound }) {
    [version, virtual_nodes, bound, this.#members].forEach((n, i) => view.setUint32(4 * i, n, true));
    view.setBigUint64(16, BigInt.asUintN(64, this.#sum), true);
    hashBytes(out, bytes, 0, 24);
    return hex16(join(out[0], out[1]));
  }
}

/** hashOf is XXH64 over the length of the id, the id, and the number of points. */
function hashOf(id, points) {
  const { written } = encoder.encodeInto(id, bytes.subarray(1, 1 + limits.maxIdBytes));
  bytes[0] = written;
  view.setUint32(1 + written, points, true);
  hashBytes(out, bytes, 0, written + 5);
  return join(out[0], out[1]);
}
