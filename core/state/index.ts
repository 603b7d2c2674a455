export * from './types.ts';
export * from './open.ts';
