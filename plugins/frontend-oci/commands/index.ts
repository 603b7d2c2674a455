import { type Command } from '../command.ts';
import { checkpointCommand, restoreCommand } from './checkpoint.ts';
import { createCommand, runCommand } from './create.ts';
import { eventsCommand } from './events.ts';
import { execCommand } from './exec.ts';
import { featuresCommand } from './features.ts';
import { deleteCommand, killCommand, pauseCommand, resumeCommand, startCommand, stateCommand } from './lifecycle.ts';
import { listCommand } from './list.ts';
import { psCommand } from './ps.ts';
import { specCommand } from './spec.ts';
import { updateCommand } from './update.ts';

/** In the order of the help. */
export const commands: readonly Command[] = [
  createCommand, startCommand, runCommand, stateCommand, listCommand, execCommand, psCommand, killCommand, deleteCommand, pauseCommand, resumeCommand, updateCommand, eventsCommand, checkpointCommand, restoreCommand, specCommand, featuresCommand,
];
export const findCommand = (name: string): Command | undefined => commands.find((one) => one.name === name);
