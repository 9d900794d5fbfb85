import assert from 'node:assert/strict';
import test from 'node:test';

import { hex16, xxh64 } from '../xxh64.js';
import { naiveHash } from './naive.js';
import { seeded } from './random.js';

// From the reference implementation, xxhash.com.
test('known hashes', () => {
  for (const [text, want] of [['', 'ef46db3751d8e999'], ['a', 'd24ec4f1a98c6e5b'], ['abc', '44bc2cf5ad770999']]) {
    assert.equal(hex16(xxh64(text)), want);
    assert.equal(hex16(naiveHash(text)), want);
  }
});

test('bytes of every length', (t) => {
  const below = seeded(t);
  for (let length = 0; length < 200; length++) {
    const bytes = Uint8Array.from({ length }, () => below(256));
    assert.equal(xxh64(bytes), naiveHash(bytes), `length ${length}: ${bytes}`);
  }
});

test('carries', () => {
  for (const byte of [0, 1, 127, 128, 255]) {
    for (let length = 0; length < 80; length++) assert.equal(xxh64(new Uint8Array(length).fill(byte)), naiveHash(new Uint8Array(length).fill(byte)));
  }
});

test('texts are hashed as UTF-8', () => {
  for (const text of ['ключ', 'a'.repeat(2000) + 'é', '\u{1f600}', 'x'.repeat(4096), 'tail é']) assert.equal(xxh64(text), naiveHash(text));
});

test('other types are refused', () => {
  for (const value of [undefined, null, 7, [1, 2]]) assert.throws(() => xxh64(value), TypeError);
});
