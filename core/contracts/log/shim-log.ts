import * as fs from 'node:fs';
import { join } from 'node:path';

/** Writes a log as the shim does: CRI lines, rotated between lines. */
export class ShimLog {
  readonly #folder: string;
  readonly #files: number;
  #second = 0;

  constructor(folder: string, files = 3) {
    this.#folder = folder;
    this.#files = files;
    fs.mkdirSync(folder, { recursive: true });
  }
  /** The time of the next line: a second after the one before. */
  static time(second: number): string {
    return `${new Date(Date.UTC(2026, 0, 1) + second * 1000).toISOString().slice(0, -1)}000001Z`;
  }
  /** Text without newline. Tag `P`: the line goes on. */
  write(text: string | readonly string[], stream: 'stdout' | 'stderr' = 'stdout', tag = 'F'): void {
    const lines = (typeof text === 'string' ? [text] : text).map((one) => `${ShimLog.time(this.#second++)} ${stream} ${tag} ${one}\n`);
    fs.appendFileSync(join(this.#folder, 'container.log'), lines.join(''));
  }
  raw(bytes: string): void {
    fs.appendFileSync(join(this.#folder, 'container.log'), bytes);
  }
  rotate(): void {
    const name = (i: number): string => join(this.#folder, i === 0 ? 'container.log' : `container.log.${i}`);
    if (this.#files === 1) return fs.truncateSync(name(0));
    for (let i = this.#files - 1; i > 0; i--) if (fs.existsSync(name(i - 1))) fs.renameSync(name(i - 1), name(i));
    fs.writeFileSync(name(0), '');
  }
}
