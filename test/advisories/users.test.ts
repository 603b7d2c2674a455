/** Who a program runs as, when the words or the image's databases are hostile. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Attack } from './attack.ts';

let engine: Attack;
let resident: string;
beforeAll(async () => {
  engine = new Attack();
  await engine.image('plain');
  resident = (await engine.ok('run', '-d', 'plain', 'sleep', '1000')).trim();
});
afterAll(async () => expect(await engine.close()).toEqual([]));

const ids = 'id -u; id -g; id -G';
/** Never root by mistake: either refused, or these ids. */
async function as(...args: string[]): Promise<string> {
  const { code, stdout } = await engine.run([...args, 'sh', '-c', ids]);
  return code === 0 ? stdout.trim().replaceAll('\n', '|') : code === 125 || code === 126 ? 'refused' : `code ${code ?? ''}`;
}

describe('CVE-2024-40635, CVE-2026-47262: ids beyond uint32 become root', () => {
  it('are refused by run and exec', async () => {
    const users = ['4294967295', '4294967296', '4294967296:0', '1:4294967296', '18446744073709551616', '-1', '-4294967296', '1:-1', '+0', '0x0', '1e3', ' 0', '00000000000000000000004294967296'];
    const got = await Promise.all(users.map((user, i) => (i % 2 ? as('run', '--rm', '-u', user, 'plain') : as('exec', '-u', user, resident))));
    expect(Object.fromEntries(users.map((user, i) => [user, got[i]]))).toEqual(Object.fromEntries(users.map((user) => [user, 'refused'])));
  });
  it('the largest id is itself, and USER of an image is held to the same', async () => {
    expect(await as('run', '--rm', '-u', '4294967294:4294967294', 'plain')).toBe('4294967294|4294967294|4294967294');
    await engine.image('overflow', [], ['USER 4294967296:4294967296']);
    const refused = [as('run', '--rm', 'overflow'), ...['4294967296', '-1', 'nope', '1:2'].map((group) => as('run', '--rm', '--group-add', group, '-u', 'app', 'plain'))];
    expect(await Promise.all(refused)).toEqual(refused.map(() => 'refused'));
  });
});

describe('CVE-2026-30892: the words of exec -u', () => {
  it('mean what they say or are refused: properties over many words', async () => {
    const words = ['app', 'root', '1000', '0', 'app:', ':app', 'app:app', 'app:extra', 'app:2000', 'app:0', '1000:root', '4242', '4242:4343', ':', '::', 'app::', 'app:app:app', 'ap', 'appx', 'APP', 'app ', ' app', 'app\n', 'root\n:0', '', 'app,root', 'app:extra,root', '../root', '1000.0', '1000root', '0app', 'nobody', '*', 'r\u00f6ot', 'x'.repeat(5000)];
    const known: Record<string, string> = { app: '1000|1000|1000 2000', root: '0|0|0', 1000: '1000|1000|1000 2000', 0: '0|0|0', 'app:': '1000|1000|1000 2000', ':app': '0|1000|1000', 'app:app': '1000|1000|1000', 'app:extra': '1000|2000|2000', 'app:2000': '1000|2000|2000', 'app:0': '1000|0|0', '1000:root': '1000|0|0', 4242: '4242|0|0', '4242:4343': '4242|4343|4343', '': '0|0|0' };
    const got: Record<string, string> = {};
    await Promise.all(words.map(async (word) => (got[word] = await as('exec', '-u', word, resident))));
    for (const word of words) expect([known[word] ?? 'refused', 'refused'], `${JSON.stringify(word)} ran as ${got[word] ?? ''}`).toContain(got[word]);
    for (const word of ['app', '1000', '4242', 'app:extra', '4242:4343']) expect(got[word]).toBe(known[word]);
  });
});

describe('hostile /etc/passwd and /etc/group', () => {
  const line = (name: string, uid: string, gid = '1000'): string => `${name}:x:${uid}:${gid}::/home:/bin/sh\n`;
  const cases: Record<string, { passwd?: string | Buffer; group?: string | Buffer; user: string; expected: RegExp }> = {
    'negative and overflowing ids': { passwd: `${line('app', '-1')}${line('app', '4294967296')}${line('app', '0x0')}${line('app', '')}${line('app', ' 0')}${line('app', '0', '-1')}`, user: 'app', expected: /^refused$/ },
    'a name that is a number': { passwd: line('1000', '0', '0'), user: '1000', expected: /^(1000\|0\|0|refused)$/ },
    'lines without fields, comments, nothing': { passwd: `app\napp:\n:app:0:0\n#app:x:0:0::/:/\n\n::::::\n\r\n`, user: 'app', expected: /^refused$/ },
    'binary content': { passwd: Buffer.concat([Buffer.alloc(70_000, 0), Buffer.from('app:x:0:0::/:/\n\0app:x:0:0::/:/\n'), Buffer.from([0xff, 0xfe, 0x0a]), Buffer.from(line('app', '1000'))]), user: 'app', expected: /^(1000\|1000\|1000( 2000)?|refused|0\|0\|0)$/ },
    'one line of 8 MB': { passwd: `app:x:${'0'.repeat(8 << 20)}:0::/:/\n${line('app', '1000')}`, user: 'app', expected: /^(1000\|1000\|1000( 2000)?|0\|0\|0( 2000)?|refused)$/ },
    'too large by far': { passwd: Buffer.alloc(17 << 20, 'x'), user: 'app', expected: /^refused$/ },
    'more groups than the kernel takes': { group: Array.from({ length: 70_000 }, (_, i) => `g${i}:x:${i + 1}:app\n`).join(''), user: 'app', expected: /^refused$/ },
    'a group of a million members': { group: `big:x:77:${'root,'.repeat(1_000_000)}app\n`, user: 'app', expected: /^1000\|1000\|1000 77$/ },
    'groups that are no numbers': { group: 'a:x:-1:app\nb:x:4294967295:app\nc:x:4294967296:app\nd:x::app\ne:x:0x10:app\nf:x:5:app', user: 'app', expected: /^1000\|1000\|1000 5$/ },
  };
  it('are answered by a refusal or the right ids', async () => {
    const names = Object.keys(cases);
    await Promise.all(names.map(async (name, i) => {
      const { passwd, group, user, expected } = cases[name] ?? { user: '', expected: /./ };
      await engine.image(`databases${i}`, [...(passwd === undefined ? [] : [{ path: 'etc/passwd', content: passwd }]), ...(group === undefined ? [] : [{ path: 'etc/group', content: group }])]);
      expect(await as('run', '--rm', '-u', user, `databases${i}`), name).toMatch(expected);
    }));
  });
  it('as fifo, device, folder or link out of the image they are refused at once', async () => {
    const entries = [{ type: '6' }, { type: '3', major: 1, minor: 5 }, { type: '5' }, { type: '2', link: '../../../../../../../etc/shadow' }, { type: '2', link: '/proc/self/fd/0' }, { type: '2', link: 'passwd' }];
    await Promise.all(entries.map(async (entry, i) => {
      await engine.image(`odd${i}`, [{ path: 'etc/passwd', ...entry }]);
      expect(await as('run', '--rm', '-u', 'app', `odd${i}`), JSON.stringify(entry)).toBe('refused');
    }));
    // control: the same image with a plain file does give a user
    expect(await as('run', '--rm', '-u', 'app', 'plain')).toBe('1000|1000|1000 2000');
  });
  it('a container that replaces them while it runs fools nobody', async () => {
    const container = (await engine.ok('run', '-d', 'plain', 'sh', '-c', 'rm /etc/passwd; mkfifo /etc/passwd 2>/dev/null || ln -s /proc/self/fd/0 /etc/passwd; sleep 1000')).trim();
    expect(await as('exec', '-u', 'app', container)).toBe('refused');
    expect(await as('exec', '-u', '1000:1000', container)).toMatch(/^(1000\|1000\|1000|refused)$/);
    await engine.ok('rm', '-f', container);
  });
});
