/**
 * What runs in the guests of the stock-kernel tier, by part; a guest takes one. Everything is 5 to 50 times slower in there: what asks the kernel for
 * something belongs here, what tests our own words and files is tested outside. `kernel`, `differs` and `systemd` run beside all other tests, which must end in
 * half an hour; all of them when guests are asked for alone (test/run.sh vm).
 */
export const parts: Readonly<Record<string, readonly string[]>> = {
  /** On the older kernel. */
  kernel: ['test/vm/{apparmor,cgroup-v2,dumpable}.test.ts', 'test/e2e/run.test.ts', 'test/crash/matrix.test.ts'],
  /** What may differ on the newer one, and what one kernel is enough for. */
  differs: ['test/vm/cgroup-v2.test.ts', 'test/e2e/conformance/runtime.test.ts', 'test/e2e/{limits,userns}.test.ts'],
  /** With systemd as pid 1. */
  systemd: ['test/vm/{systemd,oci-cgroups}.test.ts'],
  /** What `kernel` lacks. */
  more: ['test/vm/storage.test.ts', 'test/e2e/conformance/runtime.test.ts', 'test/e2e/{lifecycle,limits,userns,userns-files,pause,update}.test.ts'],
  /** Attacks, and what protects from them: links, devices, other people's namespaces; firewalls and names. */
  attacks: ['test/advisories/{process,rootfs,users,shim,network}.test.ts', 'test/e2e/network-bridge.test.ts'],
};
