/**
 * Who runs what, in which order. A part runs its slots from left to right; within a slot, hook order, then tap order; `after` (the undo)
 * runs in the reverse order of the operations it undoes.
 *
 * - `shim`: in the host's namespaces, before and around the birth of init.
 * - `stage`: a short-lived child between shim and init, present only when a user or time namespace needs it.
 * - `init`: the container's first process, inside its new namespaces; ends in `exec`.
 * - `after`: the undo, run by the shim after the exit status was reported, or by whoever finds the run's lock free.
 * - `exec`: a session inside a running container, run by a child of the shim.
 * - `helper`: the interpreter in a private mount namespace with no container: copy-up, unpack, every act of a driver.
 *
 * `seccomp-early` is for a filter without no-new-privs (loaded while CAP_SYS_ADMIN is held), `seccomp` for one with it (last of all).
 * `workdir` is entered as the final user, and before that last filter, which then need not permit its calls.
 */
export const slots = {
  shim: ['stdio', 'cgroup', 'limits', 'rootfs', 'links', 'namespaces', 'spawn', 'attach', 'started'],
  stage: ['cgroup', 'namespaces', 'maps', 'mounts'],
  init: ['cgroup', 'namespaces', 'rootfs', 'mounts', 'devices', 'netns', 'mask', 'terminal', 'pivot', 'hostname', 'keyring', 'limits', 'reaper', 'bounds', 'label', 'seccomp-early', 'identity', 'workdir', 'seccomp', 'exec'],
  after: ['undo'],
  exec: ['join', 'terminal', 'keyring', 'limits', 'bounds', 'label', 'seccomp-early', 'identity', 'workdir', 'seccomp', 'exec'],
  helper: ['prepare', 'main', 'finish'],
} as const;

export type Part = keyof typeof slots;
export type Slot = { [P in Part]: `${P}.${(typeof slots)[P][number]}` }[Part];
/** Slots whose operations outlive the container's namespaces, and so need an undo when they change something. */
export type HostSlot = Extract<Slot, `shim.${string}` | `helper.${string}`>;

export const parts = Object.keys(slots) as readonly Part[];

/** Position of every slot in the order of its part; also its number in the byte format. */
export const slotNumber = new Map<Slot, number>(
  parts.flatMap((part, p) => slots[part].map((name, i) => [`${part}.${name}` as Slot, p * 32 + i] as const)),
);
export const slotByNumber = new Map<number, Slot>([...slotNumber].map(([slot, n]) => [n, slot]));
