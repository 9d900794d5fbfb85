// Calls that the client and what it keeps in the background have in common.

import { query, read, write } from './call.js';
import { durationText } from './values.js';

/** groupPath is the path of a group, and of what is in it. */
export function groupPath(group, ...more) {
  return ['/v1/groups', ...[group, ...more].map(encodeURIComponent)].join('/');
}

/** leaderReceipt returns the receipt of a group at the leader. */
export async function leaderReceipt(core, group, options = {}) {
  const path = (reading) => groupPath(group, 'members') + query({ ...reading, page_size: 1 });
  return (await read(core, 'receipt', { ...options, linearizable: true }, path)).receipt;
}

/** putMember registers. attempted is called before each attempt that may be the first to take effect. */
export function putMember(core, group, id, body, options, attempted) {
  return write(core, 'register', options, (attempt) => {
    if (!attempt.again) attempted();
    return { method: 'PUT', path: groupPath(group, 'members', id), body: { ...body, ...attempt } };
  });
}

/** updateMember changes the state, the weight, or the hold of a member. */
export function updateMember(core, group, id, { state, weight, hold, instance, ...options }) {
  const change = { state, weight, hold: hold === undefined ? undefined : durationText(hold, 'hold'), instance };
  return write(core, 'updateMember', options, (attempt) => ({ method: 'PATCH', path: groupPath(group, 'members', id), body: { ...change, ...attempt } }));
}

/** deregister removes a member; with instance only that of one process. */
export function deregister(core, group, id, { instance, keep_held, ...options } = {}) {
  const path = (attempt) => groupPath(group, 'members', id) + query({ instance, keep_held, ...attempt });
  return write(core, 'deregister', options, (attempt) => ({ method: 'DELETE', path: path(attempt) }));
}
