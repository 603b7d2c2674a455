import { defineLibrary } from '@engine/native/library';

const OPOST = 0x1;
const TCSANOW = 0;

/**
 * Put the terminal in raw mode as cfmakeraw(3) does it; returns what puts it back. Node's own raw mode lets the terminal go on turning
 * "\n" into "\r\n", which the terminal of the container has done already.
 */
export function makeRaw(stdin: NodeJS.ReadStream): () => void {
  stdin.setRawMode(true);
  try {
    const libc = defineLibrary('libc.so.6', {
      tcgetattr: { args: ['int', 'bytes'], result: 'int' },
      tcsetattr: { args: ['int', 'int', 'bytes'], result: 'int' },
    });
    const termios = Buffer.alloc(64); // struct termios: c_iflag, c_oflag, …; 60 bytes
    if (libc.tcgetattr(0, termios).value === 0) {
      termios.writeUInt32LE(termios.readUInt32LE(4) & ~OPOST, 4);
      libc.tcsetattr(0, TCSANOW, termios);
    }
  } catch {
    // no libc of that name: a "\r" more does no harm
  }
  return () => void stdin.setRawMode(false);
}
