/** One entry of the catalogue. `hint` says what to change; an empty hint means the message says it all. */
export interface CatalogueEntry {
  readonly summary: string;
  readonly hint: string;
  /** Exit code of the command line when this error ends it (Docker's convention: 125 is the engine's own failure). */
  readonly exitCode: number;
}

const entry = (summary: string, hint = '', exitCode = 125): CatalogueEntry => ({ summary, hint, exitCode });

/**
 * Every error code there is. A code is never reused and never renamed; `docs/errors.md` is held against this table by a test.
 * Order: input, objects, plan and native, drivers, plugins, configuration, machine.
 */
export const catalogue = {
  ERR_USAGE: entry('the command line is wrong', 'see --help'),
  ERR_INVALID_VALUE: entry('a value is not valid'),
  ERR_NOT_SUPPORTED: entry('this cannot be done here'),
  ERR_DENIED: entry('a policy refused the request'),
  ERR_NO_SUCH_CONTAINER: entry('no such container', 'see: engine ps -a', 1),
  ERR_NO_SUCH_IMAGE: entry('no such image', 'load one with: engine load -i FILE'),
  ERR_NO_SUCH_VOLUME: entry('no such volume', 'see: engine volume ls', 1),
  ERR_NO_SUCH_NETWORK: entry('no such network'),
  ERR_NO_SUCH_PORT: entry('nobody has published this port', 'see: engine ps', 1),
  ERR_PORT_TAKEN: entry('a port of the host is in use', 'publish another port, or end whoever has it'),
  ERR_ADDRESS_TAKEN: entry('an address is in use', 'choose another --ip'),
  ERR_NO_ADDRESS: entry('no address is free', 'remove containers, or make a network with a larger --subnet'),
  ERR_SUBNET_TAKEN: entry('a subnet overlaps with another one', 'choose another --subnet'),
  ERR_NO_SUCH_EXEC: entry('no such exec session', '', 1),
  ERR_AMBIGUOUS: entry('more than one object matches', 'give more of the id', 1),
  ERR_NAME_TAKEN: entry('the name is in use', 'choose another --name or remove the container that has it'),
  ERR_IN_USE: entry('the object is in use', 'remove what uses it first, or use --force', 1),
  ERR_NOT_RUNNING: entry('the container is not running', 'start it with: engine start', 1),
  ERR_ALREADY_RUNNING: entry('the container is running already', 'stop it first', 1),
  ERR_PAUSED: entry('the container is paused', 'unpause it first', 1),
  ERR_NOT_PAUSED: entry('the container is not paused', '', 1),
  ERR_BUSY: entry('another operation on the same object takes too long', 'try again'),
  ERR_TIMEOUT: entry('it took too long'),
  ERR_PLAN_INVALID: entry('a plan is malformed'),
  ERR_PLAN_VERSION: entry('a plan was written by an engine this one cannot read'),
  ERR_SECTION_UNOWNED: entry('no plugin compiles a section of the OCI spec', 'load a plugin that declares this section'),
  ERR_OPERATION_FAILED: entry('an operation of the plan failed'),
  ERR_EXEC_NOT_FOUND: entry('the command was not found in the container', '', 127),
  ERR_EXEC_FAILED: entry('the command cannot be executed', '', 126),
  ERR_SHIM_GONE: entry('the shim ended unexpectedly'),
  ERR_SHIM_PROTOCOL: entry('the shim sent something unexpected'),
  ERR_NATIVE: entry('a system call or a native library failed'),
  ERR_STATE: entry('the state on disk cannot be read or written'),
  ERR_UNDO_FAILED: entry('something could not be undone', 'see: engine doctor'),
  ERR_IMAGE_INVALID: entry('an image is malformed'),
  ERR_IMAGE_LIMIT: entry('an image exceeds a limit'),
  ERR_DIGEST_MISMATCH: entry('content does not have the digest it claims', 'the file is damaged: fetch it again'),
  ERR_TAR_ENTRY: entry('an archive contains an entry that is refused'),
  ERR_DRIVER_UNAVAILABLE: entry('a driver is not available on this machine', 'see: engine doctor'),
  ERR_DRIVER_UNKNOWN: entry('there is no such driver', 'see: engine plugin ls'),
  ERR_FEATURE_MISSING: entry('the driver lacks a feature that is needed'),
  ERR_PLUGIN_INVALID: entry('a plugin cannot be loaded', 'check it with: engine plugin check'),
  ERR_PLUGIN_MISSING: entry('the plugin that made this object is not loaded', 'add it to .enginerc again'),
  ERR_PLUGIN_FAILED: entry('a plugin threw an error'),
  ERR_PLUGIN_TIMEOUT: entry('a plugin took too long'),
  ERR_HOOK_SEALED: entry('a hook was tapped too late', 'tap inside create()'),
  ERR_HOOK_UNKNOWN: entry('there is no such hook or tap'),
  ERR_HOOK_DUPLICATE: entry('a tap name is used twice on one hook'),
  ERR_CONFIG_INVALID: entry('the configuration is not valid'),
  ERR_CONFIG_UNTRUSTED: entry('a configuration file is not to be trusted', 'see: engine trust --help'),
  ERR_NOT_ROOT: entry('root is needed', 'run it as root, e.g. with sudo'),
  ERR_MACHINE: entry('this machine lacks something the engine needs', 'see: engine doctor'),
  ERR_INTERNAL: entry('the engine has a bug', 'please report it'),
} as const satisfies Record<string, CatalogueEntry>;

export type ErrorCode = keyof typeof catalogue;
