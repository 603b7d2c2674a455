import { fail } from '@engine/core/errors';
import { type DeviceRule } from './types.ts';

/** include/uapi/linux/bpf.h */
export const BPF_PROG_TYPE_CGROUP_DEVICE = 15;
export const BPF_CGROUP_DEVICE = 6;
/** Programs of a group and of all its ancestors run, and all must agree: what is nested can only narrow. */
export const BPF_F_ALLOW_MULTI = 2;

const TYPE = { b: 1, c: 2 } as const;
const ACCESS = { m: 1, r: 2, w: 4 } as const;
const ALL = 7;

/** A rule as the program sees it; undefined: any. */
interface Match { readonly allow: boolean; readonly type: number | undefined; readonly major: number | undefined; readonly minor: number | undefined; readonly access: number }

function matchOf(rule: DeviceRule): Match {
  const access = rule.access || 'rwm';
  if (!/^[rwm]{1,3}$/.test(access)) throw fail('ERR_INVALID_VALUE', `device rule: access ${JSON.stringify(access)} is not made of r, w and m`, { path: 'devices' });
  const type = rule.type ?? 'a';
  if (type !== 'a' && type !== 'b' && type !== 'c') throw fail('ERR_INVALID_VALUE', `device rule: type ${JSON.stringify(type)} is not a, b or c`, { path: 'devices' });
  const number = (value: number | undefined): number | undefined => {
    if (value === undefined || value === -1) return undefined;
    if (!Number.isSafeInteger(value) || value < 0 || value > 0xffffffff) throw fail('ERR_INVALID_VALUE', `device rule: ${value} is not a device number`, { path: 'devices' });
    return value;
  };
  const major = number(rule.major);
  if (type === 'a' && major !== undefined) throw fail('ERR_INVALID_VALUE', 'device rule: type a is for all devices', { path: 'devices' });
  // as the kernel's devices.allow: `a` is everything at once, whatever follows
  if (type === 'a') return { allow: rule.allow, type: undefined, major: undefined, minor: undefined, access: ALL };
  return { allow: rule.allow, type: TYPE[type], major, minor: number(rule.minor), access: access.split('').reduce((bits, letter) => bits | ACCESS[letter as 'r' | 'w' | 'm'], 0) };
}

/** One struct bpf_insn. */
interface Instruction { readonly code: number; readonly dst?: number; readonly src?: number; readonly off?: number; readonly imm?: number }

const MOV = (dst: number, imm: number): Instruction => ({ code: 0xb7, dst, imm }); // BPF_ALU64|BPF_MOV|BPF_K
const MOVX = (dst: number, src: number): Instruction => ({ code: 0xbf, dst, src }); // BPF_ALU64|BPF_MOV|BPF_X
const AND = (dst: number, imm: number): Instruction => ({ code: 0x54, dst, imm }); // BPF_ALU|BPF_AND|BPF_K
const RSH = (dst: number, imm: number): Instruction => ({ code: 0x74, dst, imm }); // BPF_ALU|BPF_RSH|BPF_K
const LOAD = (dst: number, off: number): Instruction => ({ code: 0x61, dst, src: 1, off }); // BPF_LDX|BPF_MEM|BPF_W
const JNE = (dst: number, imm: number, off: number): Instruction => ({ code: 0x56, dst, imm, off }); // BPF_JMP32|BPF_JNE|BPF_K (Linux 5.1)
const JSET = (dst: number, imm: number, off: number): Instruction => ({ code: 0x46, dst, imm, off }); // BPF_JMP32|BPF_JSET|BPF_K
const EXIT: Instruction = { code: 0x95 };
const answer = (allowed: 0 | 1): readonly Instruction[] => [MOV(0, allowed), EXIT];

/** r2: accesses not decided yet, r3: type, r4: major, r5: minor */
function instructionsOf({ allow, type, major, minor, access }: Match): readonly Instruction[] {
  const decide = access === ALL
    ? answer(allow ? 1 : 0)
    : allow
      ? [AND(2, ~access & ALL), JNE(2, 0, 2), ...answer(1)]
      : [JSET(2, access, 1), { code: 0x05, off: 2 }, ...answer(0)];
  const checks: ((off: number) => Instruction)[] = [];
  if (type !== undefined) checks.push((off) => JNE(3, type, off));
  if (major !== undefined) checks.push((off) => JNE(4, major, off));
  if (minor !== undefined) checks.push((off) => JNE(5, minor, off));
  return [...checks.map((check, i) => check(decide.length + checks.length - 1 - i)), ...decide];
}

function encode(instructions: readonly Instruction[]): Buffer {
  const bytes = Buffer.alloc(instructions.length * 8);
  instructions.forEach(({ code, dst = 0, src = 0, off = 0, imm = 0 }, i) => {
    bytes.writeUInt8(code, i * 8);
    bytes.writeUInt8(dst | (src << 4), i * 8 + 1);
    bytes.writeInt16LE(off, i * 8 + 2);
    bytes.writeInt32LE(imm | 0, i * 8 + 4);
  });
  return bytes;
}

/**
 * The program of BPF_PROG_TYPE_CGROUP_DEVICE for an OCI device list: for each of read, write and mknod that a process asks for, the last
 * rule that says something about that device and that access wins; what no rule speaks of is denied. Errors: ERR_INVALID_VALUE.
 */
export function deviceFilter(rules: readonly DeviceRule[]): Buffer {
  const program: Instruction[] = [
    // struct bpf_cgroup_dev_ctx: access_type (access << 16 | type), major, minor
    LOAD(2, 0), MOVX(3, 2), AND(3, 0xffff), RSH(2, 16), LOAD(4, 4), LOAD(5, 8),
    // a look without any access (access(2) with F_OK)
    JNE(2, 0, 2), ...answer(1),
  ];
  // from the last to the first: who speaks first decides
  const seen = new Set<string>();
  for (const match of rules.map(matchOf).reverse()) {
    const { type, major, minor, access } = match;
    const key = `${type} ${major} ${minor} ${access}`;
    if (seen.has(key)) continue; // a later rule has said all of it
    seen.add(key);
    program.push(...instructionsOf(match));
    // nothing comes to what is behind (the verifier refuses instructions that are never reached)
    if (type === undefined && access === ALL) return encode(program);
    if (program.length > 500_000) throw fail('ERR_INVALID_VALUE', `${rules.length} device rules are too many`, { path: 'devices' });
  }
  program.push(...answer(0));
  return encode(program);
}

/** What a process asks for; `access` of the letters r, w, m. */
export interface DeviceAccess { readonly type: 'b' | 'c'; readonly major: number; readonly minor: number; readonly access: string }

/** Runs a program of {@link deviceFilter} as the kernel would: for tests, and for `--explain`. */
export function simulateDeviceFilter(program: Buffer, asked: DeviceAccess): boolean {
  const bits = asked.access.split('').reduce((sum, letter) => sum | (ACCESS[letter as 'r'] ?? 0), 0);
  const context = [(bits << 16) | TYPE[asked.type], asked.major, asked.minor];
  const r = Array.from({ length: 11 }, () => 0);
  for (let pc = 0, steps = 0; pc < program.length / 8; pc++) {
    if (++steps > 1_000_000) break;
    const at = pc * 8;
    const code = program.readUInt8(at);
    const [dst, src, off, imm] = [program.readUInt8(at + 1) & 15, program.readUInt8(at + 1) >> 4, program.readInt16LE(at + 2), program.readInt32LE(at + 4)];
    const value = r[dst] ?? 0;
    switch (code) {
      case 0x61: r[dst] = (context[off / 4] ?? 0) >>> 0; break;
      case 0xb7: r[dst] = imm; break;
      case 0xbf: r[dst] = r[src] ?? 0; break;
      case 0x54: r[dst] = (value & imm) >>> 0; break;
      case 0x74: r[dst] = value >>> imm; break;
      case 0x05: pc += off; break;
      case 0x56: if (value >>> 0 !== imm >>> 0) pc += off; break;
      case 0x46: if (value & imm) pc += off; break;
      case 0x95: return r[0] === 1;
      default: throw fail('ERR_INTERNAL', `instruction ${code.toString(16)} at ${pc}`);
    }
  }
  throw fail('ERR_INTERNAL', 'the program does not end');
}
