import { describe, expect, it } from 'vitest';
import { type DeviceRule } from '../../spec/index.ts';
import { groupRequest } from '../adapters.ts';
import { bundleDevices } from './devices.ts';
import { request } from '../engine.fixture.ts';

const text = ({ allow, type = 'a', major = -1, minor = -1, access = 'rwm' }: DeviceRule): string => `${allow ? '+' : '-'}${type} ${major}:${minor} ${access}`.replaceAll('-1', '*');
const always = ['+c *:* m', '+b *:* m', '+c 1:3 rwm', '+c 1:5 rwm', '+c 1:7 rwm', '+c 1:8 rwm', '+c 1:9 rwm', '+c 5:0 rwm', '+c 5:2 rwm', '+c 136:* rwm'];
const list = (rules?: DeviceRule[] | null): string[] => bundleDevices(rules).map(text);

describe('device rules of a bundle', () => {
  it('are runc\'s where it has none', () => {
    for (const none of [undefined, null, []]) expect(list(none)).toEqual(['-a *:* rwm', ...always]);
  });
  it('go before what is allowed in any case', () => {
    expect(list([{ allow: true, type: 'c', major: 1, minor: 11, access: 'r' }])).toEqual(['-a *:* rwm', '+c 1:11 r', ...always]);
    expect(list([{ allow: true }, { allow: false }])).toEqual(['+a *:* rwm', '-a *:* rwm', ...always]);
  });
  it('that allow everything stay so, but for denials that are taken back', () => {
    expect(list([{ allow: true }])).toEqual(['+a *:* rwm']);
    expect(list([{ allow: true }, { allow: false, type: 'c', major: 1, minor: 11 }, { allow: false, type: 'c', major: 1, minor: 3 }])).toEqual(['+a *:* rwm', '-c 1:11 rwm', '-c 1:3 rwm', '+c 1:3 rwm']);
    expect(list([{ allow: true }, { allow: false, type: 'b' }]).slice(2)).toEqual(['+b *:* m']);
  });
  it('are for bundles alone', () => {
    const spec = { ociVersion: '1', process: { cwd: '/', user: {} } };
    expect(groupRequest({ request: request() }, spec).resources).toEqual({});
    expect(groupRequest({ request: request({ bundle: '/b' }) }, spec).resources.devices).toHaveLength(11);
  });
});
