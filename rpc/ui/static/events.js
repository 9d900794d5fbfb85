// A list of what happened, newest first.

import { h, fill } from './dom.js';
import { clock, count } from './format.js';

const most = 60; // rows

export function eventList(label) {
  const list = h('ol', { class: 'events', role: 'log', 'aria-label': label, 'aria-live': 'polite', 'aria-relevant': 'additions', tabindex: '0' });
  let last;
  return {
    element: list,
    // show takes {at, kind, id, text, revision}.
    show(events, empty) {
      const key = events.length ? `${events.length} ${events[0].at} ${events[0].id} ${events[0].text}` : empty;
      if (key === last) return;
      last = key;
      if (!events.length) {
        fill(list, h('li', { class: 'empty' }, empty));
        return;
      }
      fill(list, events.slice(0, most).map((e) => h('li', { class: e.kind },
        h('time', {}, clock(e.at)), h('span', { class: 'dot', 'aria-hidden': 'true' }), h('span', {}, e.id && h('b', {}, e.id), e.id && ' ', e.text),
        e.revision && h('small', {}, `revision ${e.revision}`))),
      events.length > most && h('li', { class: 'empty' }, `and ${count(events.length - most)} earlier`));
    },
  };
}
