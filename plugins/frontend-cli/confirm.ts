import { createInterface } from 'node:readline';
import { type CommandContext } from './command.ts';

/** Ask on the terminal (or wherever standard input comes from); only a `y` is a yes, and no answer is a no. */
export async function askYes(context: CommandContext, question: string): Promise<boolean> {
  await context.print(question);
  const lines = createInterface({ input: context.invocation.stdin, terminal: false });
  try {
    for await (const line of lines) return /^\s*y/i.test(line);
    return false;
  } finally {
    lines.close();
    context.invocation.stdin.pause();
  }
}
