// The colours of members. A member keeps its colour for as long as the page is open.

const golden = 137.508;
const places = new Map(); // group and id → place in the sequence of hues
const next = new Map(); // group → next place

export const dark = matchMedia('(prefers-color-scheme: dark)');

// learn gives places to members in the order of their ids.
export function learn(group, ids) {
  for (const id of ids) {
    const key = `${group}/${id}`;
    if (places.has(key)) continue;
    const place = next.get(group) ?? 0;
    places.set(key, place);
    next.set(group, place + 1);
  }
}

// colour is that of a member, as CSS.
export function colour(group, id, alpha = 1) {
  const place = places.get(`${group}/${id}`) ?? 0;
  const hue = (255 + place * golden) % 360, step = place % 3;
  const light = (dark.matches ? 0.74 : 0.64) + (step - 1) * 0.06;
  return `oklch(${light} ${place > 24 ? 0.11 : 0.14} ${hue.toFixed(1)} / ${alpha})`;
}

// load is the colour of a share ÷ fair share: calm at 1, warm above, cool below.
export function load(ratio) {
  const d = Math.max(-1, Math.min(1, (ratio - 1) / 0.4));
  const hue = d > 0 ? 80 - 50 * d : 240;
  const light = (dark.matches ? 0.72 : 0.76) - 0.12 * Math.abs(d);
  return `oklch(${light} ${(0.09 + 0.07 * Math.abs(d)).toFixed(3)} ${hue})`;
}

// css reads a colour of the style sheet.
export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
