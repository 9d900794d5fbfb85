// Calls of the node's API, at the origin of the page.

import { session } from './session.js';

// Problem is an answer that is an error. Its reason is the API's; status is 0 when no node answered.
export class Problem extends Error {
  constructor(status, { detail, reason, field, limit } = {}) {
    super(detail || (status ? `HTTP ${status}` : 'the node does not answer'));
    Object.assign(this, { status, reason: reason ?? '', field, limit });
  }
}

// The node's clock minus this machine's, in ms.
let skew = 0;
export const now = () => Date.now() + skew;

function request(path, signal, headers = {}) {
  const token = session.token;
  if (token) headers.Authorization = `Bearer ${token}`;
  return fetch(path, { headers, signal, cache: 'no-store', credentials: 'omit', redirect: 'error', referrerPolicy: 'no-referrer' });
}

async function problem(answer) {
  const text = await answer.text();
  try {
    return new Problem(answer.status, JSON.parse(text));
  } catch {
    return new Problem(answer.status, { detail: text.trim() });
  }
}

// path makes one of parts and a query: path(['groups', name], {key}).
export function path(parts, query = {}) {
  const q = new URLSearchParams(query).toString();
  return `/v1/${parts.map(encodeURIComponent).join('/')}${q && `?${q}`}`;
}

// get reads an answer, within 10 s. It throws a Problem.
export async function get(parts, query, signal) {
  const limit = AbortSignal.timeout(10_000);
  let answer;
  try {
    answer = await request(path(parts, query), signal ? AbortSignal.any([signal, limit]) : limit);
    const date = Date.parse(answer.headers.get('Date') ?? '');
    if (date && Math.abs(date - now()) > 2000) skew = date - Date.now();
    if (answer.ok) return { body: await answer.json(), headers: answer.headers };
  } catch (e) {
    if (signal?.aborted) throw e;
    throw new Problem(0);
  }
  throw await problem(answer);
}

// Without a byte for this long, a stream is dead: the node sends one every 2 s.
const silence = 8000;

// events reads a stream of server-sent events, and calls on(name, data, id) for each. It returns when
// the stream ends and throws a Problem when it fails.
async function events(url, lastID, signal, opened, on) {
  const dead = new AbortController();
  let timer;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => dead.abort(), silence);
  };
  try {
    alive();
    const answer = await request(url, AbortSignal.any([signal, dead.signal]), lastID ? { 'Last-Event-ID': lastID } : {});
    if (!answer.ok) throw await problem(answer);
    opened();
    const parser = new Parser(on);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      alive();
      parser.push(value);
    }
  } catch (e) {
    if (e instanceof Problem || signal.aborted) throw e;
    throw new Problem(0);
  } finally {
    clearTimeout(timer);
  }
}

// Parser takes the text of server-sent events in any pieces.
export class Parser {
  #on; #rest = ''; #name = ''; #data = []; #id = '';
  constructor(on) { this.#on = on; }

  push(text) {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line.replace(/\r$/, ''));
  }

  #line(line) {
    if (line === '') {
      if (this.#data.length) this.#on(this.#name || 'message', JSON.parse(this.#data.join('\n')), this.#id);
      this.#name = '';
      this.#data = [];
      return;
    }
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === 'event') this.#name = value;
    else if (field === 'data') this.#data.push(value);
    else if (field === 'id') this.#id = value;
  }
}

const pause = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
});

// watch follows a watch of the API until the signal: on(name, data) for each event, state(name, problem)
// for connecting, live, reconnecting and refused. After a break it resumes where it was.
export async function watch(query, signal, on, state) {
  const url = path(['watch'], { ...query, progress_interval: '2s' });
  let lastID = '', tries = 0;
  const pieces = joined(on);
  while (!signal.aborted) {
    state(tries ? 'reconnecting' : 'connecting');
    try {
      await events(url, lastID, signal, () => { tries = 0; state('live'); }, (name, data, id) => {
        if (name === 'error') throw new Problem(data.status ?? 0, data);
        if (id) lastID = id;
        pieces(name, data);
      });
    } catch (e) {
      if (signal.aborted) return;
      const refused = e.status === 401 || e.status === 403 || e.status === 400;
      state(refused ? 'refused' : 'reconnecting', e);
      if (refused) return;
    }
    // Half of the time at random, so that all pages do not return to a node at once.
    tries++;
    await pause(Math.min(5000, 250 * 2 ** tries) * (0.5 + Math.random() / 2), signal);
  }
}

// joined makes one event of the pieces of a large one: those before the last have more set.
function joined(on) {
  let held = null;
  return (name, data) => {
    if (held && held.name === name) {
      for (const [key, value] of Object.entries(data)) {
        if (Array.isArray(value)) data[key] = held.data[key].concat(value);
      }
    }
    held = data.more ? { name, data } : null;
    if (!held) on(name, data);
  };
}
