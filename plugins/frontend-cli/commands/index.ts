import { type Command } from '../command.ts';
import { historyCommand, imagesCommand, importCommand, loadCommand, rmiCommand, tagCommand } from './images.ts';
import { containerInspectCommand, diffCommand, imageInspectCommand, inspectCommand, networkInspectCommand, volumeInspectCommand } from './inspect.ts';
import { attachCommand, execCommand, killCommand, pauseCommand, rmCommand, startCommand, restartCommand, stopCommand, unpauseCommand, waitCommand } from './lifecycle.ts';
import { logsCommand, psCommand } from './list.ts';
import { networkConnectCommand, networkCreateCommand, networkDisconnectCommand, networkListCommand, networkPruneCommand, networkRemoveCommand, networkWhyCommand } from './network.ts';
import { portCommand } from './port.ts';
import { statsCommand } from './stats.ts';
import { topCommand } from './top.ts';
import { updateCommand } from './update.ts';
import { createCommand, runCommand } from './run.ts';
import { doctorCommand, infoCommand, versionCommand, volumeCreateCommand, volumeListCommand, volumeRemoveCommand } from './system.ts';

/** In the order of the help. */
export const commands: readonly Command[] = [
  runCommand, createCommand, startCommand, stopCommand, restartCommand, killCommand, pauseCommand, unpauseCommand, updateCommand, rmCommand, psCommand, statsCommand, topCommand, logsCommand, execCommand, attachCommand, waitCommand, inspectCommand, diffCommand, portCommand,
  imagesCommand, loadCommand, importCommand, tagCommand, rmiCommand, historyCommand,
  volumeCreateCommand, volumeListCommand, volumeInspectCommand, volumeRemoveCommand,
  networkCreateCommand, networkListCommand, networkInspectCommand, networkRemoveCommand, networkPruneCommand, networkConnectCommand, networkDisconnectCommand, networkWhyCommand,
  infoCommand, doctorCommand, versionCommand, containerInspectCommand, imageInspectCommand,
];

const byName = new Map<string, Command>(commands.flatMap((command) => [command.name, ...(command.aliases ?? [])].map((name) => [name, command] as const)));
/** `engine container run` is `engine run`, as in Docker. */
for (const command of [runCommand, createCommand, startCommand, stopCommand, restartCommand, killCommand, pauseCommand, unpauseCommand, updateCommand, rmCommand, statsCommand, topCommand, logsCommand, execCommand, attachCommand, waitCommand, diffCommand, portCommand]) byName.set(`container ${command.name}`, command);

export const groups: ReadonlySet<string> = new Set([...byName.keys()].filter((name) => name.includes(' ')).map((name) => name.slice(0, name.indexOf(' '))));
export const findCommand = (name: string): Command | undefined => byName.get(name);
export const commandNames = (): readonly string[] => [...byName.keys()];
