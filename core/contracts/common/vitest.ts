import { describe, it } from 'vitest';
import { runCase, suitePatience, type Suite, type SuiteContext } from './suite.ts';

/** Show each case of a suite as a test of vitest. */
export function describeSuite<Factory, Context extends SuiteContext>(name: string, suite: Suite<Factory, Context>, factory: Factory, options: { readonly timeout?: number } = {}): void {
  describe(name, () => {
    for (const one of suite.cases) it(one.name, { timeout: (options.timeout ?? 60_000) * suitePatience }, (context) => runCase(suite, one, factory, (reason) => context.skip(reason)));
  });
}
