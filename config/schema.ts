import { type FromSchema, type JsonSchema } from './json-schema.ts';

const driver = (what: string) => ({ type: 'string', description: `${what}: a driver's name, or auto` }) as const;

const body = {
  root: {
    type: 'string',
    pattern: '^/',
    description: 'an absolute path: images, snapshots, volumes, logs and the database (default /var/lib/engine)',
  },
  runRoot: { type: 'string', pattern: '^/', description: 'an absolute path: one folder per running container (default /run/engine)' },
  logLevel: {
    enum: ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'],
    description: 'what the engine itself writes to stderr (default warn)',
  },
  logFormat: { enum: ['text', 'json'], description: 'lines for people, or JSON for machines (default text)' },
  resident: {
    enum: ['auto', 'off'],
    description: 'auto: commands are served by a process that stays (started when needed); off: each in a process of its own (default auto)',
  },
  idle: { type: 'integer', minimum: 0, description: 'seconds without a command after which that process leaves, when nothing needs it (default 300)' },
  watchdog: { type: 'integer', minimum: 1, description: 'seconds that its main thread may be blocked (by a plugin, say) before it is ended and a new one started (default 10)' },
  pool: {
    description: 'containers that are prepared in advance: auto, off, or how many at most (default auto)',
    anyOf: [
      { enum: ['auto', 'off'], description: '"auto", "off"' },
      { type: 'integer', minimum: 0, description: 'a number' },
    ],
  },
  drivers: {
    type: 'object',
    description: 'which driver serves each contract, for new containers; auto takes the one that fits this machine best',
    additionalProperties: false,
    properties: {
      storage: driver('what / of a container is made of'),
      cgroup: driver('where processes are counted and limited'),
      network: driver('what --network means when it is not given'),
      log: driver('where output goes'),
      volume: driver('where volumes live'),
      ipam: driver('where addresses of networks come from'),
      firewall: driver('what keeps networks apart and publishes ports'),
      dns: driver('what answers names on networks'),
      checkpoint: driver('what writes containers to files and brings them back'),
      security: {
        description: 'what confines processes: auto for all that are available, or a list of drivers, applied in that order',
        anyOf: [
          { const: 'auto', description: '"auto"' },
          { type: 'array', items: { type: 'string' }, description: 'a list of drivers' },
        ],
      },
    },
  },
  security: {
    type: 'object',
    description: 'security of containers that say nothing else on the command line',
    additionalProperties: false,
    properties: {
      seccomp: { type: 'string', description: 'default, unconfined, or the path of a profile' },
      apparmor: { type: 'string', description: 'engine-default, unconfined, or a loaded profile' },
      userns: { type: 'string', pattern: '^(host|auto(:size=[0-9]{1,10})?)$', description: 'user namespace of containers: host, or auto[:size=N], which gives each ids of its own' },
      capabilities: {
        description: "what a container has without --cap-add and --cap-drop: default (Docker's 14), none, or a list",
        anyOf: [
          { enum: ['default', 'none'], description: '"default", "none"' },
          { type: 'array', items: { type: 'string' }, description: 'a list of capabilities' },
        ],
      },
    },
  },
  options: {
    type: 'object',
    description: 'options of each plugin, by its name; checked against the schema in its manifest',
    additionalProperties: { type: 'object' },
  },
  plugins: {
    type: 'array',
    description: 'plugins besides the built-in ones: a package name, or a path that starts with ./, ../ or /, relative to this file',
    items: { type: 'string' },
  },
} as const;

const match = {
  type: 'object',
  description: 'all that are given must match',
  additionalProperties: false,
  properties: {
    hostname: { type: 'string', description: "a glob for this machine's hostname" },
    fs: { type: 'string', description: 'type of the filesystem that root lies on' },
    kernel: {
      type: 'string',
      pattern: '^(>=|>|<=|<|=)?\\s*\\d+(\\.\\d+)?$',
      description: 'a kernel version with an optional comparison, like ">=6.1"',
    },
    arch: { type: 'string', description: 'machine architecture as uname -m prints it' },
    cgroup: { enum: ['v1', 'v2', 'hybrid'], description: 'how the cgroup tree is mounted' },
  },
} as const;

/** What `.enginerc` may hold. `hosts` counts in the system's and the user's file only. */
export const schema = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: '.enginerc',
  description: 'configuration of engine',
  type: 'object',
  additionalProperties: false,
  properties: {
    $schema: { type: 'string', description: 'for editors' },
    ...body,
    hosts: {
      type: 'array',
      description: 'settings for some machines only; all entries that match apply, in order (system and user file only)',
      items: { type: 'object', additionalProperties: false, required: ['match'], properties: { match, ...body } },
    },
  },
} as const satisfies JsonSchema;

export type ConfigFile = FromSchema<typeof schema>;
export type HostBlock = NonNullable<ConfigFile['hosts']>[number];
type Body = Omit<ConfigFile, 'hosts' | '$schema'>;
/** A configuration with every default filled in. */
export type Config = { readonly [K in keyof Body]-?: NonNullable<Body[K]> } & {
  readonly drivers: Required<NonNullable<Body['drivers']>>;
  readonly security: Required<NonNullable<Body['security']>>;
};

/** The built-in source. */
export const defaults: Config = {
  root: '/var/lib/engine',
  runRoot: '/run/engine',
  logLevel: 'warn',
  logFormat: 'text',
  resident: 'auto',
  idle: 300,
  watchdog: 10,
  pool: 'auto',
  drivers: { storage: 'auto', cgroup: 'auto', network: 'auto', log: 'auto', volume: 'auto', ipam: 'auto', firewall: 'auto', dns: 'auto', checkpoint: 'auto', security: 'auto' },
  security: { seccomp: 'default', apparmor: 'engine-default', userns: 'host', capabilities: 'default' },
  options: {},
  plugins: [],
};
