import { fail } from '../errors/index.ts';
import { step } from '../plan/build.ts';
import { orderSteps } from '../plan/encode.ts';
import { type Slot } from '../plan/slots.ts';
import { type Operation, type OperationName, type Origin, type PlannedStep, type Step, type UndoArgument } from '../plan/types.ts';
import { whoAsked, type Asked } from './attribution.ts';
import { type PlanWriter } from './declare.ts';

/** Collects the steps of one plan, each with who wrote it. One per run or exec. */
export interface PlanCollector {
  /** A writer whose steps are blamed on `plugin` and `hook`. `isOpen`: false once the tap it was made for has ended. */
  writer(plugin: string, hook: string, isOpen?: () => boolean): PlanWriter;
  /** In the order they will run. */
  steps(): readonly PlannedStep[];
  /** From now on nothing can be added (hook `beforeStart`). */
  close(): void;
}

/** `asked`: from the waterfall over the spec, so that a step names the plugin that asked for it too. */
export function createPlanCollector(options: { readonly asked?: Asked } = {}): PlanCollector {
  const steps: PlannedStep[] = [];
  let closed = false;

  const originOf = (plugin: string, hook: string, pointer?: string): Origin => {
    const asked = pointer === undefined || !options.asked?.size ? undefined : whoAsked(options.asked, pointer);
    return { plugin, hook, ...(pointer === undefined ? {} : { pointer }), ...(asked === undefined || asked === plugin ? {} : { asked }) };
  };
  const writer = (plugin: string, hook: string, isOpen: () => boolean, pointer?: string): PlanWriter => {
    let origin: Origin | undefined;
    return {
      add<S extends Slot, N extends OperationName>(slot: S, operation: Operation<N>, ...undo: UndoArgument<S, N>): void {
        if (closed || !isOpen()) {
          throw fail('ERR_NOT_SUPPORTED', `plugin ${plugin} adds ${operation.name} to ${slot} after ${closed ? 'the plan was finished' : `its tap on ${hook} has ended`}`, { plugin, operation: hook });
        }
        steps.push({ ...step(slot, operation, ...undo), origin: (origin ??= originOf(plugin, hook, pointer)) });
      },
      at: (to) => writer(plugin, hook, isOpen, to),
    };
  };
  return {
    writer: (plugin, hook, isOpen = () => true) => writer(plugin, hook, isOpen),
    steps: () => orderSteps(steps),
    close: () => void (closed = true),
  };
}

/** Add what a driver's plan method returned. */
export function addSteps(plan: PlanWriter, steps: readonly Step[]): void {
  const add = plan.add as (slot: Slot, operation: Operation, undo?: readonly Operation[] | { readonly none: string }) => void;
  for (const { slot, operation, undo, noUndo } of steps) add(slot, operation, noUndo === undefined ? undo : { none: noUndo });
}
