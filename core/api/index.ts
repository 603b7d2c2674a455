export * from './types.ts';
export * from './engine.ts';
export * from './values.ts';
export * from './bundles.ts';
