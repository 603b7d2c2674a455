export { breathe } from './breathe.ts';
export * from './declare.ts';
export * from './runner.ts';
export { whoAsked, type Asked } from './attribution.ts';
export { createRecords, type PluginRecord, type RecordSet } from './records.ts';
export { addSteps, createPlanCollector, type PlanCollector } from './writer.ts';
export { openPhases, openSpan, type Phase, type Trace } from './trace.ts';
