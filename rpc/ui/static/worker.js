// Rings are computed here, off the thread that draws: 10,000 members have 2.56 million points.

import { Ring, Plan, diff, hashOf } from './ring.js';

const slots = 4096; // samples of the circle, a power of two
let shown = null; // the ring on the page

const operations = {
  // build makes the ring of a revision from the ring before it.
  build({ params, members }) {
    shown = shown ? shown.with(params, members) : new Ring(params, members);
    return picture(shown);
  },

  // locate says who has a key, and what lies around it on the circle.
  locate({ key }) {
    const [hi, lo] = hashOf(key);
    return { ...shown.locate(key), turn: turn(hi, lo), around: around(hi, lo) };
  },

  // plan says what a change would do. from and to have the owners of what moves, -1 elsewhere.
  plan({ change }) {
    const plan = new Plan(shown, change);
    const part = (share) => Number(share) / 2 ** 64;
    return {
      after: picture(plan.after), ...lit(plan), moved: part(plan.moved), least: part(plan.least),
      moves: plan.moves.slice(0, 200).map(({ from, to, share }) => ({ from, to, share: part(share) })), pairs: plan.moves.length,
    };
  },

  digest() { return shown.digest(); },
};

const turn = (hi, lo) => (hi + lo / 2 ** 32) / 2 ** 32;

function picture(ring) {
  const owners = new Int32Array(slots).fill(-1);
  for (let i = 0; i < slots && ring.size > 0; i++) {
    const at = ring.find(((2 * i + 1) * (2 ** 31 / slots)) >>> 0, 0);
    owners[i] = ring.owners[at === ring.size ? 0 : at];
  }
  return {
    ids: ring.members.map((m) => m.id), weights: ring.members.map((m) => (m.state === 'draining' ? 0 : m.weight)),
    owners, shares: ring.fractions(), size: ring.size, owning: ring.owning, fingerprint: ring.fingerprint, boundInUse: ring.boundInUse, params: ring.params,
  };
}

// around lists the arcs from two before the key's to that of its third fallback, or 24 of them.
function around(hi, lo) {
  const n = shown.size, arcs = [];
  if (n === 0) return arcs;
  const at = shown.find(hi, lo), seen = new Set();
  const position = (i) => (at + i + 2 * n) % n;
  const end = (i) => turn(shown.hashHi[position(i)], shown.hashLo[position(i)]);
  for (let i = -Math.min(2, n - 1); i < Math.min(n - 2, 22); i++) {
    const p = position(i), owner = shown.members[shown.owners[p]].id, point = shown.members[shown.plain[p]].id;
    const candidate = i === 0 ? owner : point; // the bound moves the key's own arc alone
    arcs.push({ from: end(i - 1), to: end(i), owner, point, own: i === 0, rank: i < 0 || seen.has(candidate) ? 0 : seen.size + 1 });
    if (i >= 0) seen.add(candidate);
    if (seen.size > 3 || seen.size === shown.owning) break;
  }
  return arcs;
}

function lit(plan) {
  const from = new Int32Array(slots).fill(-1), to = new Int32Array(slots).fill(-1), arcs = diff(plan.before, plan.after).arcs();
  for (let i = 0; i < arcs.lo.length; i++) {
    const last = Math.min(slots, Math.max(Math.floor(arcs.lo[i] * slots) + 1, Math.round(arcs.hi[i] * slots)));
    for (let s = Math.floor(arcs.lo[i] * slots); s < last; s++) [from[s], to[s]] = [arcs.from[i], arcs.to[i]];
  }
  return { from, to };
}

onmessage = ({ data: { id, operation, args } }) => {
  try {
    postMessage({ id, result: operations[operation](args) });
  } catch (e) {
    postMessage({ id, error: e.message });
  }
};
