import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { encodePlan, op, operations, type OperationEntry } from '@engine/core/plan';
import { build, canRun, encode, inFolder, origin, runBytes } from './harness.ts';

const E = constants.errno;
const sample: Record<string, unknown> = { u32: 7, i32: -7, u64: 2n ** 63n, i64: -(2n ** 40n), str: 'text', bytes: Buffer.from([1, 0, 2]), strs: ['a', '', 'bcd'], reg: 'fd3', out: 'own.result' };
/** One of every operation, in a part that the tests do not run. */
const everything = (): Uint8Array => encodePlan({
  steps: Object.entries(operations as Record<string, OperationEntry>).map(([name, entry]) => ({
    slot: 'exec.join', undo: [], origin, operation: { name: name as 'mkdir', args: Object.fromEntries(Object.entries(entry.fields).map(([field, type]) => [field, sample[type.replace('?', '')]])) },
  })),
});

describe.skipIf(!canRun)('plans in C', () => {
  const refused = (change: (bytes: Buffer) => void, cut = 0): readonly [number | undefined, string | undefined] => {
    const bytes = Buffer.from(encode([['helper.main', op.mkdir({ path: '/nowhere/at/all', mode: 0 })], ['helper.main', op.syncFs({ path: '/' })]]));
    change(bytes);
    const result = runBytes('helper', bytes.subarray(0, bytes.length - cut));
    return [result.refused, result.detail];
  };
  const part = 24 + 5 * 8; // the helper part's entry in the header

  it('reads every operation that TypeScript writes', { timeout: 120_000 }, () => {
    build('interpret');
    expect(runBytes('helper', everything())).toMatchObject({ result: 0, failures: [] });
  });

  it.each<[string, (bytes: Buffer) => void, number, string]>([
    ['another magic', (b) => b.writeUInt32LE(1, 0), E.ENOEXEC ?? 8, 'not a plan'],
    ['a newer format', (b) => b.writeUInt32LE(2, 4), E.EPROTONOSUPPORT, 'plan of a newer format'],
    ['a wrong length', (b) => b.writeUInt32LE(b.length + 4, 8), E.EBADMSG, 'plan of a wrong length'],
    ['a tail outside', (b) => b.writeUInt32LE(0xfffffffc, 16), E.EBADMSG, 'plan with a wrong tail'],
    ['too many registers', (b) => b.writeUInt32LE(1000, 20), E.EBADMSG, 'plan with too many registers'],
    ['a part outside', (b) => b.writeUInt32LE(0xfffffff0, part), E.EBADMSG, 'operation out of bounds'],
    ['a part in the header', (b) => b.writeUInt32LE(4, part), E.EBADMSG, 'part with a wrong offset'],
    ['an unaligned part', (b) => b.writeUInt32LE(b.readUInt32LE(part) + 2, part), E.EBADMSG, 'operation out of bounds'],
    ['more operations than there are', (b) => b.writeUInt32LE(0xffffff, part + 4), E.EBADMSG, 'operation'],
    ['fewer operations than it says', (b) => b.writeUInt32LE(1, part + 4), E.EBADMSG, 'plan with a wrong operation count'],
    ['an unknown operation', (b) => b.writeUInt16LE(999, b.readUInt32LE(part)), E.EPROTONOSUPPORT, 'unknown operation'],
    ['an operation of another part', (b) => b.writeUInt16LE(0, b.readUInt32LE(part) + 4), E.EBADMSG, 'operation in a wrong part'],
    ['an operation too long', (b) => b.writeUInt32LE(0x7ffffffc, b.readUInt32LE(part) + 8), E.EBADMSG, 'operation out of bounds'],
    ['an operation of length 0', (b) => b.writeUInt32LE(0, b.readUInt32LE(part) + 8), E.EBADMSG, 'operation out of bounds'],
    ['a text that runs over', (b) => b.writeUInt32LE(0xffffffff, b.readUInt32LE(part) + 20), E.EBADMSG, 'operation with damaged fields'],
    ['a text without its end', (b) => b.writeUInt8(65, b.readUInt32LE(part) + 24 + 15), E.EBADMSG, 'operation with damaged fields'],
    ['a register out of range', (b) => b.writeUInt32LE(5000, b.readUInt32LE(part) + 16), E.EBADMSG, 'operation with damaged fields'],
  ])('refuses %s', (_, change, errno, why) => {
    const [code, detail] = refused(change);
    expect(detail).toContain(why);
    expect(code).toBe(errno);
  });

  it('refuses a truncated plan and an empty file', () => {
    expect(refused(() => undefined, 4)[1]).toBe('plan of a wrong length');
    expect(runBytes('helper', new Uint8Array(0)).detail).toBe('not a plan');
  });

  it('an undefined register is an error of its operation, an undo by it too', () => {
    expect(runBytes('helper', encode([['helper.main', op.writeFd({ fd: 'none', data: Buffer.from('x') })]])).failures).toMatchObject([{ errno: E.EBADF, detail: 'register 8 holds no file descriptor' }]);
    expect(runBytes('helper', encode([['helper.main', op.reach({ point: 1 })]])).failures).toMatchObject([{ errno: E.ENOTSUP }]);
  });

  const sanitizers = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all'];
  const canSanitize = canRun && spawnSync('gcc', ['-fsanitize=address', '-x', 'c', '-', '-o', '/dev/null'], { input: 'int main(void){return 0;}' }).status === 0;
  it.skipIf(!canSanitize)('the parsers of plans, passwd, group and entries withstand mutations', { timeout: 120_000 }, () => inFolder((f) => {
    const fuzz = build('fuzz', sanitizers);
    writeFileSync(join(f, 'plan'), everything());
    const seed = String(Date.now() % 1_000_000);
    const out = execFileSync(fuzz, [seed, '40000', join(f, 'plan')], { encoding: 'utf8' });
    expect(out, `seed ${seed}`).toMatch(/40000 rounds, [1-9]\d* operations read/);
  }));
});
