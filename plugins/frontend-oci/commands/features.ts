import { command } from '../command.ts';

export const featuresCommand = command({
  name: 'features', usage: '', summary: 'print what of the runtime spec works here, as JSON',
  description: 'See https://github.com/opencontainers/runtime-spec/blob/main/features.md.', flags: {}, args: [0, 0],
  async run(context) {
    const features = await (await context.bundles()).features();
    const annotations = { 'engine.version': context.invocation.version, ...(features['annotations'] as object | undefined) };
    await context.print(`${JSON.stringify({ ...features, annotations }, null, 4)}\n`);
    return 0;
  },
});
