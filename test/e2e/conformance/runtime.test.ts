import { describe } from 'vitest';
import { describeSuite } from '@engine/core/contracts/common/vitest';
import { cgroupSuite } from '@engine/core/contracts/cgroup/suite';
import { networkSuite } from '@engine/core/contracts/network/suite';
import { securitySuite } from '@engine/core/contracts/security/suite';
import { createNative } from '@engine/native';
import { createContainerRunner, unable as noShim } from '@engine/native/container-runner';
import { createCgroupV1 } from '../../../plugins/cgroup-v1/driver.ts';
import { createCgroupV2 } from '../../../plugins/cgroup-v2/driver.ts';
import { createNetworkContainer } from '../../../plugins/network-container/driver.ts';
import { createNetworkHost } from '../../../plugins/network-host/driver.ts';
import { createNetworkNone } from '../../../plugins/network-none/driver.ts';
import { createCapabilities } from '../../../plugins/security-capabilities/driver.ts';
import { createSeccomp } from '../../../plugins/security-seccomp/driver.ts';
import { createLibseccomp } from '../../../plugins/security-seccomp/libseccomp.ts';
import { realBench, unable } from './bench.ts';

describe.skipIf(unable ?? noShim)('real shim', () => {
  const common = { bench: () => realBench(), containers: createContainerRunner(createNative()) };
  // each is skipped, case by case, where the machine has the other
  describeSuite('cgroup v1', cgroupSuite, { ...common, create: createCgroupV1 });
  describeSuite('cgroup v2', cgroupSuite, { ...common, create: createCgroupV2 });
  describeSuite('network none', networkSuite, { ...common, create: createNetworkNone });
  describeSuite('network host', networkSuite, { ...common, create: createNetworkHost });
  describeSuite('network container', networkSuite, { ...common, create: createNetworkContainer, mode: 'container:other' });
  describeSuite('capabilities', securitySuite, { ...common, create: (deps) => createCapabilities(deps) });
  describeSuite('seccomp', securitySuite, { ...common, create: (deps) => createSeccomp({ ...deps, library: createLibseccomp() }) });
});
