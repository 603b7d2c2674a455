import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmdirSync, rmSync, writeFileSync, existsSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { op, type Operation } from '@engine/core/plan';
import { type DeviceRule } from './types.ts';
import { describe, expect, it } from 'vitest';
import { createNative } from '@engine/native';
import { createBench, fakeMachine } from '@engine/core/contracts/common/bench';
import { unable } from '../testing.ts';
import { BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI, BPF_PROG_TYPE_CGROUP_DEVICE, deviceFilter, simulateDeviceFilter, type DeviceAccess } from './devices.ts';

const deny: DeviceRule = { allow: false, access: 'rwm' };

/** What the list means, said in another way: for each access, the last rule that speaks of it. */
function meaning(rules: readonly DeviceRule[], { type, major, minor, access }: DeviceAccess): boolean {
  return access.split('').every((letter) => {
    let allowed = false;
    for (const rule of rules) {
      const all = (rule.type ?? 'a') === 'a';
      const any = (value: number | undefined, asked: number): boolean => value === undefined || value === -1 || value === asked;
      if (!all && (rule.type !== type || !any(rule.major, major) || !any(rule.minor, minor))) continue;
      if (all || (rule.access || 'rwm').includes(letter)) allowed = rule.allow;
    }
    return allowed;
  });
}

/** Lists and what must come of them: also what the kernel is asked. */
export const table: readonly { readonly name: string; readonly rules: readonly DeviceRule[]; readonly allowed: readonly string[]; readonly denied: readonly string[] }[] = [
  { name: 'what no rule speaks of is denied', rules: [{ allow: true, type: 'c', major: 1, minor: 3 }], allowed: ['c 1:3 rwm'], denied: ['c 1:5 r', 'b 1:3 r', 'c 2:3 m'] },
  { name: 'the last rule wins', rules: [deny, { allow: true, type: 'c', major: 1, minor: 3 }, { allow: false, type: 'c', major: 1, minor: 3 }], allowed: [], denied: ['c 1:3 r'] },
  { name: 'a deny of everything at the end leaves nothing', rules: [{ allow: true, type: 'c', major: 1 }, deny], allowed: [], denied: ['c 1:3 r'] },
  { name: 'allow of everything', rules: [deny, { allow: true }], allowed: ['c 1:3 rwm', 'b 8:0 rwm'], denied: [] },
  { name: 'wildcards of minor and of major', rules: [deny, { allow: true, type: 'c', major: 1 }, { allow: true, type: 'b', minor: 7, access: 'r' }], allowed: ['c 1:3 rw', 'c 1:9 m', 'b 8:7 r', 'b 9:7 r'], denied: ['c 5:1 r', 'b 8:7 w', 'b 8:6 r'] },
  { name: '-1 is a wildcard too', rules: [deny, { allow: true, type: 'c', major: -1, minor: -1, access: 'm' }], allowed: ['c 1:3 m'], denied: ['c 1:3 r', 'b 1:3 m'] },
  { name: 'partial access adds up', rules: [deny, { allow: true, type: 'c', major: 1, minor: 3, access: 'r' }, { allow: true, type: 'c', major: 1, minor: 3, access: 'w' }], allowed: ['c 1:3 rw', 'c 1:3 r', 'c 1:3 w'], denied: ['c 1:3 m', 'c 1:3 rwm'] },
  { name: 'partial access is taken away', rules: [deny, { allow: true, type: 'c', major: 1, minor: 3 }, { allow: false, type: 'c', major: 1, minor: 3, access: 'w' }], allowed: ['c 1:3 r', 'c 1:3 m'], denied: ['c 1:3 w', 'c 1:3 rw'] },
  { name: 'one exception in a wider allow', rules: [deny, { allow: true, type: 'c', major: 1 }, { allow: false, type: 'c', major: 1, minor: 5 }], allowed: ['c 1:3 rwm'], denied: ['c 1:5 r', 'c 1:5 w'] },
  { name: 'all but one', rules: [{ allow: true }, { allow: false, type: 'c', major: 1, minor: 5, access: 'w' }], allowed: ['c 1:5 r', 'c 1:3 rwm', 'b 8:0 rwm'], denied: ['c 1:5 w', 'c 1:5 rw'] },
  { name: 'an allow in the middle of denies', rules: [deny, { allow: true, type: 'c' }, { allow: false, type: 'c', major: 1 }, { allow: true, type: 'c', major: 1, minor: 3, access: 'r' }], allowed: ['c 1:3 r', 'c 5:1 rwm'], denied: ['c 1:3 w', 'c 1:5 r'] },
  { name: 'type a is everything, whatever its access', rules: [{ allow: true }, { allow: false, access: 'm' }], allowed: [], denied: ['c 1:3 r'] },
];
const asked = (text: string): DeviceAccess => {
  const [, type, major, minor, access] = /^([bc]) (\d+):(\d+) (\w+)$/.exec(text) ?? [];
  return { type: type as 'b', major: Number(major), minor: Number(minor), access: access ?? '' };
};

describe('the device filter', () => {
  for (const { name, rules, allowed, denied } of table) {
    it(name, () => {
      const program = deviceFilter(rules);
      expect(allowed.filter((text) => !simulateDeviceFilter(program, asked(text)))).toEqual([]);
      expect(denied.filter((text) => simulateDeviceFilter(program, asked(text)))).toEqual([]);
    });
  }
  it('means what the list means, for lists at random', () => {
    let seed = 42;
    const random = (n: number): number => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0, (seed >>> 8) % n);
    for (let round = 0; round < 300; round++) {
      const rules = Array.from({ length: random(8) }, (): DeviceRule => random(8) === 0 ? { allow: random(2) === 1, type: 'a' } : {
        allow: random(2) === 1, type: random(2) ? 'c' : 'b', ...(random(3) ? { major: random(3) } : {}), ...(random(3) ? { minor: random(3) } : {}), access: ['r', 'w', 'm', 'rw', 'rm', 'wm', 'rwm', ''][random(8)] ?? '',
      });
      const program = deviceFilter(rules);
      for (let look = 0; look < 40; look++) {
        const what: DeviceAccess = { type: random(2) ? 'c' : 'b', major: random(3), minor: random(3), access: ['r', 'w', 'm', 'rw', 'rwm'][random(5)] ?? 'r' };
        expect({ rules, what, allowed: simulateDeviceFilter(program, what) }).toEqual({ rules, what, allowed: meaning(rules, what) });
      }
    }
  });
  it('answers a look without any access, and takes the largest numbers', () => {
    expect(simulateDeviceFilter(deviceFilter([deny]), { type: 'c', major: 1, minor: 3, access: '' })).toBe(true);
    const program = deviceFilter([deny, { allow: true, type: 'c', major: 4095, minor: 0xfffff }]);
    expect(simulateDeviceFilter(program, { type: 'c', major: 4095, minor: 0xfffff, access: 'r' })).toBe(true);
  });
  it('refuses rules that say nothing', () => {
    for (const rule of [{ allow: true, access: 'x' }, { allow: true, type: 'p' }, { allow: true, type: 'a', major: 1 }, { allow: true, type: 'c', major: -2 }, { allow: true, type: 'c', minor: 1.5 }] as DeviceRule[]) {
      expect(() => deviceFilter([rule])).toThrow(/device rule/);
    }
  });
});

/** A cgroup2 mount: alone, or the unified part of a hybrid machine. */
const hierarchy = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'].find((path) => existsSync(join(path, 'cgroup.procs')) && existsSync(join(path, 'cgroup.subtree_control')));

describe.skipIf(unable ?? (hierarchy ? undefined : 'no cgroup2 hierarchy'))('the kernel', () => {
  it('takes every list of the table, and answers in the same way', { timeout: 60_000 }, async () => {
    const bench = await createBench({ native: createNative(), level: 2, machine: fakeMachine });
    const group = join(hierarchy ?? '', `engine-test-devices-${process.pid}`);
    const folder = mkdtempSync(join(tmpdir(), 'engine-devices-'));
    try {
      for (const { name, rules, allowed, denied } of table) {
        mkdirSync(group);
        const operations: Operation[] = [
          op.bpfProgram({ type: BPF_PROG_TYPE_CGROUP_DEVICE, attachType: BPF_CGROUP_DEVICE, instructions: deviceFilter(rules), out: 'program' }),
          op.open({ path: group, flags: 0o2200000, out: 'group' }),
          op.bpfAttach({ cgroup: 'group', program: 'program', type: BPF_CGROUP_DEVICE, flags: BPF_F_ALLOW_MULTI }),
        ];
        await bench.operations(operations);
        const script = join(folder, 'ask');
        // nodes are made by the shell outside, opened by one inside: `m` is not asked of these
        const asks = [...allowed.map((text) => [text, true] as const), ...denied.map((text) => [text, false] as const)].filter(([text]) => /^c (1:[359]|5:1) [rw]$/.test(text));
        const node = (text: string): string => join(folder, text.replace(/[: ]/g, '-').slice(0, -2));
        for (const [text] of asks) if (!existsSync(node(text))) execFileSync('mknod', [node(text), 'c', ...(text.split(' ')[1] ?? '').split(':')]);
        writeFileSync(script, ['echo $$ > "$1/cgroup.procs"', ...asks.map(([text], i) => `( exec 3${text.endsWith('r') ? '<' : '>'} ${node(text)} ) 2>> ${folder}/log; echo ${i} $? >> ${folder}/answers`)].join('\n'));
        writeFileSync(join(folder, 'answers'), '');
        execFileSync('sh', [script, group], { stdio: 'ignore' });
        const answers = readFileSync(join(folder, 'answers'), 'utf8').trim().split('\n').filter(Boolean);
        // 5:1 may be refused for want of a console, which is no refusal of the filter: only what is denied is asked of it
        for (const [i, [text, may]] of asks.entries()) if (may && text.includes('5:1')) answers[i] = `${i} 0`;
        expect({ name, answers }).toEqual({ name, answers: asks.map(([, may], i) => `${i} ${may ? 0 : answers[i]?.split(' ')[1] === '0' ? 'refused' : answers[i]?.split(' ')[1]}`) });
        rmdirSync(group);
      }
    } finally {
      if (existsSync(group)) rmdirSync(group);
      rmSync(folder, { recursive: true, force: true });
      await bench.close();
    }
  });
});
