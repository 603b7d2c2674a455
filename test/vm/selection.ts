/**
 * What runs in the guests of the stock-kernel tier, by part; a guest takes one. Everything is 5 to 50 times slower in there: what asks the kernel for
 * something belongs here, what tests our own words and files is tested outside.
 */
export const parts: Readonly<Record<string, readonly string[]>> = {
  /** The larger part, on the older kernel. */
  kernel: [
    'test/vm/**/*.test.ts',
    'plugins/cgroup-v2/**/*.test.ts',
    'test/e2e/conformance/{runtime,storage,volume}.test.ts',
    'test/e2e/{run,lifecycle,limits,exec,userns,userns-files,apparmor}.test.ts',
    'test/crash/matrix.test.ts',
  ],
  /** What may differ on another kernel. */
  differs: ['test/vm/**/*.test.ts', 'test/e2e/conformance/{runtime,storage}.test.ts', 'test/e2e/{run,limits,userns,apparmor}.test.ts'],
  /** With systemd as pid 1. */
  systemd: ['test/vm/**/*systemd*.test.ts', 'plugins/cgroup-systemd/**/*.test.ts', 'test/e2e/limits.test.ts'],
};
