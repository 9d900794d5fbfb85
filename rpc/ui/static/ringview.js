// The picture of a ring, on a canvas. The outer band is the circle of hashes: 4,096 samples of it, each in the
// colour of the member that owns that hash. The inner band has a sector for each member, as wide as its share.
// Above a few hundred members colours say nothing: the inner band then has bundles of members, each from
// the smallest to the largest share in it, and the outer band only what is lit.

import { h, later } from './dom.js';
import { colour, css, load } from './colour.js';
import { count, percent, plural, ratio } from './format.js';

export const condensedFrom = 300;
const bundles = 120;

// Bands, as parts of the radius.
const outer = [0.81, 1], inner = [0.67, 0.765], wide = [0.6, 0.9], track = [0.935, 1];

// level is the radius of a share ÷ fair share in the band of bundles.
const level = (ratio) => Math.max(wide[0], Math.min(wide[1], 0.75 + (ratio - 1) * 0.42));

export class RingView {
  #picture = null; #group = ''; #sectors = []; #paths = new Map(); #lit = null; #key = null; #selected = ''; #hover = null; #size = 0; #active = -1;

  // options: label, choose(id, members), still (no pointer and no keys).
  constructor({ label, choose, still }) {
    this.choose = choose;
    this.canvas = h('canvas', still ? { role: 'img', 'aria-label': label } : {
      role: 'slider', tabindex: '0', 'aria-label': label, 'aria-roledescription': 'ring', 'aria-valuemin': '1', 'aria-valuemax': '1', 'aria-valuenow': '1',
      onpointermove: (e) => this.#point(this.#hit(e)), onpointerleave: () => this.#point(null),
      onclick: (e) => this.#take(this.#hit(e)), onkeydown: (e) => this.#press(e),
    });
    this.title = h('strong', {}, '');
    this.detail = h('span', {}, '');
    this.element = h('div', { class: 'ring' }, this.canvas, h('div', { class: 'ring-centre', 'aria-hidden': 'true' }, this.title, this.detail));
    this.redraw = later(() => this.#draw());
    new ResizeObserver(() => this.redraw()).observe(this.element);
  }

  get condensed() { return (this.#picture?.owning ?? 0) > condensedFrom; }

  // show draws a ring; lit, if any, has the owners of the samples to light, and -1 for those that are grey.
  show(group, picture, lit = null) {
    this.summary = null; // a title and a line for the middle, set by the caller after this
    this.#group = group;
    this.#picture = picture;
    this.#lit = lit;
    this.#sectors = this.condensed ? bundled(picture) : alone(picture);
    this.#paths.clear();
    this.#hover = null;
    if (this.canvas.hasAttribute('aria-valuemax')) this.canvas.setAttribute('aria-valuemax', String(Math.max(1, this.#sectors.length)));
    this.redraw();
  }

  // select marks a member; locate marks a key: {turn, owner}, or null.
  select(id) { this.#selected = id; this.redraw(); }
  locate(key) { this.#key = key; this.redraw(); }

  #hit(e) {
    if (!this.#picture?.size) return null;
    const box = this.canvas.getBoundingClientRect();
    const x = e.clientX - box.left - box.width / 2, y = e.clientY - box.top - box.height / 2;
    const far = Math.hypot(x, y) / (this.#size / 2 - margin);
    const turn = (Math.atan2(x, -y) / (2 * Math.PI) + 1) % 1;
    const [from, to] = this.condensed ? wide : inner;
    if (far > from - 0.05 && far < to + 0.02) return this.#sectors.find((s) => turn < s.to) ?? null;
    if (far >= to && far < 1.05 && !this.condensed) {
      const owner = this.#picture.owners[Math.floor(turn * this.#picture.owners.length)];
      return this.#sectors.find((s) => s.first === owner) ?? null;
    }
    return null;
  }

  #point(sector) {
    if (sector === this.#hover) return;
    this.#hover = sector;
    this.canvas.style.cursor = sector ? 'pointer' : '';
    this.redraw();
  }

  #take(sector) {
    if (!sector) return;
    const ids = this.#picture.ids.slice(sector.first, sector.last + 1);
    this.choose(ids.length === 1 ? ids[0] : '', ids);
  }

  #press(e) {
    const n = this.#sectors.length, by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
    if (!n) return;
    if (by) this.#active = (this.#active + by + n) % n;
    else if (e.key === 'Home') this.#active = 0;
    else if (e.key === 'End') this.#active = n - 1;
    else if (e.key === 'Escape') { this.#active = -1; this.#point(null); return; }
    else if ((e.key === 'Enter' || e.key === ' ') && this.#active >= 0) this.#take(this.#sectors[this.#active]);
    else return;
    e.preventDefault();
    if (this.#active < 0) return;
    this.canvas.setAttribute('aria-valuenow', String(this.#active + 1));
    this.canvas.setAttribute('aria-valuetext', this.#words(this.#sectors[this.#active]).join(', '));
    this.#point(this.#sectors[this.#active]);
  }

  // words are a title and a line about a sector.
  #words(s) {
    const { ids } = this.#picture;
    if (s.first === s.last) return [ids[s.first], `${percent(s.share)} · ${ratio(s.ratio)} fair`];
    return [plural(s.last - s.first + 1, 'member'), `${s.least.toFixed(2)} to ${s.ratio.toFixed(2)} of fair`];
  }

  #draw() {
    const size = this.element.clientWidth, scale = devicePixelRatio || 1;
    if (!size || !this.#picture) return;
    if (this.#size !== size || this.canvas.width !== Math.round(size * scale)) {
      this.#size = size;
      this.canvas.width = this.canvas.height = Math.round(size * scale);
      this.#paths.clear();
    }
    const c = this.canvas.getContext('2d');
    c.setTransform(scale, 0, 0, scale, 0, 0);
    c.clearRect(0, 0, size, size);
    c.translate(size / 2, size / 2);
    const r = size / 2 - margin;
    this.#ground(c, r);
    if (this.#picture.size) {
      this.#drawOuter(c, r);
      this.#drawInner(c, r);
    }
    if (this.#key) this.#drawKey(c, r);
    this.#centre();
  }

  #ground(c, r) {
    c.fillStyle = css('--track');
    for (const band of this.condensed ? [track] : [outer, inner]) c.fill(sector(0, 1, band, r));
  }

  // of returns how a member stands out: null for all alike, else whether it does.
  #out(id) {
    const h = this.#hover;
    if (h) return this.#picture.ids[h.first] <= id && id <= this.#picture.ids[h.last];
    if (this.#key) return id === this.#key.owner;
    if (this.#selected) return id === this.#selected;
    return null;
  }

  #drawOuter(c, r) {
    const { ids } = this.#picture, owners = this.#lit ?? this.#picture.owners;
    if (!this.#paths.size) {
      const band = this.condensed ? track : outer;
      for (let i = 0, from = 0; i < owners.length; i++) {
        if (owners[i + 1] === owners[from]) continue;
        if (owners[from] >= 0 && (this.#lit || !this.condensed)) addSector(this.#path(owners[from]), from / owners.length, (i + 1) / owners.length, band, r);
        from = i + 1;
      }
    }
    c.lineWidth = 0.9;
    for (const [owner, path] of this.#paths) {
      const out = this.#lit ? true : this.#out(ids[owner]);
      c.globalAlpha = out === false ? 0.1 : 1;
      c.fillStyle = c.strokeStyle = colour(this.#group, ids[owner]);
      c.fill(path);
      if (out) c.stroke(path); // or arcs of a pixel could not be seen
    }
    c.globalAlpha = 1;
  }

  #path(owner) {
    if (!this.#paths.has(owner)) this.#paths.set(owner, new Path2D());
    return this.#paths.get(owner);
  }

  #drawInner(c, r) {
    const { ids } = this.#picture, band = this.condensed ? wide : inner;
    const gap = this.#sectors.length > 1 && this.#sectors.length <= 150 ? Math.min(0.0012, 0.12 / this.#sectors.length) : 0;
    for (const s of this.#sectors) {
      if (s.to - s.from < 1e-7) continue;
      const out = this.condensed ? this.#within(s) : this.#out(ids[s.first]);
      c.globalAlpha = out === false ? 0.25 : this.#lit && !this.condensed ? 0.55 : 1;
      if (this.condensed) {
        for (const ratio of [s.least, s.ratio]) {
          c.fillStyle = load(ratio);
          c.fill(sector(s.from + gap, s.to - gap, [level(Math.min(1, ratio)), level(Math.max(1, ratio))], r));
        }
      } else {
        c.fillStyle = colour(this.#group, ids[s.first]);
        c.fill(sector(s.from + gap, s.to - gap, band, r));
      }
    }
    c.globalAlpha = 1;
    if (!this.condensed) return;
    c.strokeStyle = css('--ink');
    c.lineWidth = 1;
    c.beginPath();
    c.arc(0, 0, r * level(1), 0, 7);
    c.stroke();
  }

  // within tells whether a bundle stands out; null for all alike.
  #within(s) {
    if (this.#hover) return s === this.#hover;
    const id = this.#key?.owner ?? this.#selected;
    if (!id) return null;
    const at = this.#picture.ids.indexOf(id);
    return s.first <= at && at <= s.last;
  }

  #drawKey(c, r) {
    const a = angle(this.#key.turn), ink = css('--ink');
    const [x, y] = [Math.cos(a), Math.sin(a)];
    c.strokeStyle = ink;
    c.lineWidth = 2;
    c.beginPath();
    c.moveTo(x * r * 0.56, y * r * 0.56);
    c.lineTo(x * (r + 5), y * (r + 5));
    c.stroke();
    c.fillStyle = ink;
    c.beginPath();
    c.arc(x * (r + 7), y * (r + 7), 5, 0, 7);
    c.fill();
  }

  #centre() {
    const p = this.#picture;
    let words = this.summary ?? [count(p.owning), p.owning === 1 ? 'owner' : 'owners'];
    if (this.#hover) words = this.#words(this.#hover);
    else if (this.#key && !this.summary) words = [this.#key.owner, 'owns the key'];
    [this.title.textContent, this.detail.textContent] = words;
    this.title.classList.toggle('long', words[0].length > 10);
  }
}

const margin = 14;

const angle = (turn) => (turn - 0.25) * 2 * Math.PI;

function addSector(path, from, to, [low, high], r) {
  const a = angle(from), b = angle(Math.min(to, from + 1)) + 0.0004;
  path.moveTo(Math.cos(a) * r * high, Math.sin(a) * r * high);
  path.arc(0, 0, r * high, a, b);
  path.arc(0, 0, r * low, b, a, true);
  path.closePath();
}

function sector(from, to, band, r) {
  const path = new Path2D();
  addSector(path, from, to, band, r);
  return path;
}

const fairOf = ({ weights }) => {
  const total = weights.reduce((a, b) => a + b, 0);
  return (m) => weights[m] / total;
};

// alone has a sector for each member with points.
function alone(picture) {
  const fair = fairOf(picture), out = [];
  let from = 0;
  picture.shares.forEach((share, m) => {
    if (!picture.weights[m]) return;
    out.push({ first: m, last: m, from, to: from + share, share, ratio: share / fair(m) });
    from += share;
  });
  return out;
}

// bundled has sectors of as many members each, in the order of ids.
function bundled(picture) {
  const fair = fairOf(picture), out = [], each = Math.ceil(picture.ids.length / bundles);
  let from = 0;
  for (let first = 0; first < picture.ids.length; first += each) {
    const last = Math.min(first + each, picture.ids.length) - 1;
    let share = 0, largest = 0, least = Infinity;
    for (let m = first; m <= last; m++) {
      share += picture.shares[m];
      if (!picture.weights[m]) continue;
      largest = Math.max(largest, picture.shares[m] / fair(m));
      least = Math.min(least, picture.shares[m] / fair(m));
    }
    out.push({ first, last, from, to: from + share, share, ratio: largest, least: Math.min(least, largest) });
    from += share;
  }
  return out;
}
