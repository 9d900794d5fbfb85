// XXH64 with seed 0, in halves of 32 bits: numbers have no 64-bit integers, and BigInt takes many times longer.
// Runs in browsers. Halves are written high, then low.

const P1H = 0x9e3779b1 | 0, P1L = 0x85ebca87 | 0;
const P2H = 0xc2b2ae3d | 0, P2L = 0x27d4eb4f | 0;
const P3H = 0x165667b1 | 0, P3L = 0x9e3779f9 | 0;
const P4H = 0x85ebca77 | 0, P4L = 0xc2b2ae63 | 0;
const P5H = 0x27d4eb2f | 0, P5L = 0x165667c5 | 0;

const imul = Math.imul;

/** mulHigh returns the upper 32 bits of the product of two unsigned 32-bit integers. */
function mulHigh(a, b) {
  const a0 = a & 0xffff, a1 = a >>> 16, b0 = b & 0xffff, b1 = b >>> 16;
  const low = imul(a0, b0), mid = imul(a1, b0), mid2 = imul(a0, b1);
  const carry = (low >>> 16) + (mid & 0xffff) + (mid2 & 0xffff);
  return (imul(a1, b1) + (mid >>> 16) + (mid2 >>> 16) + (carry >>> 16)) | 0;
}

function read32(b, at) {
  return b[at] | b[at + 1] << 8 | b[at + 2] << 16 | b[at + 3] << 24;
}

// The four lanes of inputs of 32 bytes and more, each high and low.
const lanes = new Int32Array(8);

/** round puts the 64 bits (kh, kl) into a lane: rotl(lane + k * P2, 31) * P1. */
function round(lane, kh, kl) {
  const productLow = imul(kl, P2L);
  const productHigh = (mulHigh(kl, P2L) + imul(kl, P2H) + imul(kh, P2L)) | 0;
  const low = (lanes[lane + 1] + productLow) | 0;
  const high = (lanes[lane] + productHigh + (low >>> 0 < productLow >>> 0 ? 1 : 0)) | 0;
  const h = high << 31 | low >>> 1, l = low << 31 | high >>> 1;
  lanes[lane] = (mulHigh(l, P1L) + imul(l, P1H) + imul(h, P1L)) | 0;
  lanes[lane + 1] = imul(l, P1L);
}

// The sum of the lanes, high and low.
const state = new Int32Array(2);

function addRotated(lane, bits) {
  const high = lanes[lane], low = lanes[lane + 1];
  const l = low << bits | high >>> 32 - bits;
  const sum = (state[1] + l) | 0;
  state[0] += (high << bits | low >>> 32 - bits) + (sum >>> 0 < l >>> 0 ? 1 : 0);
  state[1] = sum;
}

/** merge makes the state (state ^ round(0, lane)) * P1 + P4. */
function merge(lane) {
  const kh = lanes[lane], kl = lanes[lane + 1];
  lanes[lane] = lanes[lane + 1] = 0;
  round(lane, kh, kl);
  const high = state[0] ^ lanes[lane], low = state[1] ^ lanes[lane + 1];
  const productHigh = (mulHigh(low, P1L) + imul(low, P1H) + imul(high, P1L)) | 0;
  const sum = (imul(low, P1L) + P4L) | 0;
  state[0] = productHigh + P4H + (sum >>> 0 < P4L >>> 0 ? 1 : 0);
  state[1] = sum;
}

/** stripes leaves in state the hash of the whole 32-byte stripes of [from, to), and returns where they end. */
function stripes(bytes, from, to) {
  lanes[0] = P1H + P2H + 0; // P1L + P2L does not carry
  lanes[1] = P1L + P2L;
  lanes[2] = P2H;
  lanes[3] = P2L;
  lanes[4] = lanes[5] = 0;
  lanes[6] = ~P1H; // minus P1: P1L is not 0
  lanes[7] = -P1L;
  let at = from;
  for (; at + 32 <= to; at += 32) {
    round(0, read32(bytes, at + 4), read32(bytes, at));
    round(2, read32(bytes, at + 12), read32(bytes, at + 8));
    round(4, read32(bytes, at + 20), read32(bytes, at + 16));
    round(6, read32(bytes, at + 28), read32(bytes, at + 24));
  }
  state[0] = state[1] = 0;
  addRotated(0, 1);
  addRotated(2, 7);
  addRotated(4, 12);
  addRotated(6, 18);
  for (let lane = 0; lane < 8; lane += 2) merge(lane);
  return at;
}

/**
 * hashBytes writes XXH64 of bytes[from, to) to out[0] (high half) and out[1] (low half). The multiplications
 * are written out: it hashes every point of a ring, and calls would have to return two numbers.
 */
export function hashBytes(out, bytes, from, to) {
  let hi = P5H, lo = P5L, at = from, t = 0;
  if (to - from >= 32) {
    at = stripes(bytes, from, to);
    hi = state[0];
    lo = state[1];
  }
  const length = (to - from) | 0;
  lo = (lo + length) | 0;
  if (lo >>> 0 < length >>> 0) hi = (hi + 1) | 0;
  for (; at + 8 <= to; at += 8) {
    let kl = read32(bytes, at), kh = read32(bytes, at + 4);
    t = (mulHigh(kl, P2L) + imul(kl, P2H) + imul(kh, P2L)) | 0;
    kl = imul(kl, P2L);
    kh = t << 31 | kl >>> 1;
    kl = kl << 31 | t >>> 1;
    hi ^= (mulHigh(kl, P1L) + imul(kl, P1H) + imul(kh, P1L)) | 0;
    lo ^= imul(kl, P1L);
    t = hi << 27 | lo >>> 5;
    lo = lo << 27 | hi >>> 5;
    hi = (mulHigh(lo, P1L) + imul(lo, P1H) + imul(t, P1L)) | 0;
    lo = (imul(lo, P1L) + P4L) | 0;
    hi = (hi + P4H + (lo >>> 0 < P4L >>> 0 ? 1 : 0)) | 0;
  }
  if (at + 4 <= to) {
    const k = read32(bytes, at);
    at += 4;
    hi ^= (mulHigh(k, P1L) + imul(k, P1H)) | 0;
    lo ^= imul(k, P1L);
    t = hi << 23 | lo >>> 9;
    lo = lo << 23 | hi >>> 9;
    hi = (mulHigh(lo, P2L) + imul(lo, P2H) + imul(t, P2L)) | 0;
    lo = (imul(lo, P2L) + P3L) | 0;
    hi = (hi + P3H + (lo >>> 0 < P3L >>> 0 ? 1 : 0)) | 0;
  }
  for (; at < to; at++) {
    const k = bytes[at];
    hi ^= (mulHigh(k, P5L) + imul(k, P5H)) | 0;
    lo ^= imul(k, P5L);
    t = hi << 11 | lo >>> 21;
    lo = lo << 11 | hi >>> 21;
    hi = (mulHigh(lo, P1L) + imul(lo, P1H) + imul(t, P1L)) | 0;
    lo = imul(lo, P1L);
  }
  lo ^= hi >>> 1; // the hash ^= the hash >> 33
  hi = (mulHigh(lo, P2L) + imul(lo, P2H) + imul(hi, P2L)) | 0;
  lo = imul(lo, P2L);
  lo ^= lo >>> 29 | hi << 3; // >> 29
  hi ^= hi >>> 29;
  hi = (mulHigh(lo, P3L) + imul(lo, P3H) + imul(hi, P3L)) | 0;
  lo = imul(lo, P3L);
  out[0] = hi;
  out[1] = lo ^ hi; // >> 32
}

const encoder = new TextEncoder();
let scratch = new Uint8Array(1 << 10);

/** hashInto writes XXH64 of bytes, or of a text's UTF-8, to out[0] (high half) and out[1] (low half). */
export function hashInto(out, data) {
  if (typeof data !== 'string') {
    if (!(data instanceof Uint8Array)) throw new TypeError('want a string or a Uint8Array');
    hashBytes(out, data, 0, data.length);
    return;
  }
  const length = data.length;
  if (length * 3 > scratch.length) scratch = new Uint8Array(length * 6);
  for (let i = 0; i < length; i++) {
    const c = data.charCodeAt(i);
    if (c > 127) {
      hashBytes(out, scratch, 0, encoder.encodeInto(data, scratch).written);
      return;
    }
    scratch[i] = c;
  }
  hashBytes(out, scratch, 0, length);
}

const halves = new Uint32Array(2);

/** xxh64 returns XXH64 of bytes, or of a text's UTF-8, with seed 0. */
export function xxh64(data) {
  hashInto(halves, data);
  return join(halves[0], halves[1]);
}

/** join makes one integer of two halves. */
export function join(high, low) {
  return BigInt(high) << 32n | BigInt(low);
}

/** hex16 writes a 64-bit integer as 16 hexadecimal digits. */
export function hex16(n) {
  return n.toString(16).padStart(16, '0');
}
