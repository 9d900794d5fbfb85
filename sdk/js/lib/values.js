// Durations, random bytes, keys and waiting.

import { ClosedError, invalid } from './errors.js';

const units = { ns: 1e-6, us: 1e-3, µs: 1e-3, μs: 1e-3, ms: 1, s: 1e3, m: 60e3, h: 3600e3 };

/** milliseconds reads a duration: a number of milliseconds, or a text such as 1m30s. */
export function milliseconds(value, field = 'duration') {
  if (typeof value === 'number' && Number.isFinite(value) && value >= 0) return value;
  if (value === '0') return 0;
  let sum = 0;
  const rest = String(value).replace(/(\d+(?:\.\d+)?)(ns|us|µs|μs|ms|s|m|h)/gy, (_, n, unit) => {
    sum += Number(n) * units[unit];
    return '';
  });
  if (typeof value !== 'string' || value === '' || rest !== '') {
    throw invalid('', field, 'milliseconds, or a text such as 10s', `${field} is ${JSON.stringify(value)}, want milliseconds or a text such as 10s or 1m30s`);
  }
  return sum;
}

/** durationText writes a duration as the API reads it. */
export function durationText(value, field) {
  const ms = milliseconds(value, field);
  return typeof value === 'string' ? value : `${ms}ms`;
}

// Node 18 does not have it as a global.
const random = globalThis.crypto ?? (await import('node:crypto')).webcrypto;

/** randomHex returns 16 random bytes as hexadecimal digits. */
export function randomHex() {
  return Array.from(random.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
}

/** base64 encodes bytes. */
export function base64(bytes) {
  let text = '';
  for (const b of bytes) text += String.fromCharCode(b);
  return btoa(text);
}

/** now is a clock that only goes forward, in milliseconds. */
export function now() {
  return performance.now();
}

/** jittered is between half of a time and all of it, so that clients do not try again together. */
export function jittered(ms) {
  return ms / 2 + Math.random() * ms / 2;
}

/** sleep waits; it rejects with the signal's reason when that is aborted. With unref it does not keep the process. */
export function sleep(ms, signal, { unref = false } = {}) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(done, ms);
    if (unref) timer.unref?.();
    function done() {
      signal?.removeEventListener('abort', aborted);
      resolve();
    }
    function aborted() {
      clearTimeout(timer);
      reject(signal.reason);
    }
    signal?.addEventListener('abort', aborted, { once: true });
  });
}

/**
 * bounded calls f with a signal that is aborted with the others, or by a TimeoutError after some time. The signals of
 * a long life lose their listeners at the end.
 */
export async function bounded(signals, ms, f) {
  const control = new AbortController();
  const undo = signals.filter(Boolean).map((signal) => {
    const abort = () => control.abort(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    return () => signal.removeEventListener('abort', abort);
  });
  const timer = ms === Infinity ? undefined : setTimeout(() => control.abort(new DOMException(`no answer within ${Math.round(ms)} ms`, 'TimeoutError')), ms);
  try {
    return await f(control.signal);
  } finally {
    clearTimeout(timer);
    for (const remove of undo) remove();
  }
}

/**
 * End is the part of an AbortSignal that is used here, for a long life: Node warns of signals with more than ten
 * listeners, and each call of a client is one.
 */
export class End {
  #listeners = new Set();
  aborted = false;
  reason;

  abort(reason) {
    if (this.aborted) return;
    [this.aborted, this.reason] = [true, reason];
    for (const listener of [...this.#listeners]) listener();
    this.#listeners.clear();
  }

  addEventListener(_, listener) {
    this.#listeners.add(listener);
  }

  removeEventListener(_, listener) {
    this.#listeners.delete(listener);
  }

  throwIfAborted() {
    if (this.aborted) throw this.reason;
  }
}

/** Emitter calls the listeners of events. */
export class Emitter {
  #listeners = new Map();

  /** on adds a listener and returns a function that removes it. */
  on(event, listener) {
    const list = this.#listeners.get(event) ?? [];
    this.#listeners.set(event, [...list, listener]);
    return () => this.off(event, listener);
  }

  off(event, listener) {
    this.#listeners.set(event, (this.#listeners.get(event) ?? []).filter((other) => other !== listener));
  }

  /** emit calls the listeners. What one throws is an uncaught exception, and does not reach the caller. */
  emit(event, value) {
    for (const listener of this.#listeners.get(event) ?? []) {
      try {
        listener(value);
      } catch (e) {
        queueMicrotask(() => { throw e; });
      }
    }
  }
}

export function closedError(what) {
  return new ClosedError(`the ${what} is closed`);
}
