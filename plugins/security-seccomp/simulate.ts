/** Runs a seccomp filter on one call, as the kernel does: for tests and for `permits` questions about a finished filter. */
export interface Call { readonly architecture: number; readonly number: number; readonly args?: readonly bigint[] }
/** Filled in: how many instructions ran. */
export interface Cost { steps: number }

/** The filter's return value (an action and its data). Errors: a program that the kernel would refuse. */
export function simulate(filter: Uint8Array, call: Call, cost: Cost = { steps: 0 }): number {
  const program = Buffer.from(filter.buffer, filter.byteOffset, filter.byteLength);
  const data = Buffer.alloc(64);
  data.writeInt32LE(call.number | 0, 0);
  data.writeUInt32LE(call.architecture >>> 0, 4);
  (call.args ?? []).forEach((value, i) => data.writeBigUInt64LE(BigInt.asUintN(64, value), 16 + i * 8));
  let a = 0;
  let x = 0;
  const memory = new Uint32Array(16);
  for (let pc = 0; pc * 8 < program.length; pc++) {
    cost.steps++;
    const code = program.readUInt16LE(pc * 8);
    const jt = program.readUInt8(pc * 8 + 2);
    const jf = program.readUInt8(pc * 8 + 3);
    const k = program.readUInt32LE(pc * 8 + 4);
    switch (code) {
      case 0x20: a = data.readUInt32LE(k); break;
      case 0x00: a = k; break;
      case 0x01: x = k; break;
      case 0x60: a = memory[k] ?? 0; break;
      case 0x61: x = memory[k] ?? 0; break;
      case 0x02: memory[k] = a; break;
      case 0x03: memory[k] = x; break;
      case 0x07: x = a; break;
      case 0x87: a = x; break;
      case 0x54: a = (a & k) >>> 0; break;
      case 0x15: pc += a === k ? jt : jf; break;
      case 0x25: pc += a > k ? jt : jf; break;
      case 0x35: pc += a >= k ? jt : jf; break;
      case 0x45: pc += (a & k) !== 0 ? jt : jf; break;
      case 0x05: pc += k; break;
      case 0x06: return k;
      default: throw new Error(`instruction ${pc}: unknown code 0x${code.toString(16)}`);
    }
  }
  throw new Error('the program ends without a return');
}
