export * from './declare.ts';
export * from './runner.ts';
