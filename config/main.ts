import { start } from './program.ts';

void start();
