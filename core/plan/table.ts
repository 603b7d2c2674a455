/**
 * The one table of plan operations. The C header is generated from it (`native/src/gen`), the encoder, decoder and types derive from it.
 *
 * Rules (tested against the last release): a `code` is never reused and never changes its fields; a changed operation is a new
 * operation with a new code; fields are encoded in the order they stand here.
 *
 * Field types: `u32 i32 u64 i64` numbers (`u64`, `i64` are bigint in TypeScript); `str` text without NUL; `bytes`; `strs` a list of text;
 * `reg` a register that is read, `out` a register that is written. A trailing `?` makes a field optional (0, '', [], no register).
 *
 * `changes`: the operation leaves something outside the container's own namespaces and writable layer when it runs in the parts
 * `shim` or `helper`; there it needs an undo (a type error otherwise). In `stage` and `init` everything dies with the namespaces.
 *
 * Paths: with a `root` register (a directory fd) a path is resolved by `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`, so no link
 * leads out; without one it is an absolute host path, which only the engine's own folders and a user's own `-v` sources are.
 */
export const operations = {
  // -- files ---------------------------------------------------------------------------------------------------------------------
  mkdir: {
    code: 1, changes: true, fields: { root: 'reg?', path: 'str', mode: 'u32', uid: 'u32?', gid: 'u32?', parents: 'u32?' },
    doc: 'make a folder (mode exact, whatever the umask); `parents`: 1 = make missing parents too (0755, root) and accept an existing folder',
  },
  rmdir: { code: 2, changes: true, doc: 'remove an empty folder', fields: { root: 'reg?', path: 'str' } },
  writeFile: {
    code: 3, changes: true, fields: { root: 'reg?', path: 'str', data: 'bytes', mode: 'u32?', how: 'u32?', uid: 'u32?', gid: 'u32?' },
    doc: 'write a whole file. `how`: bits of WRITE (create, exclusive, truncate, append, atomic = temporary name + fsync + rename)',
  },
  writeFd: { code: 4, changes: false, doc: 'one write(2) of `data` to an open fd (cgroup `tasks`, opened before the pivot)', fields: { fd: 'reg', data: 'bytes' } },
  unlink: { code: 5, changes: true, doc: 'remove a file, link or node', fields: { root: 'reg?', path: 'str' } },
  removeTree: {
    code: 6, changes: true, fields: { root: 'reg?', path: 'str' },
    doc: 'remove a folder and all below it by fd, never crossing into another mount; a missing path is success; immutable flags are cleared first',
  },
  rename: { code: 7, changes: true, doc: 'renameat2; `flags`: RENAME_NOREPLACE 1, RENAME_EXCHANGE 2. With parents of `to` existing', fields: { from: 'str', to: 'str', flags: 'u32?' } },
  symlink: { code: 8, changes: true, doc: 'make a symbolic link', fields: { root: 'reg?', path: 'str', target: 'str', uid: 'u32?', gid: 'u32?' } },
  link: { code: 9, changes: true, doc: 'make a hard link `path` to `target`, both below the same root; `target` is not followed', fields: { root: 'reg?', path: 'str', target: 'str' } },
  mknod: {
    code: 10, changes: true, fields: { root: 'reg?', path: 'str', mode: 'u32', major: 'u32?', minor: 'u32?', uid: 'u32?', gid: 'u32?', bind: 'str?' },
    doc: 'make a node; `mode` with the S_IF bits; exact mode. Refused by the kernel (EPERM, user namespace) with `bind` set: an empty file with the host node `bind` bound over it',
  },
  setAttributes: {
    code: 11, changes: true, fields: { root: 'reg?', path: 'str', what: 'u32', mode: 'u32?', uid: 'u32?', gid: 'u32?', mtime: 'i64?' },
    doc: 'change attributes without following a last link; `what`: bits of ATTR; times in ns since the epoch',
  },
  setXattr: { code: 12, changes: true, doc: 'lsetxattr', fields: { root: 'reg?', path: 'str', name: 'str', value: 'bytes' } },
  copyTree: {
    code: 13, changes: true, fields: { fromRoot: 'reg?', from: 'str', toRoot: 'reg?', to: 'str', how: 'u32?' },
    doc: 'copy what is in folder `from` into folder `to` (both exist), with owners, modes, ns mtimes, xattrs, hardlinks, holes, nodes; reflinks where the filesystem can. `how`: bits of COPY',
  },
  open: {
    code: 14, changes: false, fields: { root: 'reg?', path: 'str', flags: 'u32', magic: 'u32?', out: 'out' },
    doc: 'openat2 into a register; `magic` (not 0): the filesystem must have this statfs type, else EXDEV',
  },
  close: { code: 15, changes: false, doc: 'close a register and clear it', fields: { fd: 'reg' } },
  ioctl: {
    code: 16, changes: true, fields: { fd: 'reg', request: 'u32', arg: 'bytes', patch: 'reg?', patchAt: 'u32?' },
    doc: 'ioctl(fd, request, arg). When `patch` is given, its number is stored as a little-endian i64 at byte `patchAt` of arg first',
  },
  unpack: {
    code: 17, changes: true, fields: { path: 'str', stream: 'reg', whiteouts: 'u32?', maxBytes: 'u64?', maxEntries: 'u32?' },
    doc: 'read a stream of entries (see entries.ts) from `stream` and create them below folder `path`; the first error stops. `whiteouts`: 0 remove what they name, 1 write overlay whiteouts (char 0:0, trusted.overlay.opaque)',
  },
  pack: {
    code: 18, changes: false, fields: { path: 'str', stream: 'reg', whiteouts: 'u32?' },
    doc: 'the reverse of unpack: write the tree below `path` as a stream of entries to `stream`; overlay whiteouts become whiteout entries when `whiteouts` is 1',
  },
  syncFs: { code: 19, changes: false, doc: 'syncfs of the filesystem that holds `path`', fields: { path: 'str' } },
  setFileFlags: { code: 20, changes: true, doc: 'FS_IOC_SETFLAGS: set and clear bits (e.g. FS_NOCOW_FL)', fields: { root: 'reg?', path: 'str', set: 'u32?', clear: 'u32?' } },

  writeStream: {
    code: 21, changes: true, fields: { path: 'str', stream: 'reg', offset: 'i64?', length: 'u64?', limit: 'u64?', mode: 'u32' },
    doc: 'copy `length` bytes (0 = up to the end, at most `limit`) from `stream` (from byte `offset` when it is not -1; copy_file_range or splice where possible) into a new file, fsync it; a short stream is EPIPE, a longer one EFBIG',
  },

  // -- mounts --------------------------------------------------------------------------------------------------------------------
  setPropagation: { code: 30, changes: true, doc: 'mount(NULL, path, MS_REC?|MS_PRIVATE/SLAVE/SHARED/UNBINDABLE)', fields: { root: 'reg?', path: 'str', flags: 'u32' } },
  mountFs: {
    code: 31, changes: false, fields: { type: 'str', source: 'str?', options: 'strs?', attributes: 'u32?', out: 'out' },
    doc: 'fsopen + fsconfig + fsmount: a detached mount in `out`. `options`: `key=value` or a bare flag; `attributes`: MOUNT_ATTR_*',
  },
  overlayByFd: {
    code: 32, changes: false, fields: { lowers: 'strs', upper: 'str?', work: 'str?', options: 'strs?', attributes: 'u32?', out: 'out' },
    doc: 'a detached overlay by fsconfig: `lowerdir+`, upperdir and workdir by fd (Linux 6.13) or path (6.8). `lowers` topmost first; without `upper` it is read-only',
  },
  overlayByMount: {
    code: 33, changes: false, fields: { base: 'str', scratch: 'str', lowers: 'strs', upper: 'str?', work: 'str?', options: 'strs?', attributes: 'u32?', out: 'out' },
    doc: 'the same for kernels before 6.8: chdir(base), mount(2) with `lowers` relative to base at the empty folder `scratch` of a private mount namespace, then open_tree(CLONE) and umount',
  },
  openTree: { code: 34, changes: false, doc: 'open_tree(OPEN_TREE_CLONE): a detached bind of `source` in `out`; `recursive` 1 = AT_RECURSIVE', fields: { root: 'reg?', source: 'str', recursive: 'u32?', out: 'out' } },
  setMountAttributes: {
    code: 35, changes: false, fields: { mount: 'reg', set: 'u32?', clear: 'u32?', propagation: 'u32?', recursive: 'u32?' },
    doc: 'mount_setattr on a detached or attached mount held in `mount`; `propagation`: MS_* or 0',
  },
  moveMount: {
    code: 36, changes: true, fields: { mount: 'reg', root: 'reg?', target: 'str', refuse: 'u32?' },
    doc: 'attach the mount in register `mount` at `target`, by fd. A missing target is created to fit (folder or empty file, 0755/0644). `refuse`: bits of REFUSE (symlink = the target itself must not be a link)',
  },
  unmount: { code: 37, changes: true, doc: 'umount2 of `path`, flags MNT_DETACH 2; not mounted is success', fields: { root: 'reg?', path: 'str', flags: 'u32?' } },
  reopenRoot: { code: 38, changes: false, doc: 'attach the mount in `mount` on the host folder `at` (inside this mount namespace) and write an O_PATH fd of it to `out`', fields: { mount: 'reg', at: 'str', out: 'out' } },
  pivotRoot: { code: 39, changes: false, doc: 'make the folder in `root` the root, detach the old one, chdir("/")', fields: { root: 'reg' } },
  mask: { code: 40, changes: false, doc: 'hide `path`: the real /dev/null (checked to be char 1:3) over a file, the read-only empty folder in `empty` over a folder; a missing path is success', fields: { root: 'reg', path: 'str', empty: 'reg' } },
  readonly: { code: 41, changes: false, doc: 'make `path` (and what is mounted below it) read-only by a bind of itself; a missing path is success', fields: { root: 'reg', path: 'str' } },
  procHandle: { code: 42, changes: false, doc: 'a private detached procfs of this pid namespace (fsopen), so that no path in the rootfs can stand in for it; in a session whose user namespace may mount none, the container\'s own by its root folder', fields: { out: 'out' } },
  sysctl: { code: 43, changes: false, doc: 'write sysctl `key` (dots or slashes) through the procfs in `proc`', fields: { proc: 'reg', key: 'str', value: 'str' } },
  idmapMount: { code: 45, changes: false, doc: 'mount_setattr(MOUNT_ATTR_IDMAP) of the detached mount in `mount` with the user namespace in `userns`: what lies there as the id that is root inside; `recursive` 1 = all below it too (Linux 5.12; per filesystem)', fields: { mount: 'reg', userns: 'reg', recursive: 'u32?' } },
  shiftTree: {
    code: 46, changes: true, fields: { root: 'reg?', path: 'str', uidMap: 'str', gidMap: 'str', back: 'u32?' },
    doc: 'give all in folder `path` to the ids that `uidMap` and `gidMap` (lines of uid_map: inside, outside, count) make of their owners, keeping set-id bits and file capabilities, never crossing into another mount; an id outside the maps is ERANGE. What has been given already stays, unless the two sides of the maps overlap. `back` 1: the other way round',
  },
  fileIds: { code: 47, changes: false, doc: 'setfsuid and setfsgid to the owner of what is in `like`, keeping capabilities; without it back to root. For an overlay on idmapped layers, which works in the name of who mounts it', fields: { like: 'reg?' } },
  copyUp: { code: 44, changes: true, doc: 'Docker\'s volume copy-up: when folder `to` is empty, copyTree of `from` (below `fromRoot`) into it, with owner and mode of `from` itself; a missing `from` is success', fields: { fromRoot: 'reg?', from: 'str', to: 'str' } },

  // -- namespaces and processes --------------------------------------------------------------------------------------------------
  stdio: {
    code: 50, changes: false, fields: { flags: 'u32', logDir: 'str?', maxSize: 'u64?', maxFiles: 'u32?', ring: 'u32?', rows: 'u32?', cols: 'u32?' },
    doc: 'how the container\'s standard streams are kept: bits of STDIO; `logDir`: a host folder for `container.log` (CRI format) or empty for no log; `maxSize` bytes per file, `maxFiles` files; `ring` bytes for mode=non-blocking (0 = blocking); rows/cols: first window size',
  },
  spawn: {
    code: 51, changes: false, fields: { flags: 'u64', pid: 'out', pidfd: 'out' },
    doc: 'clone3 init (or stage, when the plan has a stage part, which then clones init) with namespaces `flags` (CLONE_NEW*); pid in `pid`, pidfd in `pidfd`. Processes are killed by the undo of the cgroup and by the shim itself',
  },
  reach: { code: 52, changes: false, doc: 'in init: tell the shim that sync point `point` is reached and wait to be released', fields: { point: 'u32' } },
  awaitPoint: { code: 53, changes: false, doc: 'in shim: wait until init has reached `point`', fields: { point: 'u32' } },
  release: { code: 54, changes: false, doc: 'in shim: let init go on from `point`, handing over the operations a barrier has added', fields: { point: 'u32' } },
  barrier: {
    code: 55, changes: false, fields: { handler: 'str', input: 'bytes', deadline: 'u32' },
    doc: 'in shim: stop; the handler named `handler` runs in the engine with `input` (JSON) and the pid of init (before its birth: of the shim), and may add operations; `deadline` in ms, then abort and undo',
  },
  openNamespace: {
    code: 56, changes: false, fields: { pid: 'u32?', startTime: 'u64?', type: 'str', path: 'str?', out: 'out' },
    doc: 'open namespace `type` (net, ipc, …) of process `pid` whose start time (field 22 of stat) is `startTime`; ESRCH when it is another process. With `path` instead: that file (must be nsfs)',
  },
  joinNamespace: { code: 57, changes: false, doc: 'setns(fd, flags CLONE_NEW*)', fields: { fd: 'reg', flags: 'u32' } },
  unshare: { code: 58, changes: false, doc: 'unshare(flags)', fields: { flags: 'u64' } },
  writeIdMap: { code: 59, changes: false, doc: 'in stage: write uid_map (`kind` 0) or gid_map (1) of the process in `pid`', fields: { pid: 'reg', kind: 'u32', map: 'str' } },
  timeOffsets: { code: 60, changes: false, doc: 'in stage, after unshare(CLONE_NEWTIME): write /proc/self/timens_offsets', fields: { offsets: 'str' } },
  keepNamespaces: { code: 61, changes: false, doc: 'in shim: hold fds of init\'s mnt, net and ipc namespaces until the exit status has been reported, so that teardown comes after the answer', fields: { pid: 'reg' } },
  cloneInto: { code: 63, changes: false, doc: 'in shim: the first process is born inside the cgroup v2 folder held by `cgroup` (CLONE_INTO_CGROUP, Linux 5.7)', fields: { cgroup: 'reg' } },
  makeUserNamespace: { code: 64, changes: false, doc: 'a user namespace with these maps (lines of uid_map and gid_map) and no process in it, as an fd in `out`: for idmapMount', fields: { uidMap: 'str', gidMap: 'str', out: 'out' } },
  execHost: { code: 62, changes: true, doc: 'fork and exec a host program with a clean environment in the namespaces of this part; wait `deadline` ms; a non-zero exit fails with EREMOTEIO', fields: { argv: 'strs', env: 'strs?', stdin: 'bytes?', deadline: 'u32' } },

  // -- cgroups -------------------------------------------------------------------------------------------------------------------
  cgroupKill: { code: 70, changes: false, doc: 'kill every process in the cgroup folder `path` and below, through cgroup.kill or freeze/kill/thaw; wait until it is empty, `deadline` ms; missing is success', fields: { path: 'str', deadline: 'u32' } },
  cgroupRemove: { code: 71, changes: true, doc: 'rmdir a cgroup folder and those below it, retrying EBUSY for `deadline` ms; missing is success', fields: { path: 'str', deadline: 'u32' } },
  memoryEvents: { code: 72, changes: false, doc: 'in after: read the OOM counters of cgroup v1/v2 folder `path` into the exit record before it is removed', fields: { path: 'str', version: 'u32' } },
  bpfProgram: {
    code: 73, changes: false, fields: { type: 'u32', attachType: 'u32?', instructions: 'bytes', license: 'str?', out: 'out' },
    doc: 'bpf(BPF_PROG_LOAD): `instructions` are struct bpf_insn; what the verifier says of a refused program is in the error',
  },
  bpfAttach: { code: 74, changes: true, doc: 'bpf(BPF_PROG_ATTACH) of `program` to the cgroup folder held by `cgroup`; `type`: BPF_CGROUP_*, `flags`: BPF_F_*', fields: { cgroup: 'reg', program: 'reg', type: 'u32', flags: 'u32?' } },
  cgroupFreeze: {
    code: 75, changes: true, fields: { path: 'str', frozen: 'u32', deadline: 'u32' },
    doc: 'freeze (1) or thaw (0) all in the cgroup folder `path` and below, by cgroup.freeze or freezer.state, and wait until it is so, `deadline` ms (then ETIMEDOUT, and it is thawed again)',
  },
  cgroupEvacuate: {
    code: 76, changes: true, fields: { path: 'str', leaf: 'str', deadline: 'u32' },
    doc: 'move every process that is in the cgroup v2 folder `path` itself into folder `leaf` below it, made when it is missing: a group with processes cannot give controllers to groups below it. Repeated until it is empty, `deadline` ms',
  },
  enterGroup: {
    code: 77, changes: true, fields: { path: 'str' },
    doc: 'in shim: move itself into the cgroup v2 folder `path`, made when it is missing, for good; else it goes to the root group once the program runs, so that it does not end with the unit or session that the engine was started in',
  },

  // -- network -------------------------------------------------------------------------------------------------------------------
  netlink: {
    code: 80, changes: true, fields: { protocol: 'u32', messages: 'bytes', namespace: 'reg?' },
    doc: 'send `messages` (a batch, each NLM_F_ACK) on a netlink socket of `protocol` in the current or the given net namespace; the first error is returned with the text of its extended ACK',
  },
  linkIndex: { code: 83, changes: false, doc: 'the index of link `name` in the current or the given net namespace, as a number', fields: { name: 'str', namespace: 'reg?', out: 'out' } },
  netlinkWith: {
    code: 84, changes: true, fields: { protocol: 'u32', messages: 'bytes', namespace: 'reg?', patch: 'reg', patchAt: 'bytes' },
    doc: 'as netlink, after the number in `patch` (pid, link index; of an fd register its fd) was stored as a u32 at each offset of `messages` that `patchAt` lists (u32, little-endian)',
  },
  holdPort: {
    code: 85, changes: false, fields: { protocol: 'u32', address: 'bytes', port: 'u32', to: 'bytes?', toPort: 'u32?' },
    doc: 'in shim: bind `address` (4 or 16 bytes; IPv6 only) and `port` for the life of the shim, `protocol` 6 TCP, 17 UDP, 132 SCTP. With `to`: what reaches the socket itself is relayed to that address and port once init is attached. EADDRINUSE when it is taken',
  },
  forgetFlows: { code: 86, changes: false, doc: 'delete the connections that conntrack knows with original destination port `port` (and `address`, when given) and `protocol`; a kernel without conntrack is success', fields: { protocol: 'u32', address: 'bytes?', port: 'u32' } },
  setHostname: { code: 81, changes: false, doc: 'sethostname', fields: { name: 'str' } },
  setDomainname: { code: 82, changes: false, doc: 'setdomainname', fields: { name: 'str' } },

  // -- identity and exec -----------------------------------------------------------------------------------------------------------
  resolveUser: {
    code: 90, changes: false, fields: { root: 'reg', user: 'str', extra: 'strs?', uid: 'out', gid: 'out', groups: 'out' },
    doc: '`user[:group]` by /etc/passwd and /etc/group below `root`, names or numbers (0..2^32-2); home directory remembered for exec. `extra`: --group-add. Errors: EINVAL malformed, ENOENT no such user, ERANGE out of range',
  },
  ensureWorkdir: { code: 91, changes: false, doc: 'mkdir -p of the working directory inside `root` (0755, root); an existing file is ENOTDIR', fields: { root: 'reg', path: 'str' } },
  rlimit: { code: 92, changes: false, doc: 'prlimit on itself; with OPTIONAL a refused raise is a warning', fields: { resource: 'u32', soft: 'u64', hard: 'u64' } },
  processAttributes: {
    code: 93, changes: false, fields: { what: 'u32', umask: 'u32?', oomScoreAdj: 'i32?', proc: 'reg?', nice: 'i32?', ioPriority: 'u32?', schedPolicy: 'u32?', schedPriority: 'u32?', personality: 'u32?' },
    doc: 'umask, oom_score_adj (through `proc`), nice, I/O priority, scheduler, personality: bits of PROCESS in `what`',
  },
  sessionKeyring: { code: 94, changes: false, doc: 'join a new session keyring `name`; ENOSYS and EDQUOT are warnings', fields: { name: 'str' } },
  terminal: {
    code: 95, changes: false, fields: { devpts: 'reg', root: 'reg?', uid: 'reg?', console: 'u32?' },
    doc: 'in init and exec: open ptmx of the devpts in `devpts` (a folder fd), hand the master to the shim, slave by TIOCGPTPEER as stdio and controlling terminal, owned by `uid`; `console` 1 = bind the slave on /dev/console below `root`',
  },
  pipes: { code: 96, changes: false, doc: 'in init and exec: the shim\'s pipes become stdin, stdout and stderr, owned by `uid`', fields: { uid: 'reg?' } },
  capabilityBounds: { code: 97, changes: false, doc: 'drop every capability outside `bounding` from the bounding set; with `noPrivileges` 1, also set no-new-privs', fields: { bounding: 'u64' } },
  noNewPrivileges: { code: 98, changes: false, doc: 'prctl(PR_SET_NO_NEW_PRIVS)', fields: {} },
  seccomp: { code: 99, changes: false, doc: 'load a BPF filter (array of struct sock_filter) with SECCOMP_FILTER_FLAG_* `flags`', fields: { filter: 'bytes', flags: 'u32?' } },
  identity: {
    code: 100, changes: false, fields: { uid: 'reg', gid: 'reg', groups: 'reg', effective: 'u64', permitted: 'u64', inheritable: 'u64?', ambient: 'u64?', rootOnly: 'u32?' },
    doc: 'setgroups, setresgid, setresuid from registers, keeping capabilities over the change, then capset and ambient: sets as bit masks. `ambient`: of these what is permitted and inheritable too. `inheritable` must be 0 outside engine-oci (CVE-2022-29162). `rootOnly` 1: effective and permitted are empty unless the uid is 0 (a user by name is known only inside the rootfs)',
  },
  chdir: { code: 101, changes: false, doc: 'chdir, as the final user; then check that the cwd lies inside the root (CVE-2024-21626)', fields: { path: 'str' } },
  resolveExec: { code: 102, changes: false, doc: 'find argv[0] by PATH of `env`; ENOENT not found (127), EACCES not executable (126), ENOEXEC/EISDIR', fields: { name: 'str', env: 'strs', out: 'out' } },
  reaper: { code: 103, changes: false, doc: '--init: fork; pid 1 stays as a small init that forwards signals and reaps, the child goes on with the plan', fields: {} },
  closeFds: { code: 104, changes: false, doc: 'mark every fd from `from` up close-on-exec (close_range), keeping the engine\'s own until exec', fields: { from: 'u32' } },
  exec: { code: 105, changes: false, doc: 'execve the program in `program` (from resolveExec); HOME is added from the passwd entry when `env` lacks it; all signals reset and unblocked. Never returns', fields: { program: 'reg', argv: 'strs', env: 'strs' } },
  execArmor: { code: 106, changes: false, doc: 'write `exec LABEL` to attr/apparmor/exec of this thread through the procfs in `proc`', fields: { proc: 'reg', label: 'str' } },
  reaperArmor: { code: 109, changes: false, doc: 'pid 1 that the next `reaper` leaves behind changes to AppArmor profile `label`, which the program will have too: it never execs', fields: { proc: 'reg', label: 'str' } },
  becomeRoot: { code: 108, changes: false, doc: 'in init and exec: become uid and gid 0 of the user namespace, without other groups, keeping all capabilities: until then it still is the host\'s user, who has no id inside and can make no file', fields: {} },
  awaitStart: {
    code: 110, changes: false, fields: {},
    doc: 'in init, in a run that is handed over: tell the shim that all is ready, and wait for a byte in the fifo `go`; from then on what fails is said in `status`, which ends with the exec',
  },
  hook: {
    code: 111, changes: false, fields: { path: 'str', argv: 'strs', env: 'strs', timeout: 'u32', stateHead: 'str', stateTail: 'str', cwd: 'str?', pid: 'reg?' },
    doc: 'run a hook of the OCI spec and wait `timeout` ms (0: for ever; then it is killed with its group): the state on its stdin is `stateHead`, the pid in `pid` (without it: this process, as it sees itself), `stateTail`, which is empty when `stateHead` is all of it, pid included; nothing else of ours goes along. Non-zero: EREMOTEIO with the status and the end of what it wrote',
  },
  seccompNotify: {
    code: 112, changes: false, fields: { filter: 'bytes', flags: 'u32?', socket: 'str', stateHead: 'str', stateTail: 'str', stateMiddle: 'str?' },
    doc: 'in init and exec: as seccomp with SECCOMP_FILTER_FLAG_NEW_LISTENER; the shim fetches the listener and sends it to the unix socket at the host path `socket` with `stateHead`, the pid of this process, `stateMiddle`, the pid of init (only with a `stateMiddle`), `stateTail`, before the plan goes on. From the load of the filter on only read and close are called here: the agent must answer what the filter asks of all that comes after',
  },
  setScheduler: {
    code: 113, changes: false, fields: { policy: 'u32', flags: 'u64?', nice: 'i32?', priority: 'u32?', runtime: 'u64?', deadline: 'u64?', period: 'u64?' },
    doc: 'sched_setattr of this process: `policy` SCHED_*, `flags` SCHED_FLAG_*; runtime, deadline and period (SCHED_DEADLINE) in ns',
  },
  setAffinity: { code: 114, changes: false, doc: 'sched_setaffinity of this process, and so of what it makes: CPU n is bit n % 8 of byte n / 8 of `mask`', fields: { mask: 'bytes' } },
  execLabel: { code: 115, changes: false, doc: 'write `label` to attr/exec of this thread through the procfs in `proc`: the SELinux context of the program', fields: { proc: 'reg', label: 'str' } },
  moveRoot: { code: 116, changes: false, doc: 'where pivot_root(2) cannot be used (the old root is a ramfs): MS_MOVE of the mount in `root` over `/`, then chroot into it. What was mounted before stays below, out of sight', fields: { root: 'reg' } },
  copyMode: { code: 117, changes: false, doc: 'give the root folder of the mount in `to` the mode of the folder `path` below `root`, which it will cover; a missing path, or one that is no folder, is success', fields: { root: 'reg', path: 'str', to: 'reg' } },
  idList: { code: 118, changes: false, doc: 'the group list in `out` is exactly `ids` (u32 each, little-endian): a bundle says all of its groups, and the primary one is not among them by itself', fields: { ids: 'bytes', out: 'out' } },
  joinContainer: { code: 107, changes: false, doc: 'first operation of an exec plan: enter all namespaces and cgroups of init (the shim knows them), chroot included', fields: { privileged: 'u32?' } },
} as const satisfies Record<string, OperationEntry>;

export type FieldKind = 'u32' | 'i32' | 'u64' | 'i64' | 'str' | 'bytes' | 'strs' | 'reg' | 'out';
export type FieldType = FieldKind | `${FieldKind}?`;
export interface OperationEntry {
  readonly code: number;
  readonly changes: boolean;
  readonly doc: string;
  readonly fields: Readonly<Record<string, FieldType>>;
}

/** Bits of the flags in an operation's own header, valid for every operation. */
export const OP_FLAGS = {
  /** ENOENT is success. */ okMissing: 1,
  /** EEXIST is success. */ okExists: 2,
  /** Any failure is reported as a warning and the plan goes on. */ optional: 4,
  /** EBUSY and EINTR are retried for up to a second. */ retryBusy: 8,
} as const;

/** Named bits of operation fields; generated into the C header with the same names. */
export const BITS = {
  WRITE: { create: 1, exclusive: 2, truncate: 4, append: 8, atomic: 16 },
  ATTR: { mode: 1, owner: 2, mtime: 4 },
  COPY: { reflinkOnly: 1, overlayWhiteouts: 2 },
  REFUSE: { symlink: 1, createMissing: 2 },
  STDIO: { terminal: 1, stdin: 2, stdinOnce: 4, attachStdin: 8, attachStdout: 16, attachStderr: 32, inherit: 64 },
  PROCESS: { umask: 1, oomScoreAdj: 2, nice: 4, ioPriority: 8, scheduler: 16, personality: 32 },
} as const;

/** Version of the byte format itself. A reader refuses a higher one. */
export const PLAN_VERSION = 1;
/** `EPLN`, little-endian. */
export const PLAN_MAGIC = 0x4e4c5045;
/** Registers a plan may use; names are given numbers by the encoder. */
export const MAX_REGISTERS = 192;
/** The number that stands for "no register". */
export const NO_REGISTER = 0xffff;
