import { fail } from '@engine/core/errors';
import { type ImageConfig } from '@engine/core/contracts/image';
import { posix } from 'node:path';
import { isReservedLabel } from './manifest.ts';

type Mutable = { -readonly [K in keyof ImageConfig]: ImageConfig[K] };

/**
 * `--change` of import and commit: instructions as in a Dockerfile. CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR.
 * Errors: ERR_INVALID_VALUE names the instruction.
 */
export function applyChanges(base: ImageConfig, changes: readonly string[]): ImageConfig {
  const config: Mutable = { ...base };
  for (const change of changes) {
    const match = /^\s*([A-Za-z]+)\s+([^]*?)\s*$/.exec(change);
    const [, name = '', text = ''] = match ?? [];
    const bad = (why: string): Error => fail('ERR_INVALID_VALUE', `cannot apply the change "${change}": ${why}`, { path: change });
    if (!match || text === '') throw bad('it is an instruction and its value, for example: CMD ["sh"]');
    switch (name.toUpperCase()) {
      case 'CMD':
        config.Cmd = command(text, bad);
        break;
      case 'ENTRYPOINT':
        config.Entrypoint = command(text, bad);
        break;
      case 'ENV': {
        const env = new Map((config.Env ?? []).map((item) => [item.split('=', 1)[0] ?? '', item]));
        for (const [key, value] of pairs(text, bad)) env.set(key, `${key}=${value}`);
        config.Env = [...env.values()];
        break;
      }
      case 'LABEL': {
        const added = pairs(text, bad);
        for (const [key] of added) if (isReservedLabel(key)) throw bad('labels that begin with engine. or io.engine. are reserved');
        config.Labels = { ...config.Labels, ...Object.fromEntries(added) };
        break;
      }
      case 'EXPOSE': {
        const ports = words(text, bad).map((port) => {
          if (!/^\d{1,5}(-\d{1,5})?(\/(tcp|udp|sctp))?$/.test(port)) throw bad(`${port} is no port`);
          return port.includes('/') ? port : `${port}/tcp`;
        });
        config.ExposedPorts = { ...config.ExposedPorts, ...Object.fromEntries(ports.map((port) => [port, {}])) };
        break;
      }
      case 'VOLUME': {
        const targets = jsonList(text) ?? words(text, bad);
        for (const target of targets) if (target === '') throw bad('a volume needs a path');
        config.Volumes = { ...config.Volumes, ...Object.fromEntries(targets.map((target) => [target, {}])) };
        break;
      }
      case 'USER':
        config.User = text;
        break;
      case 'WORKDIR':
        config.WorkingDir = posix.resolve('/', config.WorkingDir ?? '/', text);
        break;
      case 'STOPSIGNAL':
        if (!/^(SIG[A-Z0-9+-]+|[A-Z][A-Z0-9+-]*|\d{1,2})$/i.test(text)) throw bad('it is no signal');
        config.StopSignal = text;
        break;
      default:
        throw bad(`${name} is not one of CMD ENTRYPOINT ENV EXPOSE LABEL STOPSIGNAL USER VOLUME WORKDIR`);
    }
  }
  return config;
}

function jsonList(text: string): string[] | undefined {
  if (!text.startsWith('[')) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return Array.isArray(value) && value.every((item) => typeof item === 'string') ? value : undefined;
  } catch {
    return undefined;
  }
}
/** Exec form is JSON; anything else is a line for the shell inside the container, as Docker has it. */
function command(text: string, bad: (why: string) => Error): string[] {
  const list = jsonList(text);
  if (list?.length === 0) throw bad('the list is empty');
  return list ?? ['/bin/sh', '-c', text];
}

/** Words with quotes and backslashes taken off. */
function words(text: string, bad: (why: string) => Error): string[] {
  const out: string[] = [];
  let word: string | undefined;
  let quote = '';
  for (let i = 0; i < text.length; i++) {
    const c = text[i] ?? '';
    if (c === '\\' && quote !== "'" && i + 1 < text.length) word = (word ?? '') + (text[++i] ?? '');
    else if (quote !== '') {
      if (c === quote) quote = '';
      else word = (word ?? '') + c;
    } else if (c === '"' || c === "'") {
      quote = c;
      word ??= '';
    } else if (/\s/.test(c)) {
      if (word !== undefined) out.push(word);
      word = undefined;
    } else word = (word ?? '') + c;
  }
  if (quote !== '') throw bad('a quote is not closed');
  if (word !== undefined) out.push(word);
  return out;
}
/** `k=v k2="v 2"`, or the old form `k v`. */
function pairs(text: string, bad: (why: string) => Error): [string, string][] {
  const list = words(text, bad);
  const [first = ''] = list;
  if (!first.includes('=')) {
    if (list.length < 2) throw bad('a value is missing');
    return [[first, text.slice(first.length).trim()]];
  }
  return list.map((item) => {
    const equals = item.indexOf('=');
    if (equals <= 0) throw bad(`"${item}" is not NAME=VALUE`);
    return [item.slice(0, equals), item.slice(equals + 1)];
  });
}
