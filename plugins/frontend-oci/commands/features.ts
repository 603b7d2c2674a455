import { command } from '../command.ts';

export const featuresCommand = command({
  name: 'features', usage: '', summary: 'print what of the runtime spec works here, as JSON',
  description: 'See https://github.com/opencontainers/runtime-spec/blob/main/features.md.', flags: {}, args: [0, 0],
  async run(context) {
    await context.print(`${JSON.stringify(await (await context.bundles()).features(), null, 4)}\n`);
    return 0;
  },
});
