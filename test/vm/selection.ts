/**
 * What runs in the guests of the stock-kernel tier, by part; a guest takes one. Everything is 5 to 50 times slower in there: what asks the kernel for
 * something belongs here, what tests our own words and files is tested outside. `beside`, `differs` and `systemd` run beside all other tests, which must end in
 * half an hour: these take some minutes of one processor each, and no test of a part shows what another one shows. The rest is for guests alone (test/run.sh vm).
 */
export const parts: Readonly<Record<string, readonly string[]>> = {
  /** On the older kernel: what machines for development often lack, AppArmor and cgroup v2. */
  beside: ['test/vm/{apparmor,cgroup-v2,dumpable,checkpoint}.test.ts'],
  /** On the newer one: the drivers' own suites. */
  differs: ['test/e2e/conformance/runtime.test.ts'],
  /** With systemd as pid 1. */
  systemd: ['test/vm/{systemd,oci-cgroups}.test.ts'],
  /** On both kernels, alone. */
  kernel: ['test/vm/{apparmor,cgroup-v2,oci-cgroups,dumpable,checkpoint}.test.ts', 'test/e2e/run.test.ts', 'test/crash/matrix.test.ts'],
  /** What `kernel` lacks. */
  more: ['test/vm/storage.test.ts', 'test/e2e/conformance/runtime.test.ts', 'test/e2e/{lifecycle,limits,userns,userns-files,pause,update}.test.ts'],
  /** Attacks, and what protects from them: links, devices, other people's namespaces; firewalls and names. */
  attacks: ['test/advisories/{process,rootfs,users,shim,network}.test.ts', 'test/e2e/network-bridge.test.ts'],
};
