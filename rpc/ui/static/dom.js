// Elements are made here and nowhere else. Text becomes text nodes: nothing of the registry is ever
// parsed as markup.

// h makes an element: h('p', {class: 'note', onclick: f}, 'text', child). Attributes that are false or
// null are left out; those that are functions are listeners.
export function h(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (typeof value === 'function') e.addEventListener(name.slice(2), value);
    else e.setAttribute(name, value === true ? '' : value);
  }
  e.append(...children.flat(3).filter((c) => c != null && c !== false));
  return e;
}

const svgSpace = 'http://www.w3.org/2000/svg';

// icon is a path in a box of 16.
export function icon(path) {
  const s = document.createElementNS(svgSpace, 'svg');
  for (const [name, value] of [['viewBox', '0 0 16 16'], ['class', 'icon'], ['aria-hidden', 'true']]) s.setAttribute(name, value);
  const p = document.createElementNS(svgSpace, 'path');
  p.setAttribute('d', path);
  s.append(p);
  return s;
}

// setText changes a text only if it differs, so that screen readers hear changes alone.
export function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

// fill replaces the children.
export function fill(e, ...children) {
  e.replaceChildren(...children.flat(3).filter((c) => c != null && c !== false));
}

// refill replaces the children if the key is another one: what stays the same keeps its focus and can be selected.
export function refill(e, key, make) {
  if (e.dataset.key === key) return;
  e.dataset.key = key;
  fill(e, make());
}

// later calls f at most once in a frame, however often it is asked for.
export function later(f) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; f(); });
  };
}

let ids = 0;

// field is an input with its label.
export function field(label, input, hint) {
  input.id ||= `field-${++ids}`;
  return h('div', { class: 'field' }, h('label', { for: input.id }, label), input, hint && h('small', {}, hint));
}
