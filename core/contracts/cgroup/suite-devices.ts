import assert from 'node:assert/strict';
import { isEngineError } from '../../errors/index.ts';
import { type SuiteCase } from '../common/suite.ts';
import { type DeviceRule } from '../../spec/index.ts';
import { type CgroupContext } from './suite-context.ts';

const deny: DeviceRule = { allow: false, access: 'rwm' };
const nodes = { null: [1, 3], zero: [1, 5], random: [1, 8] } as const;

/** `allowed`, `denied`: `<node>:<r, w or m>`. */
interface Table { readonly name: string; readonly rules: readonly DeviceRule[]; readonly allowed: readonly string[]; readonly denied: readonly string[] }
const tables: readonly Table[] = [
  { name: 'what is not allowed cannot be opened', rules: [deny, { allow: true, type: 'c', access: 'm' }, { allow: true, type: 'c', major: 1, minor: 3 }], allowed: ['null:w', 'null:r', 'zero:m'], denied: ['zero:r', 'zero:w'] },
  { name: 'what no rule speaks of is denied', rules: [{ allow: true, type: 'c', major: 1, minor: 3 }], allowed: ['null:r', 'null:m'], denied: ['zero:r', 'zero:m'] },
  { name: 'the last rule wins', rules: [deny, { allow: true, type: 'c', major: 1, minor: 3 }, { allow: true, type: 'c', major: 1, minor: 5 }, { allow: false, type: 'c', major: 1, minor: 5 }], allowed: ['null:r'], denied: ['zero:r', 'zero:w', 'zero:m'] },
  { name: 'a wildcard of the minor number', rules: [deny, { allow: true, type: 'c', major: 1, access: 'rm' }], allowed: ['null:r', 'zero:r', 'random:m'], denied: ['null:w', 'zero:w'] },
  { name: 'access adds up', rules: [deny, { allow: true, type: 'c', major: 1, minor: 3, access: 'r' }, { allow: true, type: 'c', major: 1, minor: 3, access: 'w' }], allowed: ['null:r', 'null:w'], denied: ['null:m', 'zero:r'] },
  { name: 'access is taken away', rules: [deny, { allow: true, type: 'c', major: 1, minor: 3 }, { allow: true, type: 'c', major: 1, minor: 5 }, { allow: false, type: 'c', major: 1, minor: 5, access: 'w' }], allowed: ['zero:r', 'zero:m', 'null:w'], denied: ['zero:w'] },
  { name: 'all but one', rules: [{ allow: true }, { allow: false, type: 'c', major: 1, minor: 5, access: 'w' }], allowed: ['null:r', 'null:w', 'zero:r', 'random:m'], denied: ['zero:w'] },
  { name: 'one exception in a wider allow', rules: [deny, { allow: true, type: 'c', major: 1 }, { allow: false, type: 'c', major: 1, minor: 5 }], allowed: ['null:r', 'random:r'], denied: ['zero:r', 'zero:m'] },
];

function ask({ allowed, denied }: Table): string {
  return [...allowed, ...denied].map((what) => {
    const [name = 'null', access] = what.split(':');
    const [major, minor] = nodes[name as keyof typeof nodes];
    // rounded brackets: a redirection that fails would end the shell
    const attempt = access === 'm' ? `busybox mknod /tmp/made-${name} c ${major} ${minor} && busybox rm /tmp/made-${name}` : access === 'r' ? `( : < /dev/try-${name} )` : `( : > /dev/try-${name} )`;
    return `${attempt} 2>>/tmp/said && echo ${what}`;
  }).join('\n');
}

export const deviceCases: readonly SuiteCase<CgroupContext>[] = tables.map((table): SuiteCase<CgroupContext> => ({
  name: `devices: ${table.name}`,
  needs: ['containers', 'devices'],
  async run(c) {
    let steps;
    try {
      steps = await c.plan({ devices: [...table.rules] });
    } catch (error) {
      // a driver that can't say it may say so; it may not mean something else
      assert.ok(isEngineError(error, 'ERR_FEATURE_MISSING'), String(error));
      return;
    }
    const devices = Object.entries(nodes).map(([name, [major, minor]]) => ({ path: `/dev/try-${name}`, major, minor }));
    const { output, errors } = await c.runner.run(steps, `${ask(table)}\nexit 0`, { devices });
    const got = output.trim().split('\n').filter(Boolean).sort();
    assert.deepEqual(got, [...table.allowed].sort(), errors);
  },
}));
