/** Writes the C headers of the plan format, from the one table in core, and of the launcher's frames: `node native/ts/generate.ts`. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BITS, ENTRY, FRAME, MAX_DATA, MAX_DEPTH, MAX_PATH, MAX_REGISTERS, NO_REGISTER, OP_FLAGS, operations, parts, PLAN_MAGIC, PLAN_VERSION, SHIM_FD, slotNumber, type OperationEntry } from '@engine/core/plan';
import { ENGINED_FD, ENGINED_FILES, FRONTEND, KEEPER_FILES, LAUNCH, LAUNCH_VERSION, RELAY, SPAWN, TERMINALS } from './launch.ts';

const snake = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`).replace(/[.-]/g, '_');
const upper = (name: string): string => snake(name).replace(/_$/, '_REPLY').toUpperCase();
const cType: Record<string, string> = {
  u32: 'uint32_t', i32: 'int32_t', u64: 'uint64_t', i64: 'int64_t', str: 'struct str', bytes: 'struct bytes', strs: 'struct strs', reg: 'uint32_t', out: 'uint32_t',
};
/** Field names that C keeps for itself. */
const cName = (name: string): string => (['signal', 'link', 'default', 'stdin', 'errno'].includes(name) ? `${name}_` : snake(name));

const prelude = `/* generated from core/plan/table.ts by native/ts/generate.ts: do not edit */
#ifndef ENGINE_GEN_OPERATIONS_H
#define ENGINE_GEN_OPERATIONS_H
#include <stdint.h>
#include <string.h>

struct str { const char *p; uint32_t n; };     /* NUL-terminated */
struct bytes { const uint8_t *p; uint32_t n; };
struct strs { const uint8_t *p; uint32_t count; uint32_t size; }; /* encoded; iterate with strs_next */
struct reader { const uint8_t *p; const uint8_t *end; };

static inline int rd_u32(struct reader *r, uint32_t *v) {
\tif (r->end - r->p < 4) return -1;
\tmemcpy(v, r->p, 4); r->p += 4; return 0;
}
static inline int rd_i32(struct reader *r, int32_t *v) { return rd_u32(r, (uint32_t *)v); }
static inline int rd_u64(struct reader *r, uint64_t *v) {
\tif (r->end - r->p < 8) return -1;
\tmemcpy(v, r->p, 8); r->p += 8; return 0;
}
static inline int rd_i64(struct reader *r, int64_t *v) { return rd_u64(r, (uint64_t *)v); }
static inline int rd_reg(struct reader *r, uint32_t *v) {
\tif (rd_u32(r, v)) return -1;
\treturn *v < MAX_REGISTERS_ || *v == NO_REGISTER_ ? 0 : -1;
}
static inline int rd_span(struct reader *r, uint32_t terminators, const uint8_t **p, uint32_t *n) {
\tif (rd_u32(r, n)) return -1;
\tuint64_t padded = ((uint64_t)*n + terminators + 3) & ~(uint64_t)3;
\tif ((uint64_t)(r->end - r->p) < padded) return -1;
\t*p = r->p; r->p += padded; return 0;
}
static inline int rd_str(struct reader *r, struct str *s) {
\tif (rd_span(r, 1, (const uint8_t **)&s->p, &s->n)) return -1;
\treturn memchr(s->p, 0, (size_t)s->n + 1) == s->p + s->n ? 0 : -1;
}
static inline int rd_bytes(struct reader *r, struct bytes *b) { return rd_span(r, 0, &b->p, &b->n); }
/* Next text of a list; 1 when there is none left. The list was checked when it was read. */
static inline int strs_next(struct strs *l, struct str *s) {
\tif (!l->count) return 1;
\tstruct reader r = { l->p, l->p + l->size };
\tif (rd_str(&r, s)) return 1;
\tl->count--; l->size -= (uint32_t)(r.p - l->p); l->p = r.p; return 0;
}
static inline int rd_strs(struct reader *r, struct strs *l) {
\tuint32_t count;
\tif (rd_u32(r, &count)) return -1;
\tl->p = r->p; l->count = count;
\tfor (uint32_t i = 0; i < count; i++) { struct str s; if (rd_str(r, &s)) return -1; }
\tl->size = (uint32_t)(r->p - l->p); return 0;
}
`.replace('MAX_REGISTERS_', String(MAX_REGISTERS)).replace('NO_REGISTER_', `0x${NO_REGISTER.toString(16)}u`);

function defines(): string[] {
  const lines = [
    `#define PLAN_MAGIC 0x${PLAN_MAGIC.toString(16)}u`, `#define PLAN_VERSION ${PLAN_VERSION}u`, `#define MAX_REGISTERS ${MAX_REGISTERS}`, `#define NO_REGISTER 0x${NO_REGISTER.toString(16)}u`,
    `#define PART_COUNT ${parts.length}`, `#define MAX_DATA ${MAX_DATA}u`, `#define MAX_ENTRY_PATH ${MAX_PATH}u`, `#define MAX_ENTRY_DEPTH ${MAX_DEPTH}u`,
  ];
  const group = (prefix: string, values: Record<string, number>): void => {
    for (const [name, value] of Object.entries(values)) lines.push(`#define ${prefix}_${upper(name)} ${value}u`);
  };
  group('OP_FLAG', OP_FLAGS);
  for (const [name, bits] of Object.entries(BITS)) group(name, bits);
  group('FRAME', FRAME);
  group('ENTRY', ENTRY);
  group('SHIM_FD', SHIM_FD);
  lines.push(`enum part { ${parts.map((part, i) => `PART_${part.toUpperCase()} = ${i}`).join(', ')} };`);
  lines.push(`static const char *const part_names[PART_COUNT] = { ${parts.map((part) => `"${part}"`).join(', ')} };`);
  for (const [slot, number] of slotNumber) lines.push(`#define SLOT_${upper(slot)} ${number}u`);
  return lines;
}

function operation(name: string, entry: OperationEntry): string {
  const fields = Object.entries(entry.fields);
  const kind = (type: string): string => type.replace('?', '');
  const struct = fields.length
    ? `struct op_${snake(name)} {\n${fields.map(([field, type]) => `\t${cType[kind(type)]} ${cName(field)};`).join('\n')}\n};`
    : `struct op_${snake(name)} { char unused; };`;
  const reads = fields.map(([field, type]) => `rd_${kind(type) === 'out' ? 'reg' : kind(type)}(r, &o->${cName(field)})`);
  return `/* ${entry.doc.replaceAll('*/', '* /')} */\n#define OP_${upper(name)} ${entry.code}u\n${struct}\nstatic inline int decode_${snake(name)}(struct reader *r, struct op_${snake(name)} *o) {\n\t${
    reads.length ? `return ${reads.join(' ||\n\t\t')} ? -1 : 0;` : '(void)r; o->unused = 0; return 0;'
  }\n}\n`;
}

const names = Object.entries(operations as Record<string, OperationEntry>);
const header = [
  prelude,
  ...defines(),
  '',
  ...names.map(([name, entry]) => operation(name, entry)),
  `/* X(code constant, snake name) for every operation */\n#define EACH_OPERATION(X) \\\n${names.map(([name]) => `\tX(OP_${upper(name)}, ${snake(name)})`).join(' \\\n')}`,
  '#endif\n',
].join('\n');

const constants = (prefix: string, values: Record<string, number>): string[] => Object.entries(values).map(([name, value]) => `#define ${prefix}_${upper(name)} ${value}u`);
const launcher = [
  '/* generated from native/ts/launch.ts and core/plan/protocol.ts by native/ts/generate.ts: do not edit */',
  '#ifndef ENGINE_GEN_LAUNCH_H',
  '#define ENGINE_GEN_LAUNCH_H',
  `#define LAUNCH_VERSION ${LAUNCH_VERSION}u`,
  ...constants('LAUNCH', LAUNCH),
  ...constants('RELAY', RELAY),
  ...constants('TERMINALS', TERMINALS),
  ...constants('FRONTEND', FRONTEND),
  ...constants('SPAWN', SPAWN),
  ...constants('ENGINED_FD', ENGINED_FD),
  ...Object.entries(ENGINED_FILES).map(([name, value]) => `#define ENGINED_FILE_${upper(name)} ${JSON.stringify(value)}`),
  ...Object.entries(KEEPER_FILES).map(([name, value]) => `#define KEEPER_FILE_${upper(name)} ${JSON.stringify(value)}`),
  ...constants('FRAME', FRAME),
  '#endif\n',
].join('\n');

const folder = join(import.meta.dirname, '..', 'src', 'gen');
mkdirSync(folder, { recursive: true });
for (const [name, text] of [['operations.h', header], ['launch.h', launcher]] as const) {
  const target = join(folder, name);
  let old = '';
  try {
    old = readFileSync(target, 'utf8');
  } catch {
    // first time
  }
  if (old !== text) writeFileSync(target, text);
}
