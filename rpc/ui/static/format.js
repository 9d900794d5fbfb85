// How values are written.

const units = { h: 3600e3, m: 60e3, s: 1e3, ms: 1, 'µs': 1e-3, us: 1e-3, ns: 1e-6 };

// milliseconds of a duration of the API, such as 1m30s.
export function milliseconds(text) {
  let sum = 0;
  for (const [, number, unit] of (text ?? '').matchAll(/([\d.]+)(ms|µs|us|ns|h|m|s)/g)) sum += Number(number) * units[unit];
  return sum;
}

// span writes a time in its largest unit: 45 s, 3 m, 7 h, 12 d.
export function span(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.floor(s)} s`;
  if (s < 7200) return `${Math.floor(s / 60)} m`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

export const count = (n) => n.toLocaleString('en');

export const plural = (n, one, more = `${one}s`) => `${count(n)} ${n === 1 ? one : more}`;

// percent of a part of 1, with as many decimals as small parts need.
export function percent(part) {
  const p = part * 100;
  if (p === 0 || p >= 99.995) return `${Math.round(p)} %`;
  if (p < 0.005) return `${p.toPrecision(1)} %`;
  return `${p.toFixed(p < 0.1 ? 3 : 2)} %`;
}

export const ratio = (r) => `× ${r.toFixed(2)}`;

export const clock = (ms) => new Date(ms).toLocaleTimeString('en-GB');

// parts is a share in per mille as a percentage of the fair share.
export const bound = (perMille) => (perMille ? `${perMille / 10} % of the fair share` : 'off');
