import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { schema } from '../schema.ts';

// Publishes the schema for editors; sources.test.ts compares.
const file = join(import.meta.dirname, '../enginerc.schema.json');
const text = `${JSON.stringify(schema, null, 2)}\n`;
let old = '';
try {
  old = readFileSync(file, 'utf8');
} catch {}
if (old !== text) writeFileSync(file, text);
