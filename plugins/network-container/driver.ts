import { fail } from '@engine/core/errors';
import { op, step } from '@engine/core/plan';
import { type NetworkDriver } from '@engine/core/contracts/network';
import { type Machine, type Probe } from '@engine/core/contracts/common';

const PREFIX = 'container:';
const CLONE_NEWNET = 0x40000000;
const REGISTER = 'network-container.netns';

/**
 * The net namespace of another container. The shim opens it before anything is joined, by pid and start time, so that a pid that was
 * given to another process since is refused (ESRCH). From then on the open file holds the namespace: the target may end or restart
 * while this container goes on in the old one.
 */
export function createNetworkContainer(): NetworkDriver {
  return {
    name: 'container',
    features: new Set(['shares']),
    probe: (machine: Machine): Probe =>
      machine.namespaces.includes('net') ? { available: true, score: 0, reasons: ['only by name: --network container:ID'] } : { available: false, score: 0, reasons: ['this kernel has no net namespaces'] },
    serves: (mode) => mode.startsWith(PREFIX),
    namespace({ mode }) {
      const container = mode.slice(PREFIX.length);
      if (!mode.startsWith(PREFIX) || container === '') throw fail('ERR_INVALID_VALUE', `network ${mode}: no container is named`, { path: mode, hint: 'write container:NAME' });
      return { kind: 'container', container };
    },
    planEndpoint({ mode, ports, target, join = 'init' }, run) {
      if (ports.length > 0) throw fail('ERR_INVALID_VALUE', 'conflicting options: port publishing and the container type network mode', { path: mode, hint: 'publish the ports on the container whose network is joined' });
      if (!target) throw fail('ERR_NOT_RUNNING', `cannot join the network of ${mode.slice(PREFIX.length)}: it is not running`, { path: mode });
      if (target.container === run.container) throw fail('ERR_INVALID_VALUE', 'a container cannot join its own network', { path: mode });
      return [
        step('shim.namespaces', op.openNamespace({ pid: target.pid, startTime: target.startTime, type: 'net', out: REGISTER })),
        step(`${join}.namespaces`, op.joinNamespace({ fd: REGISTER, flags: CLONE_NEWNET })),
      ];
    },
  };
}
