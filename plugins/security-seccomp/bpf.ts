/** Classic BPF as seccomp runs it: struct sock_filter {u16 code; u8 jt; u8 jf; u32 k}. */
const LD_ABS = 0x20;
const JEQ = 0x15;
const JGT = 0x25;
const JGE = 0x35;
const JA = 0x05;
const RET = 0x06;
/** Offsets in struct seccomp_data. */
const NUMBER = 0;
const ARCH = 4;
const ENOSYS_ACTION = 0x00050026;
const X86_64 = 0xc000003e;
const AARCH64 = 0xc00000b7;
const X32_BIT = 0x40000000;
/** Where an architecture has no calls: between its own last one and the common numbers from 424 on. */
const gaps: Readonly<Record<number, readonly [from: number, to: number]>> = { [X86_64]: [337, 423], [AARCH64]: [295, 402] };

interface Instruction { readonly code: number; readonly jt: number; readonly jf: number; readonly k: number; readonly toMain?: true }
export interface NewCall { readonly number: number; readonly action: number }
export interface Prologue {
  /** Architectures with the highest number that the profile knows of each (undefined: no ENOSYS), and numbers that give ENOSYS whatever libseccomp wrote. */
  readonly architectures: readonly { readonly token: number; readonly highest: number | undefined; readonly hidden?: readonly number[] }[];
  /** Calls that libseccomp doesn't know, each with what the filter returns for it. */
  readonly fresh: readonly NewCall[];
}

const at = (code: number, k: number, jt = 0, jf = 0): Instruction => ({ code, jt, jf, k });
/** An unconditional jump to the main program; conditional ones reach 255 instructions only. */
const main: Instruction = { code: JA, jt: 0, jf: 0, k: 0, toMain: true };

function encode(instructions: readonly Instruction[]): Uint8Array {
  const bytes = Buffer.alloc(instructions.length * 8);
  instructions.forEach(({ code, jt, jf, k, toMain }, i) => {
    bytes.writeUInt16LE(code, i * 8);
    bytes.writeUInt8(jt, i * 8 + 2);
    bytes.writeUInt8(jf, i * 8 + 3);
    bytes.writeUInt32LE(toMain ? instructions.length - i - 1 : k, i * 8 + 4);
  });
  return bytes;
}

function body(token: number, highest: number | undefined, hidden: readonly number[], fresh: readonly NewCall[]): Instruction[] {
  const gap = highest === undefined ? undefined : gaps[token];
  const lowest = Math.min(...fresh.map(({ number }) => number), highest === undefined ? 0xffffffff : highest + 1);
  return [
    at(LD_ABS, NUMBER),
    // x32 calls carry a bit; they are the main program's business
    ...(token === X86_64 ? [at(JGE, X32_BIT, 0, 1), main] : []),
    ...hidden.flatMap((number) => [at(JEQ, number, 0, 1), at(RET, ENOSYS_ACTION)]),
    ...(gap ? [at(JGE, gap[0], 0, 2), at(JGT, gap[1], 1, 0), at(RET, ENOSYS_ACTION)] : []),
    // nearly every call leaves here
    at(JGE, lowest, 1, 0), main,
    ...fresh.flatMap(({ number, action }) => [at(JEQ, number, 0, 1), at(RET, action)]),
    ...(highest === undefined ? [] : [at(JGT, highest, 0, 1), at(RET, ENOSYS_ACTION)]),
    main,
  ];
}

/**
 * Put before `program`: the actions of calls that libseccomp doesn't know, and ENOSYS for numbers above all known ones and in known gaps.
 * runc does the second in the same way (its patchbpf package).
 */
export function prependEnosys(program: Uint8Array, { architectures, fresh }: Prologue): Uint8Array {
  const blocks = architectures.filter(({ highest }) => highest !== undefined || fresh.length > 0);
  if (blocks.length === 0) return program;
  const prologue = [at(LD_ABS, ARCH), ...blocks.flatMap(({ token, highest, hidden = [] }) => {
    const instructions = body(token, highest, hidden, fresh);
    return [at(JEQ, token, 1, 0), at(JA, instructions.length), ...instructions];
  })];
  return Buffer.concat([encode(prologue), program]);
}
