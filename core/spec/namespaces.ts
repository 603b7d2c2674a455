import { type Linux, type Spec } from './index.ts';

/** Does the container get a namespace of this kind that is made for it, not somebody else's by its path? */
export const ownsNamespace = (spec: Spec | undefined, kind: NonNullable<Linux['namespaces']>[number]['type']): boolean =>
  spec?.linux?.namespaces?.some(({ type, path }) => type === kind && !path) ?? false;
