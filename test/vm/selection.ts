/**
 * What runs in the guests of the stock-kernel tier, by part; a guest takes one. Everything is 5 to 50 times slower in there: what asks the kernel for
 * something belongs here, what tests our own words and files is tested outside.
 */
export const parts: Readonly<Record<string, readonly string[]>> = {
  /** The larger part, on the older kernel. */
  kernel: [
    'test/vm/{apparmor,cgroup-v2,storage}.test.ts',
    'test/e2e/conformance/runtime.test.ts',
    'test/e2e/{run,lifecycle,userns-files}.test.ts',
    'test/crash/matrix.test.ts',
  ],
  /** What may differ on another kernel, and what one kernel is enough for. */
  differs: ['test/vm/{apparmor,cgroup-v2}.test.ts', 'test/e2e/{limits,userns,pause,update}.test.ts'],
  /** With systemd as pid 1. */
  systemd: ['test/vm/systemd.test.ts'],
};
