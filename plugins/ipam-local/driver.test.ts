import assert from 'node:assert/strict';
import { it } from 'vitest';
import { createLocalIpam } from './driver.ts';

it('is there', () => assert.ok(createLocalIpam));
