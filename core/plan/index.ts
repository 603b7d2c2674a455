export * from './table.ts';
export * from './slots.ts';
export * from './types.ts';
export * from './build.ts';
export * from './encode.ts';
export * from './decode.ts';
export * from './entries.ts';
export * from './protocol.ts';
