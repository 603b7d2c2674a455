import { accessSync, constants, existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Engine, type System } from '@engine/core/api';
import { type Machine } from '@engine/core/contracts/common';
import { fail } from '@engine/core/errors';
import { createHooks } from '@engine/core/hooks';
import { createEngine, type DriverChoices, type EngineParts } from '@engine/core/lifecycle';
import { type Native } from '@engine/core/native';
import { type ContractName, type PluginInstance } from '@engine/core/plugin';
import { openState, type State, type StateOptions } from '@engine/core/state';
import { createNative } from '@engine/native';
import { capabilityNames } from './capabilities.ts';
import { createComposition } from './compose.ts';
import { guardInstance, guardTap, unmarked, within, type Mark } from './guard.ts';
import { createKeep } from './keeper/ensure.ts';
import { didYouMean, isRecord } from './json-schema.ts';
import { loadPlugins, toEntry, type KnownPlugin, type LoadPlugins } from './loader.ts';
import { isSince, OLDEST } from './kernel/versions.ts';
import { createLog, type LogOptions } from './log.ts';
import { readMachine } from './machine.ts';
import { type Config } from './schema.ts';
import { loadConfig, type LoadedConfig, type LoadOptions } from './sources.ts';
import { wakeCommand } from './launch.ts';
import { version } from './version.ts';

export interface OpenOptions extends LoadOptions {
  /** Instead of reading it from the sources. */
  readonly config?: LoadedConfig;
  readonly caller?: EngineParts['caller'];
  /** Go on without plugins that can't be used, and say so: for `doctor`, which is there to find out. Never for what makes containers. */
  readonly lenient?: boolean;
  /** See EngineParts. */
  readonly passing?: boolean;
  /** What a host that lives on adds: see config/resident/watchdog.ts. */
  readonly host?: {
    readonly mark?: Mark;
    readonly compact?: StateOptions['compact'];
    readonly discard?: StateOptions['discard'];
    /** See NativeOptions. */
    readonly spawnLater?: boolean;
    /** Takes the lines of the engine's log; default: standard error. */
    readonly writeLog?: NonNullable<LogOptions['write']>;
    /** Called before code of a plugin that isn't built in is loaded; throws when it may not be. */
    readonly admit?: (plugin: KnownPlugin) => void;
  };
  /** For tests: put something between the engine and the machine. */
  readonly wrap?: {
    readonly native?: (native: Native) => Native;
    readonly state?: (state: State) => State;
    readonly machine?: (machine: Machine) => Machine;
    readonly checkpoint?: StateOptions['checkpoint'];
    readonly builtins?: LoadPlugins['builtins'];
    readonly shimEnv?: Readonly<Record<string, string>>;
    readonly now?: () => Date;
  };
}
export interface OpenedEngine {
  readonly engine: Engine;
  readonly config: LoadedConfig;
  readonly plugins: readonly KnownPlugin[];
}

/**
 * The composition root: configuration → plugins → state → engine, with whatever crashed before undone.
 * Errors: those of loadConfig, loadPlugins and openState; ERR_MACHINE for a kernel that is too old, ERR_DRIVER_UNKNOWN.
 */
export async function openEngine(options: OpenOptions = {}): Promise<OpenedEngine> {
  const { wrap = {}, host = {} } = options;
  const mark = host.mark ?? unmarked;
  const config = options.config ?? (await loadConfig(options));
  const { value } = config;
  const broken: unknown[] = [];
  const plugins = await loadPlugins({
    config: value,
    pluginBase: config.pluginBase,
    ...(wrap.builtins ? { builtins: wrap.builtins } : {}),
    ...(options.lenient ? { onBroken: (_entry: string, error: unknown) => void broken.push(error) } : {}),
  });
  const choices = chooseDrivers(value, plugins);

  const folders = usableFolders(value);
  const log = createLog({ level: value.logLevel, format: value.logFormat, ...(host.writeLog ? { write: host.writeLog } : {}) });
  for (const err of broken) log.warn({ err }, 'a plugin is left out');
  const native = (wrap.native ?? same)(createNative({ spawnLater: host.spawnLater ?? false }));
  const opened = await openState({
    root: folders.root,
    runRoot: folders.runRoot,
    native,
    log,
    ...(wrap.checkpoint ? { checkpoint: wrap.checkpoint } : {}),
    ...(host.compact ? { compact: host.compact } : {}),
    ...(host.discard ? { discard: host.discard } : {}),
  }).catch((error: unknown) => {
    folders.dispose();
    throw error;
  });
  const state = (wrap.state ?? same)(opened);
  const real = (wrap.machine ?? same)(readMachine(state.folders));
  // Somebody who isn't root can only have a run explained: as root would run it. `doctor` tells what works for the caller.
  const machine = real.uid === 0 || options.lenient ? real : asRoot(real);

  const composition = createComposition();
  const ready = Promise.withResolvers<Engine>();
  ready.promise.catch(() => {});
  const hooks = createHooks({ log });
  const entries = plugins.map((plugin) => {
    const entry = toEntry(
      plugin,
      (known, definition) => {
        const { name } = known.manifest;
        const folder = join(state.folders.root, name);
        const serviceFolder = join(state.folders.runRoot, name);
        mkdirSync(folder, { recursive: true, mode: 0o700 });
        if (known.manifest.service !== undefined) mkdirSync(serviceFolder, { recursive: true, mode: 0o700 });
        const made = mark(name, 'create', () => composition.create(known, definition, {
          machine,
          folder,
          serviceFolder,
          instance: state.folders.instance,
          log: log.child({ plugin: name }),
          state: state.pluginState(name),
          options: known.options,
          manifest: known.manifest,
          tap: guardTap(name, hooks.tapFor(name), mark),
          engine: () => ready.promise,
        }));
        // what is no instance is for the loader to refuse
        return isRecord(made) && typeof made['then'] !== 'function' ? guardInstance(known.manifest, made, mark) : (made as PluginInstance);
      },
      ({ manifest }, { state: schema }) => state.ensureStateSchema(manifest.name, schema),
      (known, load) => {
        if (!known.builtin) host.admit?.(known);
        return within(known.manifest.name, 'load', mark(known.manifest.name, 'load', load));
      },
    );
    if (!options.lenient || !entry.eager) return entry;
    return {
      ...entry,
      load: () =>
        entry.load().catch((err: unknown) => {
          log.warn({ err }, 'a plugin is left out');
          return {};
        }),
    };
  });

  try {
    requireKernel(machine);
    const made = await createEngine({
      state,
      hooks,
      native,
      machine,
      log,
      choices,
      version,
      plugins: entries,
      defaults: { network: defaultNetwork(value, plugins), logOptions: {}, userns: value.security.userns },
      config: { sources: ['built-in', ...config.files], result: value },
      wake: ({ request }) => wakeCommand(value, (request.restart?.policy ?? 'no') !== 'no', state.folders),
      keep: createKeep(value, state.folders, plugins, { log }),
      ...(real.uid === 0 ? {} : { explainOnly: true }),
      // a resident engine is told, or started, at the end of the command
      ...(options.passing && value.resident === 'off' ? { passing: true } : {}),
      ...(options.caller ? { caller: options.caller } : {}),
      ...(wrap.shimEnv ? { shimEnv: wrap.shimEnv } : {}),
      ...(wrap.now ? { now: wrap.now } : {}),
    });
    const engine = guard(made, real, async () => {
      await made.close();
      composition.dispose();
      folders.dispose();
    });
    ready.resolve(engine);
    return { engine, config, plugins };
  } catch (error) {
    ready.reject(error);
    state.close();
    folders.dispose();
    throw error;
  }
}

const same = <T>(value: T): T => value;

/** The machine as root would find it: with all that the capability bounding set leaves. */
function asRoot(machine: Machine): Machine {
  const bounding = /^CapBnd:\s*([0-9a-f]+)/m.exec(machine.read('/proc/self/status') ?? '')?.[1] ?? '0';
  return { ...machine, uid: 0, capabilities: capabilityNames(BigInt(`0x${bounding}`)) };
}

/** Debian 11's kernel lacks what the mounts by fd need; RHEL 9's has it. */
function requireKernel({ kernel, release }: Machine): void {
  if (isSince(kernel, OLDEST)) return;
  throw fail('ERR_MACHINE', `linux ${release} is too old: the engine needs ${OLDEST.join('.')} or later`, {
    operation: 'start',
    hint: 'upgrade the kernel',
  });
}

/** Names are checked here, so that a misspelt one is told at once; whether it works here is the probe's to say. */
function chooseDrivers({ drivers }: Config, plugins: readonly KnownPlugin[]): DriverChoices {
  const known = (contract: ContractName): string[] =>
    plugins.flatMap(({ manifest }) =>
      (manifest.provides ?? []).filter((provided) => provided.contract === contract).map(({ driver }) => driver),
    );
  const check = (contract: ContractName, name: string): string => {
    const names = known(contract);
    if (name === 'auto' || names.includes(name)) return name;
    const near = didYouMean(name, names);
    throw fail(
      'ERR_DRIVER_UNKNOWN',
      `drivers.${contract}: there is no ${contract} driver "${name}"${near ? `, did you mean "${near}"?` : ` (known: ${names.join(', ')})`}`,
      { operation: 'config', path: name },
    );
  };
  return {
    storage: check('storage', drivers.storage),
    cgroup: check('cgroup', drivers.cgroup),
    log: check('log', drivers.log),
    volume: check('volume', drivers.volume),
    ipam: check('ipam', drivers.ipam),
    firewall: check('firewall', drivers.firewall),
    dns: check('dns', drivers.dns),
    checkpoint: check('checkpoint', drivers.checkpoint),
    security: drivers.security === 'auto' ? 'auto' : drivers.security.map((name) => check('security', name)),
  };
}

/** What a container gets that names no network: a bridge where one can be had. */
function defaultNetwork({ drivers }: Config, plugins: readonly KnownPlugin[]): string {
  if (drivers.network !== 'auto') return drivers.network;
  const bridge = plugins.some(({ manifest }) =>
    manifest.provides?.some(({ contract, driver }) => contract === 'network' && driver === 'bridge'),
  );
  return bridge ? 'bridge' : 'none';
}

interface UsableFolders {
  readonly root: string;
  readonly runRoot: string;
  dispose(): void;
}

/** The configured folders; for somebody who can't write them, empty ones, so that a run can be explained at least. */
function usableFolders({ root, runRoot }: Config): UsableFolders {
  if (process.geteuid?.() === 0 || (isWritable(root) && isWritable(runRoot))) return { root, runRoot, dispose() {} };
  const temporary = realpathSync(mkdtempSync(join(tmpdir(), 'engine-explain-')));
  return {
    root: join(temporary, 'root'),
    runRoot: join(temporary, 'run'),
    dispose: () => rmSync(temporary, { recursive: true, force: true }),
  };
}
function isWritable(folder: string): boolean {
  try {
    if (existsSync(folder)) accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    else accessSync(join(folder, '..'), constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Without root only what changes nothing is let through; the rest says what is missing instead of failing half-way. */
function guard(engine: Engine, machine: Machine, close: () => Promise<void>): Engine {
  const system: System = {
    ...engine.system,
    async doctor(options) {
      const { kernelReport } = await import('./kernel/report.ts');
      return { ...(await engine.system.doctor(options)), kernel: kernelReport(machine) };
    },
  };
  if (machine.uid === 0) return { containers: engine.containers, images: engine.images, volumes: engine.volumes, networks: engine.networks, bundles: engine.bundles, system, close };
  const only = <T extends object>(part: T, allowed: readonly string[]): T =>
    new Proxy(part, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name);
        if (typeof value !== 'function' || allowed.includes(String(name)))
          return typeof value === 'function' ? (value.bind(target) as unknown) : value;
        return () => {
          throw fail('ERR_NOT_ROOT', 'containers can be run by root only', { operation: String(name) });
        };
      },
    });
  return {
    containers: only(engine.containers, ['explain']),
    images: only(engine.images, []),
    volumes: only(engine.volumes, []),
    networks: only(engine.networks, []),
    bundles: only(engine.bundles, ['features']),
    system: only(system, ['info', 'plugins', 'doctor', 'needed']),
    close,
  };
}
