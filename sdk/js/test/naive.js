// The specification of the ring and XXH64 written down as plainly as possible: BigInt, sorting and linear search.
// It shares no code with the modules under test.

const mask = 2n ** 64n - 1n, space = 2n ** 64n;
const p1 = 0x9e3779b185ebca87n, p2 = 0xc2b2ae3d27d4eb4fn, p3 = 0x165667b19e3779f9n, p4 = 0x85ebca77c2b2ae63n, p5 = 0x27d4eb2f165667c5n;
const rotl = (x, n) => ((x << n) | (x >> (64n - n))) & mask;
const round = (lane, k) => (rotl((lane + k * p2) & mask, 31n) * p1) & mask;

/** little is the integer of bytes, the lowest first. */
function little(bytes) {
  return bytes.reduceRight((n, b) => n << 8n | BigInt(b), 0n);
}

export function naiveHash(data) {
  const bytes = typeof data === 'string' ? [...Buffer.from(data)] : [...data];
  let h = p5, at = 0;
  if (bytes.length >= 32) {
    const lanes = [(p1 + p2) & mask, p2, 0n, -p1 & mask];
    for (; at + 32 <= bytes.length; at += 32) {
      for (let i = 0; i < 4; i++) lanes[i] = round(lanes[i], little(bytes.slice(at + 8 * i, at + 8 * i + 8)));
    }
    h = (rotl(lanes[0], 1n) + rotl(lanes[1], 7n) + rotl(lanes[2], 12n) + rotl(lanes[3], 18n)) & mask;
    for (const lane of lanes) h = ((h ^ round(0n, lane)) * p1 + p4) & mask;
  }
  h = (h + BigInt(bytes.length)) & mask;
  for (; at + 8 <= bytes.length; at += 8) h = (rotl(h ^ round(0n, little(bytes.slice(at, at + 8))), 27n) * p1 + p4) & mask;
  if (at + 4 <= bytes.length) {
    h = (rotl(h ^ (little(bytes.slice(at, at + 4)) * p1 & mask), 23n) * p2 + p3) & mask;
    at += 4;
  }
  for (; at < bytes.length; at++) h = (rotl(h ^ (BigInt(bytes[at]) * p5 & mask), 11n) * p1) & mask;
  h = ((h ^ (h >> 33n)) * p2) & mask;
  h = ((h ^ (h >> 29n)) * p3) & mask;
  return h ^ (h >> 32n);
}

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const byBytes = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b));

export class Naive {
  constructor({ virtual_nodes: k, bound }, members) {
    this.members = [...members].sort((a, b) => byBytes(a.id, b.id));
    this.points = [];
    for (const { id, weight, state } of this.members) {
      if (state === 'draining') continue;
      for (let index = 0; index < k * weight; index++) this.points.push({ hash: naiveHash(`${id}_${index}`), id, index, owner: id });
    }
    this.points.sort((a, b) => compare(a.hash, b.hash) || byBytes(a.id, b.id) || a.index - b.index);
    this.bound = bound;
    while (this.bound > 0 && this.points.length > 0 && !this.keep(this.bound, k)) this.bound = 1000 + 2 * (this.bound - 1000);
  }

  /** keep tries a bound. */
  keep(bound, k) {
    for (const p of this.points) p.owner = p.id;
    const total = this.members.reduce((sum, m) => sum + (m.state === 'draining' ? 0 : m.weight), 0);
    const shares = this.shares(), caps = {}, shed = [];
    for (const { id, weight } of this.members) {
      caps[id] = (space * BigInt(bound) * BigInt(weight)) / (1000n * BigInt(total));
      for (let index = k * weight - 1; index >= 0 && shares[id] > caps[id]; index--) {
        const i = this.points.findIndex((p) => p.id === id && p.index === index);
        if (this.arc(i) === 0n) continue;
        shares[id] -= this.arc(i);
        shed.push(i);
      }
    }
    const mix = (i) => naiveHash([...Array(8).keys()].map((byte) => Number(this.points[i].hash >> BigInt(8 * byte) & 255n)));
    for (const i of shed.sort((a, b) => compare(mix(a), mix(b)))) {
      let placed = false;
      for (let step = 1; step <= 4096 && step < this.points.length && !placed; step++) {
        const { id } = this.points[(i + step) % this.points.length];
        if (shares[id] + this.arc(i) > caps[id]) continue;
        shares[id] += this.arc(i);
        this.points[i].owner = id;
        placed = true;
      }
      if (!placed) return false;
    }
    return true;
  }

  arc(i) {
    if (i > 0) return this.points[i].hash - this.points[i - 1].hash;
    return space - this.points.at(-1).hash + this.points[0].hash;
  }

  shares() {
    const shares = Object.fromEntries(this.members.map((m) => [m.id, 0n]));
    this.points.forEach((p, i) => { shares[p.owner] += this.arc(i); });
    return shares;
  }

  owners(hash, n) {
    if (this.points.length === 0) return [];
    const at = Math.max(0, this.points.findIndex((p) => p.hash >= hash));
    const ids = [this.points[at].owner];
    for (let i = 0; i < this.points.length; i++) {
      const { id } = this.points[(at + i) % this.points.length];
      if (!ids.includes(id)) ids.push(id);
    }
    return ids.slice(0, n);
  }
}

/** naiveDiff compares two rings at every hash where either can change. */
export function naiveDiff(a, b) {
  const cuts = new Set([0n]);
  for (const p of [...a.points, ...b.points]) if (p.hash < mask) cuts.add(p.hash + 1n);
  const lows = [...cuts].sort(compare), ranges = [];
  lows.forEach((lo, i) => {
    const hi = lows[i + 1] ?? space, from = a.owners(lo, 1)[0] ?? '', to = b.owners(lo, 1)[0] ?? '', last = ranges.at(-1);
    if (from === to) return;
    if (last?.hi === lo && last.from === from && last.to === to) last.hi = hi;
    else ranges.push({ lo, hi, from, to });
  });
  return ranges;
}
