import { fail } from '@engine/core/errors';

/**
 * An image reference by the grammar of the distribution project:
 *
 *     [domain '/'] path-component ('/' path-component)* [':' tag] ['@' digest]
 *
 * `repository` is always in full (`docker.io/library/busybox`).
 */
export interface Reference {
  readonly repository: string;
  readonly tag?: string;
  readonly digest?: string;
}

const DOMAIN = /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?$/;
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const SHA256 = /^sha256:[0-9a-f]{64}$/;
/** Longest repository name, bytes, as the distribution project has it. */
const MAX_NAME = 255;

export function isDigest(text: unknown): text is string {
  return typeof text === 'string' && SHA256.test(text);
}
/** May `text` stand behind the colon of a name? */
export function isTag(text: string): boolean {
  return TAG.test(text);
}

/** Parse and normalise. `docker.io` and `library/` are filled in as Docker does. Errors: ERR_INVALID_VALUE. */
export function parseReference(text: string): Reference {
  const bad = (why: string): Error => fail('ERR_INVALID_VALUE', `invalid image reference "${text}": ${why}`, { path: text });
  if (text === '') throw bad('it is empty');
  if (text.length > 512) throw bad('it is too long');
  if (/^[0-9a-f]{64}$/.test(text)) throw bad('64 hexadecimal digits are an id, not a name');
  let rest = text;
  let digest: string | undefined;
  let tag: string | undefined;
  const at = rest.indexOf('@');
  if (at >= 0) {
    digest = rest.slice(at + 1);
    rest = rest.slice(0, at);
    if (!isDigest(digest)) throw bad('the digest is not sha256: and 64 lower-case hexadecimal digits');
  }
  const colon = rest.lastIndexOf(':');
  if (colon > rest.lastIndexOf('/')) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
    if (!TAG.test(tag)) throw bad('a tag has up to 128 letters, digits, _ . - and does not begin with . or -');
  }
  const slash = rest.indexOf('/');
  const first = slash < 0 ? '' : rest.slice(0, slash);
  let domain = 'docker.io';
  let path = rest;
  if (slash >= 0 && (/[.:]/.test(first) || first === 'localhost' || first.toLowerCase() !== first)) {
    domain = first === 'index.docker.io' ? 'docker.io' : first;
    path = rest.slice(slash + 1);
    if (!DOMAIN.test(domain)) throw bad('the registry is not a host name with an optional port');
  }
  if (domain === 'docker.io' && !path.includes('/')) path = `library/${path}`;
  if (path.toLowerCase() !== path) throw bad('a repository name is lower case');
  for (const component of path.split('/')) {
    if (!COMPONENT.test(component)) throw bad('a repository name has parts of a-z 0-9, joined by . _ __ or -');
  }
  const repository = `${domain}/${path}`;
  if (repository.length > MAX_NAME) throw bad(`a repository name has at most ${MAX_NAME} characters`);
  return { repository, ...(tag === undefined ? {} : { tag }), ...(digest === undefined ? {} : { digest }) };
}

/** `docker.io/library/busybox:latest`: in full, with `:latest` where neither tag nor digest is given. */
export function canonicalName(reference: Reference): string {
  const { repository, tag, digest } = reference;
  if (tag === undefined && digest !== undefined) return `${repository}@${digest}`;
  return `${repository}:${tag ?? 'latest'}`;
}

/** What Docker shows: without `docker.io/` and `library/`. */
export function familiarName(canonical: string): string {
  if (!canonical.startsWith('docker.io/')) return canonical;
  const path = canonical.slice('docker.io/'.length);
  return path.startsWith('library/') ? path.slice('library/'.length) : path;
}
