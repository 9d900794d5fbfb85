// The declarations have what the modules have: exports, and the members of classes.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import test from 'node:test';

const root = new URL('../', import.meta.url);

/** nameOf is the name of a member; Node's own symbol has another description than the later standard. */
function nameOf(key) {
  return key === Symbol.asyncDispose ? 'Symbol(Symbol.asyncDispose)' : String(key);
}

/** declared reads the values that a declaration file exports, and for classes the names of their members. */
function declared(name) {
  const names = new Map();
  let members = null;
  for (const line of readFileSync(new URL(name, root), 'utf8').split('\n')) {
    const value = /^export (?:declare )?(?:abstract )?(class|function|const) (\w+)/.exec(line);
    if (value) names.set(value[2], members = value[1] === 'class' ? new Set() : null);
    else if (/^\S/.test(line)) members = null;
    const member = /^ {2}(?:private |static |readonly )*(?:\[Symbol\.(\w+)\]|(\w+))[<(?:]/.exec(line);
    if (members && member) members.add(member[1] ? `Symbol(Symbol.${member[1]})` : member[2]);
    const reexport = /^export \{ (.*) \} from/.exec(line);
    for (const again of reexport?.[1].split(', ') ?? []) if (!again.startsWith('type ')) names.set(again, null);
  }
  return names;
}

for (const name of readdirSync(root).filter((file) => file.endsWith('.d.ts'))) {
  test(name, async () => {
    const module = await import(new URL(name.replace('.d.ts', '.js'), root)), names = declared(name);
    assert.deepEqual([...names.keys()].sort(), Object.keys(module).sort());
    for (const [exported, members] of names) {
      if (!members) continue;
      // Fields are no properties of the prototype, so they may only be declared. Names with _ are internal.
      for (const key of Reflect.ownKeys(module[exported].prototype).filter((name) => name !== 'constructor' && !String(name).startsWith('_'))) assert.ok(members.has(nameOf(key)), `${exported}.${String(key)} is not declared`);
    }
  });
}
