import { type Process } from '@engine/core/spec';
import { fail } from '@engine/core/errors';

/** What flags of `exec` say, as text. */
export interface ExecFlags {
  readonly cwd?: string | undefined;
  readonly env: readonly string[];
  /** Undefined: as the container's own process, which `exec` of runc takes over. */
  readonly tty?: boolean | undefined;
  readonly user?: string | undefined;
  readonly additionalGids: readonly string[];
  readonly processLabel?: string | undefined;
  readonly apparmor?: string | undefined;
  readonly noNewPrivs?: boolean | undefined;
  readonly caps: readonly string[];
}

/** The largest id: the one above it means "none" to the kernel. */
const MAX_ID = 0xfffffffe;
const refuse = (flag: string, why: string): Error => fail('ERR_INVALID_VALUE', `--${flag}: ${why}`, { operation: 'exec', hint: '', exitCode: 1 });

function readId(flag: string, what: string, text: string): number {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(value <= MAX_ID)) throw refuse(flag, `parsing "${text}" as int for ${what} failed: it is no number between 0 and ${MAX_ID}`);
  return value;
}

/** The process of a session: the container's own, changed by the flags, as runc builds it. Errors: ERR_INVALID_VALUE. */
export function execProcess(own: Process, args: readonly string[], flags: ExecFlags): Process {
  // the terminal's size is of that one's caller, and who is asked to run is asked again
  const { consoleSize: _size, terminal: _terminal, args: _args, ...rest } = own;
  const process: Process = { ...rest, args: [...args], terminal: flags.tty ?? false };
  for (const one of flags.env) if (one.startsWith('=') || !one.includes('=')) throw refuse('env', `${JSON.stringify(one)} is not of the form name=value`);
  if (flags.env.length > 0) process.env = [...(own.env ?? []), ...flags.env];
  if (flags.cwd) process.cwd = flags.cwd;
  if (flags.apparmor) process.apparmorProfile = flags.apparmor;
  if (flags.processLabel) process.selinuxLabel = flags.processLabel;
  if (flags.noNewPrivs !== undefined) process.noNewPrivileges = flags.noNewPrivs;
  if (flags.user) {
    const [uid = '', gid, ...more] = flags.user.split(':');
    if (more.length > 0) throw refuse('user', `"${flags.user}" is not of the form uid[:gid]`);
    const { username: _name, ...user } = own.user;
    process.user = { ...user, uid: readId('user', 'uid', uid), ...(gid !== undefined && { gid: readId('user', 'gid', gid) }) };
  }
  if (flags.additionalGids.length > 0) process.user = { ...process.user, additionalGids: [...(own.user.additionalGids ?? []), ...flags.additionalGids.map((text) => readId('additional-gids', 'gid', text))] };
  if (flags.caps.length > 0) {
    const { bounding = [], effective = [], permitted = [], ...other } = own.capabilities ?? {};
    const added = (list: readonly string[]): string[] => [...new Set([...list, ...flags.caps])];
    // ambient ones must be inheritable, which none is (CVE-2022-29162); runc drops them here too
    process.capabilities = { ...other, bounding: added(bounding), effective: added(effective), permitted: added(permitted), ...(other.ambient && { ambient: added(other.ambient) }) };
  }
  return process;
}
