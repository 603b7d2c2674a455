import { spawnSync } from 'node:child_process';
import { cpus, release, totalmem } from 'node:os';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The roots of all cgroup hierarchies. */
export function cgroupFolders(): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter((line) => / - cgroup2? /.test(line)).map((line) => line.split(' ')[4] ?? '').filter((path) => path.startsWith('/sys/fs/cgroup'));
}

/**
 * crun and podman refuse a hybrid tree with a controller on v2: hugetlb is mounted on v1 somewhere of ours, in our mount namespace, for as long as we run.
 */
export function withoutUnifiedControllers(folder: string): void {
  if (isV1('hugetlb')) return; // there is nothing to refuse, and what is in it is others'
  const at = join(folder, 'hugetlb');
  mkdirSync(at, { recursive: true });
  spawnSync('mount', ['-t', 'cgroup', '-o', 'hugetlb', 'cgroup', at]);
}

const isV1 = (controller: string): boolean => new RegExp(`^[1-9]\\d*:(.*,)?${controller}[,:]`, 'm').test(readFileSync('/proc/self/cgroup', 'latin1'));
/** Who has left groups in it keeps the hierarchy, and then nobody has hugetlb on v2 until the machine is switched off: containerd tells no numbers of any container meanwhile. */
export async function withUnifiedControllers(folder: string): Promise<void> {
  const at = join(folder, 'hugetlb');
  if (!existsSync(at)) return;
  // what a group was is there a moment longer than the group
  for (let round = 0; round < 40; round++) {
    for (const { parentPath, name } of readdirSync(at, { withFileTypes: true, recursive: true }).filter((entry) => entry.isDirectory()).reverse()) spawnSync('rmdir', [join(parentPath, name)], { stdio: 'ignore' });
    spawnSync('umount', ['-l', at], { stdio: 'ignore' });
    await new Promise((resolve) => setTimeout(resolve, 50));
    if (!isV1('hugetlb')) return;
    spawnSync('mount', ['-t', 'cgroup', '-o', 'hugetlb', 'cgroup', at]);
  }
  spawnSync('umount', ['-l', at], { stdio: 'ignore' });
}

const value = (path: string, key: string): number => {
  try {
    return Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(readFileSync(path, 'utf8'))?.[1] ?? NaN);
  } catch {
    return NaN;
  }
};
/** KB; NaN when there is no such process. */
export const rss = (pid: number): number => value(`/proc/${pid}/status`, 'VmRSS');
export const pss = (pid: number): number => value(`/proc/${pid}/smaps_rollup`, 'Pss');
export const parentOf = (pid: number): number => value(`/proc/${pid}/status`, 'PPid');

export function describeMachine(): string {
  const model = /^model name\s*:\s*(.+)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
  return `${cpus().length} cores${model ? ` (${model.trim()})` : ''}, ${Math.round(totalmem() / (1 << 30))} GB, Linux ${release().split('-')[0]}`;
}

/** Name and pid of all whose command line speaks of `text`. */
export function processesOf(text: string): (readonly [string, number])[] {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).flatMap((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(text) ? [[readFileSync(`/proc/${pid}/comm`, 'utf8').trim(), Number(pid)] as const] : [];
    } catch {
      return []; // it has ended in the meantime
    }
  });
}
