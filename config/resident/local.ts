import { statSync } from 'node:fs';
import { FRONTEND, LAUNCH_VERSION } from '@engine/native/launch';
import { type LaunchRequest } from '@engine/native/launch-request';

/** What LaunchRequest.world says of this process. */
export function ownWorld(): string {
  const inode = (path: string): string => String(statSync(path, { bigint: true }).ino);
  const root = statSync('/', { bigint: true });
  return [...['mnt', 'net', 'user', 'pid', 'cgroup'].map((name) => inode(`/proc/self/ns/${name}`)), root.dev, root.ino].join(' ');
}

interface Facts {
  readonly request: LaunchRequest;
  readonly version: number;
  readonly uid: number;
  readonly ownHome: string | undefined;
  /** Ours. */
  readonly ownUid: number;
  readonly ownWorld: string;
  /** Without the global flags; undefined when they can't be read. */
  readonly words: readonly string[] | undefined;
}
interface Rule {
  readonly why: string;
  /** Only of commands of this one. */
  readonly frontend?: number;
  applies(facts: Facts): boolean;
}

/** A path that means something else in every process. */
const ownPath = /(^|[=:,])\/(dev\/(fd|stdin|stdout|stderr|tty)|proc\/(self|thread-self))(\/|:|,|$)/;
const first = ({ words }: Facts): string => words?.[0] ?? '';

/** What the caller's own process does by itself, and why: docs/resident.md shows this table. */
export const rules: readonly Rule[] = [
  { why: 'the launcher is of another version', applies: ({ version }) => version !== LAUNCH_VERSION },
  { why: 'the launcher belongs to another installation', applies: ({ request, ownHome }) => request.home !== '' && ownHome !== undefined && request.home !== ownHome },
  { why: 'the caller is another user', applies: ({ uid, ownUid }) => uid !== ownUid },
  { why: 'the caller lives in other namespaces or under another root', applies: ({ request, ownWorld: own }) => request.world !== own },
  { why: 'it says --no-daemon', frontend: FRONTEND.cli, applies: ({ words, request }) => words === undefined && request.argv.includes('--no-daemon') },
  { why: 'it runs code of a plugin to try it', frontend: FRONTEND.cli, applies: (facts) => first(facts) === 'plugin' },
  { why: "it reads and writes the caller's own configuration", frontend: FRONTEND.cli, applies: (facts) => ['config', 'trust'].includes(first(facts)) },
  { why: 'it is about this process itself', frontend: FRONTEND.cli, applies: (facts) => first(facts) === 'engined' && !facts.words?.includes('--wake') },
  { why: "it names a file of the caller's own process", frontend: FRONTEND.cli, applies: ({ request }) => ownPath.test(request.cwd) || request.argv.some((word) => ownPath.test(word)) },
];

/** Why the caller is to do it in a process of its own; undefined: it is served here. */
export const whyLocal = (facts: Facts): string | undefined => rules.find(({ frontend, applies }) => (frontend ?? facts.request.frontend) === facts.request.frontend && applies(facts))?.why;
