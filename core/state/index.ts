export * from './types.ts';
export { instanceOf, instanceOfReal, openState, type StateOptions } from './open.ts';
export { checkpointNames, recordPoints, type Checkpoint, type RecordPoint } from './points.ts';
export { describeFailure, operationFailed, readFailure, stepsOf, type Failure } from './helper.ts';
export { errnoName } from './files.ts';
