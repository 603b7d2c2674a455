import { type MachineMount } from './index.ts';

/** The lines of a mountinfo file (proc(5)), escapes undone. */
export function readMounts(mountinfo: string): MachineMount[] {
  return mountinfo
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const [head = '', tail = ''] = line.split(' - ', 2);
      const [id, parent, device = '', root = '', target = '', options = '', ...propagation] = head.split(' ');
      const [type = '', source = '', superOptions = ''] = tail.split(' ');
      return {
        id: Number(id),
        parent: Number(parent),
        device,
        root: unescape(root),
        target: unescape(target),
        options: options.split(','),
        propagation: propagation.filter(Boolean),
        type,
        source: unescape(source),
        superOptions: superOptions.split(','),
      };
    });
}
const unescape = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
