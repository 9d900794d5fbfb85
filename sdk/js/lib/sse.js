// Server-sent events, of a stream of bytes.

import { UnavailableError } from './errors.js';

/** maxEvent bounds an event, in characters: nodes send pieces of about 1 MiB. */
const maxEvent = 64 << 20;

/** events yields {event, data, id} of each event, and null for each part that has none: the stream is alive. */
export async function* events(chunks) {
  const decoder = new TextDecoder();
  let rest = '', event = '', id = '', data = [], size = 0;
  for await (const chunk of chunks) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop();
    if ((size += chunk.length) > maxEvent) throw new UnavailableError(`an event has more than ${maxEvent} bytes`);
    let any = false;
    for (const raw of lines) {
      const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
      if (line === '') {
        if (data.length > 0) {
          any = true;
          yield { event: event || 'message', data: data.join('\n'), id };
        }
        [event, data, size] = ['', [], rest.length];
        continue;
      }
      const at = line.indexOf(':'), name = at < 0 ? line : line.slice(0, at);
      const value = at < 0 ? '' : line.slice(at + 1).replace(/^ /, '');
      if (name === 'event') event = value;
      else if (name === 'data') data.push(value);
      else if (name === 'id') id = value;
    }
    if (!any) yield null;
  }
}
