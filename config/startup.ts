import { type Span } from '@engine/core/api';

/** When this process had come how far, as `performance.now()` says it. Taking the time costs less than a microsecond. */
export interface Startup {
  /** The program itself was loaded. */
  readonly loaded: number;
  /** Reading the configuration. */
  config?: readonly [from: number, to: number];
}

/** What this process did before the command was served, for `--trace`. */
export function startupSpans({ loaded, config }: Startup): readonly Span[] {
  const origin = process.hrtime.bigint() - BigInt(Math.round(performance.now() * 1e6));
  const span = (name: string, from: number, to: number): Span => ({
    name,
    kind: 'engine',
    track: 'engine',
    begin: origin + BigInt(Math.round(from * 1e6)),
    end: origin + BigInt(Math.round(to * 1e6)),
  });
  const { bootstrapComplete } = performance.nodeTiming;
  const booted = bootstrapComplete > 0 && bootstrapComplete < loaded ? bootstrapComplete : loaded;
  return [
    span('start Node', 0, booted),
    ...(booted < loaded ? [span('load the program', booted, loaded)] : []),
    ...(config ? [span('read the configuration', ...config)] : []),
  ];
}
