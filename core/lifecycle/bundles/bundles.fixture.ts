import fs from 'node:fs';
import path from 'node:path';
import { type BundleExec, type BundleRef, type BundleRequest, type Bundles } from '../../api/index.ts';
import { type Spawner } from '../../native/index.ts';
import { type FakeNative } from '../../native/fake.ts';
import { createFixture, type Fixture } from '../../state/state.fixture.ts';
import { type Spec } from '../../spec/index.ts';
import { testEngine, type TestEngine, type TestOptions } from '../engine.fixture.ts';

/** The caller's process; `fails`: it is gone. */
export const caller = (fails?: Error): Spawner & { readonly asked: unknown[] } => {
  const asked: unknown[] = [];
  return {
    asked,
    async spawn({ callerFds }) {
      asked.push(callerFds);
      if (fails) throw fails;
      return 1;
    },
  };
};

export const config = (over: Partial<Spec> & { readonly args?: string[] } = {}): Spec => {
  const { args = ['sleep'], ...rest } = over;
  return { ociVersion: '1.0.2', root: { path: 'rootfs' }, process: { cwd: '/', user: {}, args }, linux: { namespaces: [{ type: 'mount' }, { type: 'pid' }] }, ...rest };
};

export interface World extends TestEngine {
  readonly bundles: Bundles;
  readonly native: FakeNative;
  /** Of the containers. */
  readonly root: string;
  bundle(spec: unknown): string;
  request(id: string, over?: Partial<BundleRequest> & { readonly spec?: unknown }): BundleRequest;
  ref(id: string): BundleRef;
  exec(args: string[], over?: Partial<BundleExec>): BundleExec;
  create(id: string, spec?: unknown): ReturnType<Bundles['create']>;
  /** What lies below the root, containers and what is set aside. */
  left(): string[];
  /** The next engine on the same machine, with the same root. */
  next(options?: { readonly reboot?: boolean; readonly test?: TestOptions }): Promise<World>;
}

/** After a test: nothing of these stays. */
export async function closeWorlds(open: World[]): Promise<void> {
  for (const { engine, fixture } of open.splice(0)) {
    await engine.close();
    fixture.remove();
  }
}

/** An engine and a root for bundles, on a fake machine. */
export async function bundleWorld(options: TestOptions = {}): Promise<World> {
  const fixture: Fixture = options.fixture ?? createFixture();
  const made = await testEngine({ ...options, fixture });
  const native = options.native ?? fixture.native;
  const root = path.join(fixture.folder, 'oci', 'root');
  let count = 0;
  const world: World = {
    ...made, native, root, bundles: made.engine.bundles,
    bundle(spec) {
      const folder = path.join(fixture.work, `bundle${process.hrtime.bigint()}-${count++}`);
      fs.mkdirSync(path.join(folder, 'rootfs'), { recursive: true });
      fs.writeFileSync(path.join(folder, 'config.json'), typeof spec === 'string' ? spec : JSON.stringify(spec));
      return folder;
    },
    request: (id, { spec = config(), ...over } = {}) => ({ root, id, bundle: world.bundle(spec), env: [], noPivot: false, noNewKeyring: false, preserveFds: 0, spawner: caller(), ...over }),
    ref: (id) => ({ root, id }),
    exec: (args, over) => ({ process: { cwd: '/', user: {}, args }, cgroups: [], ignorePaused: false, preserveFds: 0, spawner: caller(), ...over }),
    create: (id, spec) => made.engine.bundles.create(world.request(id, spec === undefined ? {} : { spec })),
    left: () => (fs.existsSync(root) ? fs.readdirSync(root).flatMap((name) => (name.startsWith('.') && name !== '.tmp' && !name.startsWith('.tmp-') ? fs.readdirSync(path.join(root, name)).map((inner) => `${name}/${inner}`) : [name])) : []),
    next: ({ reboot = false, test = {} } = {}) => bundleWorld({ ...test, fixture, native: native.restart({ reboot }) }),
  };
  return world;
}
