import { describe, expect, it } from 'vitest';
import { canonicalName, familiarName, parseReference } from './reference.ts';

const digest = `sha256:${'a'.repeat(64)}`;
describe('references', () => {
  it.each([
    ['busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36', 'busybox:1.36'],
    ['user/app', 'docker.io/user/app:latest', 'user/app:latest'],
    ['docker.io/busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['index.docker.io/library/busybox:x', 'docker.io/library/busybox:x', 'busybox:x'],
    ['localhost/busybox', 'localhost/busybox:latest', 'localhost/busybox:latest'],
    ['localhost:5000/a/b/c:T_1.x-y', 'localhost:5000/a/b/c:T_1.x-y', 'localhost:5000/a/b/c:T_1.x-y'],
    ['quay.io/a/b', 'quay.io/a/b:latest', 'quay.io/a/b:latest'],
    ['[::1]:5000/a', '[::1]:5000/a:latest', '[::1]:5000/a:latest'],
    [`busybox@${digest}`, `docker.io/library/busybox@${digest}`, `busybox@${digest}`],
    [`busybox:1@${digest}`, 'docker.io/library/busybox:1', 'busybox:1'],
    ['a__b/c-d.e---f', 'docker.io/a__b/c-d.e---f:latest', 'a__b/c-d.e---f:latest'],
  ])('%s is %s', (text, canonical, familiar) => {
    expect(canonicalName(parseReference(text))).toBe(canonical);
    expect(familiarName(canonical)).toBe(familiar);
  });
  it.each(['', ':', '/', 'A', 'Busybox', 'a//b', '/a', 'a/', 'a:', 'a:.x', 'a:-x', `a:${'x'.repeat(129)}`, 'a@sha256:12', 'a@md5:1', 'a___b', 'a..b', '-a', 'a-', 'a b', 'a\n', 'a:b\0', 'ä', '../a', './a', 'a/../b', 'f'.repeat(64), `${'a/'.repeat(140)}a`, 'a'.repeat(600), 'host:port/a', '-x.io/a', '[::1/a'])('%j is refused', (text) => {
    expect(() => parseReference(text)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_VALUE' }));
  });
  it('is stable: what is canonical parses to itself, and to itself again by its familiar form', () => {
    let seed = 42;
    const random = (n: number): number => (seed = (seed * 1103515245 + 12345) % 2 ** 31) % n;
    const pick = (list: readonly string[]): string => list[random(list.length)] ?? '';
    let valid = 0;
    for (let i = 0; i < 20000; i++) {
      const text = Array.from({ length: 1 + random(7) }, () => pick(['a', 'b0', 'X', '.', '_', '__', '-', '/', ':', '@', 'localhost', 'docker.io', 'library', '5000', digest, 'io'])).join('');
      let canonical: string;
      try {
        canonical = canonicalName(parseReference(text));
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_INVALID_VALUE' });
        continue;
      }
      valid++;
      expect(canonicalName(parseReference(canonical))).toBe(canonical);
      expect(canonicalName(parseReference(familiarName(canonical)))).toBe(canonical);
    }
    expect(valid).toBeGreaterThan(500);
  });
});
