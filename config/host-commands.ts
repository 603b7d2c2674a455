import { type HostCommand } from '@engine/core/contracts/frontend';
import { type Flags } from './ambient.ts';

/** What the host program brings to any frontend: commands that load no plugin code, so that a broken one can be repaired. */
export function hostCommands(context: { readonly flags: Flags }): HostCommand[] {
  return [
    {
      name: 'config',
      usage: 'config [--host NAME] [--json]',
      summary: 'print the configuration and where each value comes from',
      run: async (argv) => (await import('./config-commands.ts')).runConfig(argv, context.flags),
    },
    {
      name: 'trust',
      usage: 'trust [--remove] [--system] [DIR] | trust --list',
      summary: 'let the .enginerc of a folder load plugins and lower security',
      run: async (argv) => (await import('./config-commands.ts')).runTrust(argv),
    },
    {
      name: 'plugin',
      usage: 'plugin ls | new NAME [--contract NAME] | check DIR',
      summary: 'list, start and check plugins',
      run: async (argv) => (await import('./plugin-commands.ts')).runPlugin(argv, context.flags),
    },
  ];
}
