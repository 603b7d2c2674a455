import { randomBytes, randomInt } from 'node:crypto';
import { fail } from '../errors/index.ts';

const adjectives = 'able agile amber brave bright calm clever cosmic crisp curious daring eager early fair fancy fast fine fond free gentle glad golden happy hardy honest jolly keen kind light lively loyal lucky merry mild modest neat nimble noble patient plain proud quick quiet rapid ready sharp silent simple smart smooth solid steady sunny swift tidy vivid warm wise witty zesty'.split(' ');
const nouns = 'anchor arrow badger beacon birch bison bridge brook canyon cedar cliff comet condor coral crane delta dune eagle ember falcon fern finch fjord fox gecko glacier grove harbor hawk heron island jaguar kestrel lagoon lark lemur lynx maple marten meadow meteor orbit osprey otter panda pebble pine planet plover prairie puffin quartz raven reef river robin sparrow spruce swan tiger trout tundra valley walrus willow wombat'.split(' ');

/** 64 hex digits. */
export function newId(): string {
  return randomBytes(32).toString('hex');
}
/** 16 hex digits: a run, an exec, a transaction's token. */
export function newRunId(): string {
  return randomBytes(8).toString('hex');
}

/** A name nobody has yet: `brave_otter`; of so many characters, where such a one is soon found. */
export function randomName(length: number | undefined, isTaken: (name: string) => boolean): string {
  for (let i = 0; i < 50 && length !== undefined; i++) {
    const name = `${adjectives[randomInt(adjectives.length)]}_${nouns[randomInt(nouns.length)]}`;
    if (name.length === length && !isTaken(name)) return name;
  }
  for (let i = 0; ; i++) {
    const name = `${adjectives[randomInt(adjectives.length)]}_${nouns[randomInt(nouns.length)]}${i < 5 ? '' : randomInt(10 ** Math.min(i, 9))}`;
    if (!isTaken(name)) return name;
  }
}

/** Errors: ERR_INVALID_VALUE. */
export function checkName(kind: 'container' | 'volume' | 'network', name: string): void {
  if (!(kind === 'network' ? /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/ : /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/).test(name) || name.length > 255) {
    throw fail('ERR_INVALID_VALUE', `invalid ${kind} name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`, { path: name, ...(name.length < 2 ? { hint: 'it takes two characters at least' } : name.length > 255 ? { hint: 'it may have 255 characters' } : {}) });
  }
}
