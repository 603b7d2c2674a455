import { describe, expect, it } from 'vitest';
import { type ContainerRecord, type ContainerRequest, type ContainerView } from '@engine/core/api';
import { type InspectFacts } from '@engine/core/hooks';
import { dockerJson } from './inspect.ts';

type Json = Record<string, Record<string, unknown>>;
const request: ContainerRequest = {
  image: 'test', env: ['A=b'], labels: {}, addHosts: [], terminal: false, openStdin: false, stdinOnce: false, attach: { stdin: false, stdout: true, stderr: true }, detached: false, autoRemove: false,
  network: 'none', ports: [], mounts: [{ type: 'bind', source: '/src', target: '/dst/', readonly: true, createSource: true, noCopy: false }], tmpfs: [], readonlyRootfs: false, init: false, privileged: false,
  capAdd: ['net_admin'], capDrop: [], securityOptions: [], devices: [], deviceCgroupRules: [], rlimits: [], sysctls: {}, groupAdd: [], log: { options: {} }, storageOptions: {}, limits: { memory: 1 << 20 },
};
const record: ContainerRecord = {
  id: 'a'.repeat(64), name: 'one', created: '2026-01-01T00:00:00.000Z', request, image: { id: 'sha256:abc', name: 'test', source: 'oci' }, imageConfig: { Cmd: ['sh'] }, rootfs: {},
  spec: { ociVersion: '1.2.0', process: { cwd: '/', user: {}, args: ['echo', 'x'] } }, drivers: { security: [], storage: { driver: 'vfs', plugin: 'storage-vfs', version: '1', options: '' } }, volumes: [], networks: [], starts: 1,
};
const shown = (view: Partial<ContainerView> = {}, over: Partial<ContainerRecord> = {}): Json =>
  dockerJson({ facts: { kind: 'container', view: { record: { ...record, ...over }, state: 'stopped', ...view }, networks: [], folder: '/c' }, json: { Engine: { own: 1 } } }).json as Json;
const exit = { run: 'r', code: 3, finishedAt: '2026-01-02T00:00:00.000Z', startedAt: '2026-01-01T00:00:01.000Z' };

describe('a container', () => {
  it('is shown as Docker shows one, and what was there stays', () => {
    expect(shown()).toMatchObject({
      Id: record.id, Name: '/one', Path: 'echo', Args: ['x'], Driver: 'vfs', HostsPath: '/c/hosts', Engine: { own: 1 }, Config: { Cmd: ['echo', 'x'], Entrypoint: null, Env: ['A=b'] },
      HostConfig: { NetworkMode: 'none', Binds: ['/src:/dst/:ro'], CapAdd: ['CAP_NET_ADMIN'], CapDrop: null, Memory: 1 << 20 }, Mounts: [{ Type: 'bind', Source: '/src', Destination: '/dst', RW: false }],
    });
    expect(Object.keys(shown()).at(-1)).toBe('Engine');
    expect(shown()).not.toHaveProperty('SizeRw');
    const facts: InspectFacts = { kind: 'container', view: { record, state: 'stopped' }, networks: [], folder: '/c', size: 7 };
    expect(dockerJson({ facts, json: {} }).json).toMatchObject({ SizeRw: 7 });
  });
  it('has a state', () => {
    expect(shown({ state: 'created' })['State']).toMatchObject({ Status: 'created', Running: false, ExitCode: 0, StartedAt: '0001-01-01T00:00:00Z' });
    expect(shown({}, { lastExit: exit })['State']).toMatchObject({ Status: 'exited', ExitCode: 3, FinishedAt: exit.finishedAt, StartedAt: exit.startedAt });
    const run = { id: 'r2', pid: 5, startTime: 1n, startedAt: '2026-01-03T00:00:00.000Z', folder: '/r' };
    expect(shown({ state: 'running', run }, { lastExit: exit })['State']).toMatchObject({ Status: 'running', Running: true, Pid: 5, ExitCode: 0, StartedAt: run.startedAt, FinishedAt: exit.finishedAt });
    expect(shown({ restarts: { count: 2, next: '2026-01-01T00:00:00.000Z', error: 'no such file' } })).toMatchObject({ RestartCount: 2, State: { Status: 'restarting', Restarting: true, Running: true, Error: 'no such file' } });
  });
});

it('shows an image', () => {
  const layer = { digest: 'sha256:1', mediaType: 'x', size: 1, diffID: 'sha256:2', chainID: 'sha256:2' };
  const image = { id: 'sha256:abc', source: 'oci', digest: 'sha256:d', names: ['localhost:5000/a:1'], size: 3, config: { Cmd: ['sh'] }, rootfs: { kind: 'layers' as const, layers: [layer] } };
  const { json } = dockerJson({ facts: { kind: 'image', image, architecture: 'x86_64' }, json: {} });
  expect(json).toEqual({
    Id: 'sha256:abc', RepoTags: ['localhost:5000/a:1'], RepoDigests: ['localhost:5000/a@sha256:d'], Size: 3, Os: 'linux', Architecture: 'amd64', Config: { Cmd: ['sh'] }, RootFS: { Type: 'layers', Layers: ['sha256:2'] },
  });
});
