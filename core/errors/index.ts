export { catalogue, type CatalogueEntry, type ErrorCode } from './catalogue.ts';
export { describeError, EngineError, exitCodeOf, fail, isEngineError, visible, type ErrorDetails } from './error.ts';
