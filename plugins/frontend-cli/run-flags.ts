import { limitFlags } from './limit-flags.ts';
import { type Flags } from './parse.ts';
import { traceFlag } from './trace.ts';
import { usernsFlags } from './userns-flags.ts';

const own = {
  'add-host': { type: 'list', value: 'HOST:IP', help: 'add a line to /etc/hosts; host-gateway stands for the address of the host' },
  attach: { type: 'list', short: 'a', value: 'STREAM', help: 'attach to stdin, stdout or stderr' },
  bundle: { type: 'string', value: 'DIR', help: 'run a prepared OCI bundle instead of an image (with --explain)' },
  'cap-add': { type: 'list', value: 'CAP', help: 'add a capability, or ALL' },
  'cap-drop': { type: 'list', value: 'CAP', help: 'drop a capability, or ALL' },
  'cgroup-parent': { type: 'string', value: 'PATH', help: 'parent cgroup; with the cgroup driver systemd a slice, e.g. a-b.slice' },
  cgroupns: { type: 'string', value: 'MODE', help: 'cgroup namespace: private or host' },
  cidfile: { type: 'string', value: 'FILE', help: 'write the id of the container to a new file' },
  'detach-keys': { type: 'string', value: 'KEYS', help: 'keys that detach (default ctrl-p,ctrl-q)' },
  device: { type: 'list', value: 'SRC[:DST[:rwm]]', help: 'give access to a device of the host' },
  'device-cgroup-rule': { type: 'list', value: 'RULE', help: 'add a rule to the device list, e.g. "c 42:* rmw"' },
  dns: { type: 'list', value: 'IP', help: 'name server; on a network with names, the one that is asked for all others' },
  'dns-option': { type: 'list', value: 'OPTION', help: 'option for /etc/resolv.conf' },
  'dns-search': { type: 'list', value: 'DOMAIN', help: 'search domain for /etc/resolv.conf' },
  domainname: { type: 'string', value: 'NAME', help: 'NIS domain name' },
  entrypoint: { type: 'string', value: 'PROGRAM', help: "replace the image's entrypoint; empty for none" },
  env: { type: 'list', short: 'e', value: 'NAME[=VALUE]', help: 'set an environment variable; without a value, pass it on' },
  'env-file': { type: 'list', value: 'FILE', help: 'read environment variables from a file' },
  explain: { type: 'optional', value: 'json', help: 'show the plan with its origins and run nothing; =json for all of it' },
  expose: { type: 'list', value: 'PORT[/PROTO]', help: 'say that it listens there, also a range; published with -P' },
  gidmap: usernsFlags.gidmap,
  'group-add': { type: 'list', value: 'GROUP', help: 'additional group' },
  hostname: { type: 'string', short: 'h', value: 'NAME', help: 'host name' },
  init: { type: 'boolean', help: 'a small init as pid 1 forwards signals and reaps zombies' },
  interactive: { type: 'boolean', short: 'i', help: 'keep stdin open' },
  ip: { type: 'string', value: 'ADDRESS', help: 'its IPv4 address on the first network' },
  ip6: { type: 'string', value: 'ADDRESS', help: 'its IPv6 address on the first network' },
  ipc: { type: 'string', value: 'MODE', help: 'IPC namespace: private or host' },
  label: { type: 'list', short: 'l', value: 'NAME[=VALUE]', help: 'set a label' },
  'label-file': { type: 'list', value: 'FILE', help: 'read labels from a file' },
  'log-driver': { type: 'string', value: 'NAME', help: 'log driver: cri or none' },
  'log-opt': { type: 'list', value: 'NAME=VALUE', help: 'log option: max-size, max-file, mode, max-buffer-size' },
  'mac-address': { type: 'string', value: 'MAC', help: 'its MAC address on the first network' },
  mount: { type: 'list', value: 'SPEC', help: 'type=bind|volume|tmpfs,source=…,target=…[,readonly][,…]' },
  name: { type: 'string', value: 'NAME', help: 'name of the container' },
  network: { type: 'list', also: 'net', value: 'NETWORK', help: 'a network by name (or name=NETWORK,alias=…,ip=…,ip6=…,mac-address=…,driver-opt=…), bridge, none, host or container:ID' },
  'network-alias': { type: 'list', also: 'net-alias', value: 'NAME', help: 'another name of it on the first network' },
  'no-healthcheck': { type: 'boolean', help: 'ignore the health check of the image' },
  'oom-score-adj': { type: 'string', value: 'N', help: '-1000 to 1000' },
  pid: { type: 'string', value: 'MODE', help: 'PID namespace: private or host' },
  privileged: { type: 'boolean', help: 'all capabilities and devices, no masks, no seccomp, no AppArmor' },
  publish: { type: 'list', short: 'p', value: '[[IP:]HOST:]PORT[/PROTO]', help: 'publish a port on the host: 80 (any free one), 8080:80, 127.0.0.1:8080:80/tcp, [::1]:53:53/udp, 8000-8010:8000-8010' },
  'publish-all': { type: 'boolean', short: 'P', help: 'publish every exposed port on a free one of the host' },
  'read-only': { type: 'boolean', help: 'mount the root filesystem read-only' },
  restart: { type: 'string', value: 'POLICY', help: 'start it again when it ends: no, always, unless-stopped, on-failure[:N]' },
  rm: { type: 'boolean', help: 'remove the container when it has ended' },
  rootfs: { type: 'string', value: 'DIR', help: 'use this folder as root filesystem instead of an image (with --explain)' },
  'security-opt': { type: 'list', value: 'OPTION', help: 'seccomp=FILE|unconfined, apparmor=NAME|unconfined, systempaths=unconfined, no-new-privileges' },
  'shm-size': { type: 'string', value: 'SIZE', help: 'size of /dev/shm (64m)' },
  'stop-signal': { type: 'string', value: 'SIGNAL', help: 'signal that asks it to stop' },
  'stop-timeout': { type: 'string', value: 'SECONDS', help: 'time until it is killed (10)' },
  'storage-opt': { type: 'list', value: 'NAME=VALUE', help: 'option of the storage driver, e.g. size=1g' },
  sysctl: { type: 'list', value: 'NAME=VALUE', help: 'set a namespaced sysctl' },
  'time-offset': usernsFlags['time-offset'],
  tmpfs: { type: 'list', value: 'PATH[:OPTIONS]', help: 'mount a tmpfs' },
  tty: { type: 'boolean', short: 't', help: 'give it a terminal' },
  uidmap: usernsFlags.uidmap,
  ulimit: { type: 'list', value: 'NAME=SOFT[:HARD]', help: 'set a resource limit' },
  user: { type: 'string', short: 'u', value: 'USER[:GROUP]', help: 'user name or id' },
  userns: usernsFlags.userns,
  uts: { type: 'string', value: 'MODE', help: 'UTS namespace: private or host' },
  volume: { type: 'list', short: 'v', value: '[SRC:]DST[:OPTIONS]', help: 'bind a folder or file, or mount a volume; options: ro, idmap (the container\'s own owners), …' },
  workdir: { type: 'string', short: 'w', value: 'DIR', help: 'working directory' },
} as const satisfies Flags;

/** In the order of the alphabet, as everybody looks for them. */
const sorted = <F extends Flags>(flags: F): F => Object.fromEntries(Object.entries(flags).sort(([a], [b]) => (a < b ? -1 : 1))) as F;

/** Flags of `create`; `run` adds its own. Names and meaning are Docker's. */
export const createFlags = sorted({ ...own, ...limitFlags } as const);

export const runFlags = {
  ...createFlags,
  detach: { type: 'boolean', short: 'd', help: 'run in the background and print the id' },
  'sig-proxy': { type: 'string', value: 'BOOL', help: 'pass signals on to the process (true)' },
  trace: traceFlag,
} as const satisfies Flags;
