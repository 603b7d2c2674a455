export * from './parts.ts';
export { createRegistry } from './registry.ts';
export { createEngine } from './engine.ts';
