/** One engine among several on a root: `node state-worker.ts FOLDER COUNT` reconciles, then makes COUNT things and removes every other. */
import { op, effect } from '@engine/core/plan';
import { openState, type StateOptions } from '@engine/core/state';
import { type ContainerRecord } from '@engine/core/api';
import { createNative } from '@engine/native';

const [folder = '', count = '0'] = process.argv.slice(2);
const state = await openState({ root: `${folder}/root`, runRoot: `${folder}/run`, native: createNative(), log: { warn() {} } as unknown as StateOptions['log'] });
for (const line of await state.reconcile()) console.log(line);
for (let i = 0; i < Number(count); i++) {
  const id = `${process.pid}-${i}`;
  const path = `${folder}/work/${id}`;
  const create = state.begin(`create ${id}`);
  await create.effects('test').run([
    effect(op.mkdir({ path, mode: 0o700 }), op.removeTree({ path })),
    effect(op.writeFile({ path: `${path}/file`, data: Buffer.from('x'), how: 1, mode: 0o600 }), op.unlink({ path: `${path}/file` })),
  ]);
  await create.commit((rows) => rows.insertContainer({ id, name: id, created: '', networks: [], volumes: [] as ContainerRecord['volumes'] } as unknown as ContainerRecord));
  if (i % 2 === 0) continue;
  const trash = `${folder}/work/trash-${id}`;
  const remove = state.begin(`remove ${id}`);
  remove.effects('test').onCommit([effect(op.rename({ from: path, to: trash }), { none: 'a removal' }), effect(op.removeTree({ path: trash }), { none: 'a removal' })]);
  await remove.commit((rows) => rows.deleteContainer(id));
}
console.log(`containers ${state.containers.list().map((record) => record.id).sort().join(' ')}`);
console.log(`orphans ${JSON.stringify(await state.orphans())}`);
state.close();
