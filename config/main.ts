import { end, start } from './program.ts';

void start().then(() => end());
