import 'reflect-metadata';
import { container as rootContainer, type DependencyContainer, type InjectionToken } from 'tsyringe';
import { type Engine } from '@engine/core/api';
import { type DriverDeps } from '@engine/core/contracts/common';
import { fail } from '@engine/core/errors';
import { type PluginContext, type PluginDefinition, type PluginInstance } from '@engine/core/plugin';
import { type KnownPlugin } from './loader.ts';

/**
 * The composition root, and the only place that knows tsyringe: a child container per engine, a grandchild per plugin that holds only what the
 * plugin's manifest requires.
 */
export const token = {
  machine: Symbol.for('engine:machine'),
  state: Symbol.for('engine:state'),
  engine: Symbol.for('engine:engine'),
  log: Symbol.for('engine:log'),
  folder: Symbol.for('engine:folder'),
  serviceFolder: Symbol.for('engine:serviceFolder'),
  instance: Symbol.for('engine:instance'),
  options: Symbol.for('engine:options'),
  manifest: Symbol.for('engine:manifest'),
  tap: Symbol.for('engine:tap'),
} as const;
type TokenName = keyof typeof token;

/** What each token stands for in a plugin's container. */
export interface PluginValues extends DriverDeps {
  readonly engine: () => Promise<Engine>;
  readonly options: unknown;
  readonly manifest: PluginContext['manifest'];
  readonly tap: PluginContext['tap'];
}
/** Every plugin has these; the others it must require. */
const basics: readonly TokenName[] = ['log', 'folder', 'serviceFolder', 'instance', 'options', 'manifest', 'tap'];

/** tsyringe lets the last of two registrations win without a word; two are a mistake. */
export function registerOnce<T>(container: DependencyContainer, key: InjectionToken<T>, value: T): void {
  if (container.isRegistered(key)) throw fail('ERR_INTERNAL', `${String(key)} is registered twice`, { operation: 'compose' });
  container.register(key, { useValue: value });
}

export interface Composition {
  /** Make a plugin with what its manifest requires, and nothing else. */
  create(plugin: KnownPlugin, definition: PluginDefinition, values: PluginValues): PluginInstance;
  dispose(): void;
}

export function createComposition(): Composition {
  const engineContainer = rootContainer.createChildContainer();
  return {
    create(plugin, definition, values) {
      const key = Symbol.for(`engine:plugin:${plugin.manifest.name}`);
      const child = engineContainer.createChildContainer();
      registerOnce(engineContainer, key, child);
      const allowed = new Set<TokenName>([...basics, ...(plugin.manifest.requires ?? [])]);
      for (const name of allowed) registerOnce(child, token[name], values[name]);
      return definition.create(contextFrom(child, allowed, plugin.manifest.name));
    },
    dispose: () => engineContainer.clearInstances(),
  };
}

/** The context as a plain object; what was not required says so when it is reached for, and doesn't show up in a spread. */
function contextFrom(child: DependencyContainer, allowed: ReadonlySet<TokenName>, plugin: string): PluginContext {
  const context = {};
  for (const name of Object.keys(token) as TokenName[]) {
    if (allowed.has(name)) {
      Object.defineProperty(context, name, { value: child.resolve(token[name]), enumerable: true });
    } else {
      Object.defineProperty(context, name, {
        enumerable: false,
        get() {
          throw fail('ERR_PLUGIN_INVALID', `plugin ${plugin} uses ${name}, but its manifest does not require it`, {
            plugin,
            hint: `add "${name}" to "requires" in the engine block of its package.json`,
          });
        },
      });
    }
  }
  return context as PluginContext;
}
