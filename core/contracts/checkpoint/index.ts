import { type Driver } from '../common/index.ts';

/**
 * Writes the state of a container's processes to files, and brings them back.
 *
 * Model: a driver knows a program that does it and the language that this one speaks, and nothing else: it says what is to be started and, message by message, what to answer. The core starts the
 * program as a child of the container's caller, passes the messages on, and does what they ask for (hooks, terminals, the record of who runs). A driver thus never acts, and is tested without root.
 *
 * Example (criu): `begin` asks for the version; what `hear` makes of the answer is the request proper; each notification becomes an {@link Occasion} with the reply that lets the program go on; the
 * last message is `done` or `failed`.
 */
export interface CheckpointDriver extends Driver {
  /** **as data** Write. Errors: ERR_NOT_SUPPORTED: the program is not there. */
  dump(request: DumpRequest): Conversation;
  /** **as data** Bring back. The errors of `dump`. */
  restore(request: RestoreRequest): Conversation;
}

/** `soft`: what is there stays as it is; `full`: also the properties of groups; `strict`: no group may exist yet; `ignore`: processes are in no group of theirs. */
export type GroupsMode = 'soft' | 'full' | 'strict' | 'ignore';

/** What a caller chooses, of both. */
export interface CheckpointOptions {
  /** With open TCP connections. */
  readonly tcpEstablished: boolean;
  /** With unix sockets whose other end is outside. */
  readonly externalSockets: boolean;
  /** With a session or a terminal that is outside. */
  readonly shellJob: boolean;
  readonly fileLocks: boolean;
  /** Pages of memory are brought when they are touched (userfaultfd). */
  readonly lazyPages: boolean;
  /** Pages that are stored again are freed in parent images. */
  readonly autoDedup: boolean;
  readonly groupsMode: GroupsMode;
  /** Net namespace: made, and left empty. */
  readonly emptyNetwork: boolean;
}
/** What a caller chooses, of a dump. */
export interface DumpOptions extends CheckpointOptions {
  readonly leaveRunning: boolean;
  /** Memory only, and let it go on; a dump with this one as `parent` stores the differences. */
  readonly preDump: boolean;
  /** Folder of an earlier image, relative to that of the images. */
  readonly parent?: string;
  /** Where the memory goes to instead of files. */
  readonly pageServer?: { readonly address: string; readonly port: number };
}
/** What a caller chooses, of a restore. */
export interface RestoreOptions extends CheckpointOptions {
  /** Another one of AppArmor or SELinux: `TYPE:NAME`. */
  readonly securityProfile?: string;
  /** Another SELinux context of mounts. */
  readonly mountContext?: string;
}
interface Place {
  /** Fds of this process, of folders: images, and log and statistics (default: with the images). */
  readonly images: number;
  readonly work?: number;
  /** Absolute path of the root file system on the host; of `restore`, a mount point. */
  readonly root: string;
  /** The container's own, which may have words for the program. */
  readonly annotations: Readonly<Record<string, string>>;
}
export interface DumpRequest extends DumpOptions, Place {
  /** Of the container's first process, on the host. */
  readonly pid: number;
  /** Mounts whose content is not the container's own: mount point inside → a name, which `restore` finds the content by. */
  readonly mounts: Readonly<Record<string, string>>;
  /** Namespaces that are somebody else's: kind (as in the OCI spec), inode and a name for `restore`. */
  readonly namespaces: readonly { readonly type: string; readonly inode: number; readonly name: string }[];
  /** Group that can be frozen, and has all processes. */
  readonly freezer?: string;
}
export interface RestoreRequest extends RestoreOptions, Place {
  /** By the names of the dump: what on the host is mounted there. More may be told than the images have. */
  readonly mounts: Readonly<Record<string, string>>;
  /** By the names of the dump: fds of the program. */
  readonly namespaces: readonly { readonly name: string; readonly fd: number }[];
  /** Namespaces that are joined instead of made: kind (as in the OCI spec) and a path. */
  readonly join: readonly { readonly type: string; readonly path: string }[];
  /** What stands for a file that the dump names so (`pipe:[123]`): fds of the program. */
  readonly streams: readonly { readonly name: string; readonly fd: number }[];
  /** Groups that its processes come into: controllers as /proc/PID/cgroup names them, '' on v2. */
  readonly groups: readonly { readonly controller: string; readonly path: string }[];
}

/** What to start, and how to speak with it. Of one use. */
export interface Conversation {
  /** Absolute path. */
  readonly program: string;
  /** The first one included. Its end of the socket is fd {@link PROGRAM_FDS.socket}. */
  readonly argv: readonly string[];
  /** File name of its log, in the folder `work` or `images`. */
  readonly log: string;
  begin(): Uint8Array;
  /** Throws when what came is no message. */
  hear(message: Uint8Array): Turn;
  /** Lines of its log that say why it failed, and what to do about it. */
  explain(log: string): { readonly reasons: readonly string[]; readonly hint?: string };
}
/** `socket`: the conversation; `first`: the first of those that are handed in besides. */
export const PROGRAM_FDS = { socket: 3, first: 4 } as const;

/** `reply` is what to say next; without one nothing is said. */
export type Turn = { readonly reply?: Uint8Array } & (
  | { readonly occasion: Occasion; readonly pid?: number }
  | { readonly done: true }
  /** Why, in words. */
  | { readonly failed: string }
);
/**
 * What goes on, waiting for the reply: `namespaces`: they are made, with `pid` in them, and nothing runs yet; `restored`: all is there, with `pid` its first process, and is about to go on;
 * `terminal`: the master of a terminal comes along that nobody has; `ready`: pages can be asked for; `other`: nothing of ours.
 */
export type Occasion = 'namespaces' | 'restored' | 'terminal' | 'ready' | 'other';
