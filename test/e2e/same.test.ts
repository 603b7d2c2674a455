/** The resident engine changes nothing but the time: every verb gives the same, to the byte, with it and without. */
import { execFileSync } from 'node:child_process';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { hostCommands } from '../../config/host-commands.ts';
import { enterNetns } from '../../native/ts/testing-netns.ts';
import { commandNames, commands, groups } from '../../plugins/frontend-cli/commands/index.ts';
import { makeBusyboxImage } from '../helpers/images.ts';
import { compare, Side, type Case, type Step } from '../helpers/pair.ts';
import { streams } from './same-streams.ts';
import { hostVerbs, verbs } from './same-verbs.ts';
import { worlds } from './same-worlds.ts';

let resident: Side;
let alone: Side;
let engined: number;
let back: () => void;
beforeAll(async () => {
  // networks that are made here are not the machine's
  back = enterNetns();
  execFileSync('ip', ['link', 'set', 'lo', 'up']);
  [resident, alone] = [new Side('auto'), new Side('off')];
  for (const side of [resident, alone]) await side.ok('load', '-q', '-i', makeBusyboxImage());
  engined = await resident.startEngined();
  await Promise.all([resident.tidy(), alone.tidy()]);
});
afterEach(() => Promise.all([resident.tidy(), alone.tidy()]));
afterAll(async () => {
  const served = resident.engined;
  expect(await Promise.all([resident.close(), alone.close()])).toEqual([[], []]);
  back();
  expect(served, 'one engined has served all').toBe(engined);
});

async function check(one: Case): Promise<void> {
  const result = await compare(resident, alone, one);
  expect(result.with).toEqual(result.without);
  for (const answer of result.with) expect(answer).toMatchObject({ by: 'as expected' });
}

it('every verb is tried', () => {
  expect(Object.keys(verbs).sort()).toEqual(commands.map(({ name }) => name).sort());
  expect(Object.keys(hostVerbs).sort()).toEqual(hostCommands({ flags: {} }).map(({ name }) => name).sort());
});

describe('help and the common errors of', () => {
  it.each(commandNames().map((name) => [name]))('%s', async (name) => {
    const words = name.split(' ');
    const { args: [least, most] } = commands.find((command) => command.name === name || command.aliases?.includes(name) || `container ${command.name}` === name) ?? { args: [0, 0] };
    // its words are those of the command without `container`
    if (words[0] === 'container') return check({ name, steps: [[...words, '--help'], [...words, '--nope']] });
    const steps: Step[] = [[...words, '--help'], ['help', ...words], [...words, '--nope'], [...words, '--', ...Array.from({ length: Math.max(least, 1) }, () => 'nope')]];
    if (least > 0) steps.push(words, [...words, ...Array.from({ length: least }, () => '')]);
    if (Number.isFinite(most)) steps.push([...words, ...Array.from({ length: most + 1 }, () => 'many')]);
    await check({ name, steps });
  });
  it.each([...[...groups].map((group) => [[group], [group, '--help'], [group, 'nope']]), [[], ['help'], ['--help'], ['-h'], ['help', 'nope'], ['nope'], ['--nope'], ['pull', 'x'], ['']]].map((steps) => [steps]))('%j', (steps) => check({ name: '', steps: steps as string[][] }));
});

describe.each([...Object.entries(verbs), ...Object.entries(hostVerbs)])('%s:', (_verb, cases) => {
  it.each(cases.map((one) => [one.name, one] as const))('%s', (_name, one) => check(one));
});
describe.each(Object.entries({ ...streams, ...worlds }))('%s:', (_what, cases) => {
  it.each(cases.map((one) => [one.name, one] as const))('%s', (_name, one) => check(one));
});
