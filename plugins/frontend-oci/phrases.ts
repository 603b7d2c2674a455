import { catalogue, isEngineError, type EngineError, type ErrorCode } from '@engine/core/errors';

/**
 * The kernel's words for an errno as Go prints them: dockerd, podman and containerd look for some of them (`permission denied` is exit code 126 of `docker run`, `no such file or
 * directory` 127).
 */
const WORDS: Readonly<Record<string, string>> = {
  EPERM: 'operation not permitted', ENOENT: 'no such file or directory', ESRCH: 'no such process', EINTR: 'interrupted system call', EIO: 'input/output error', ENXIO: 'no such device or address', E2BIG: 'argument list too long',
  ENOEXEC: 'exec format error', EBADF: 'bad file descriptor', ECHILD: 'no child processes', EAGAIN: 'resource temporarily unavailable', ENOMEM: 'cannot allocate memory', EACCES: 'permission denied', EFAULT: 'bad address', EBUSY: 'device or resource busy',
  EEXIST: 'file exists', EXDEV: 'invalid cross-device link', ENODEV: 'no such device', ENOTDIR: 'not a directory', EISDIR: 'is a directory', EINVAL: 'invalid argument', ENFILE: 'too many open files in system', EMFILE: 'too many open files',
  ETXTBSY: 'text file busy', EFBIG: 'file too large', ENOSPC: 'no space left on device', ESPIPE: 'illegal seek', EROFS: 'read-only file system', EMLINK: 'too many links', EPIPE: 'broken pipe', ERANGE: 'numerical result out of range',
  ENAMETOOLONG: 'file name too long', ENOSYS: 'function not implemented', ENOTEMPTY: 'directory not empty', ELOOP: 'too many levels of symbolic links', EOVERFLOW: 'value too large for defined data type', EOPNOTSUPP: 'operation not supported', ENOTSUP: 'operation not supported',
  ECONNREFUSED: 'connection refused', ECONNRESET: 'connection reset by peer', ENOTSOCK: 'socket operation on non-socket', EPROTOTYPE: 'protocol wrong type for socket', ETIMEDOUT: 'connection timed out', EUSERS: 'too many users', EDQUOT: 'disk quota exceeded', ESTALE: 'stale file handle',
};
export const errnoWords = (errno: string): string => WORDS[errno] ?? errno;

/**
 * What callers look for in the words of runc 1.1, by code and by what was being done. containerd: `does not exist`, `container not running`, `process already finished`; podman:
 * `does not exist`, `executable file not found in`, `no such file or directory`; Nomad: `create failed: container with id exists:`.
 */
const PHRASES: Partial<Record<ErrorCode, string | Readonly<Record<string, string>>>> = {
  ERR_NO_SUCH_CONTAINER: 'container does not exist',
  ERR_NAME_TAKEN: 'container with given ID already exists',
  ERR_NOT_RUNNING: { exec: 'cannot exec in a stopped container', kill: 'container not running', pause: 'container not running', resume: 'container not paused', update: 'container not running', checkpoint: 'container not running' },
  ERR_PAUSED: { exec: 'cannot exec in a paused container (use --ignore-paused to override)', pause: 'container not running', start: 'cannot start a container in the paused state' },
  ERR_NOT_PAUSED: 'container not paused',
  ERR_EXEC_NOT_FOUND: 'unable to start container process',
  ERR_EXEC_FAILED: 'unable to start container process',
};
/** Codes whose phrase says what goes wrong in front of our words; of the others it follows them, unless they have it in them. */
const LEADING: ReadonlySet<ErrorCode> = new Set(['ERR_EXEC_NOT_FOUND', 'ERR_EXEC_FAILED']);

function phraseOf({ code, operation = '' }: EngineError): string | undefined {
  const found = PHRASES[code];
  if (found === undefined || typeof found === 'string') return found;
  return found[operation] ?? found[''];
}

function words(error: EngineError): string {
  let text = error.message;
  const { errno } = error;
  // a folder is not permitted to runc, which is exit code 126 of docker run
  if (LEADING.has(error.code)) return errno === 'EISDIR' ? `${text}: ${errnoWords('EACCES')}` : text;
  // a program that failed has said so: the errno is ours alone
  if (errno !== undefined && errno !== 'EREMOTEIO' && !text.includes(errnoWords(errno))) text = text.includes(errno) ? text.replace(errno, errnoWords(errno)) : `${text}: ${errnoWords(errno)}`;
  if (error.plugin !== undefined && !text.includes(`plugin ${error.plugin}`)) text += ` [plugin ${error.plugin}]`;
  if (error.cause !== undefined) {
    const cause = isEngineError(error.cause) ? words(error.cause) : error.cause instanceof Error ? error.cause.message : String(error.cause);
    if (!text.includes(cause)) text += `: ${cause}`;
  }
  return text;
}

/** One line for the caller: its phrase, our words, a hint that is about this failure (those of the catalogue are about `engine`). */
export function messageOf(error: unknown): string {
  if (!isEngineError(error)) return error instanceof Error ? error.message : String(error);
  const phrase = phraseOf(error);
  let text = error.code === 'ERR_NO_SUCH_CONTAINER' && error.path !== undefined ? `${phrase}: ${error.path}` : words(error);
  if (phrase !== undefined && !text.includes(phrase)) text = LEADING.has(error.code) ? `${phrase}: ${text}` : `${text}: ${phrase}`;
  const own = error.hint !== '' && error.hint !== (catalogue as Readonly<Record<string, { readonly hint: string } | undefined>>)[error.code]?.hint;
  return own ? `${text}; ${error.hint}` : text;
}
