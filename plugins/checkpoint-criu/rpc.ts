import protobuf from 'protobufjs/light.js';

const { Root } = protobuf;
type Fields = Readonly<Record<string, readonly [type: string, id: number, rule?: 'required' | 'repeated']>>;
/** proto2: what is 0, false or empty is sent too. */
const message = (fields: Fields): { edition: string; fields: Record<string, { type: string; id: number; rule?: string }> } =>
  ({ edition: 'proto2', fields: Object.fromEntries(Object.entries(fields).map(([name, [type, id, rule]]) => [name, { type, id, ...(rule && { rule }) }])) });

/** Of criu's images/rpc.proto what is said and heard here; enums as the numbers they are. */
const root = Root.fromJSON({
  nested: {
    PageServer: message({ address: ['string', 1], port: ['int32', 2] }),
    ExtMount: message({ key: ['string', 1, 'required'], val: ['string', 2, 'required'] }),
    JoinNamespace: message({ ns: ['string', 1, 'required'], nsFile: ['string', 2, 'required'] }),
    InheritFd: message({ key: ['string', 1, 'required'], fd: ['int32', 2, 'required'] }),
    CgroupRoot: message({ ctrl: ['string', 1], path: ['string', 2, 'required'] }),
    Options: message({
      imagesDirFd: ['int32', 1, 'required'], pid: ['int32', 2], leaveRunning: ['bool', 3], extUnixSk: ['bool', 4], tcpEstablished: ['bool', 5], evasiveDevices: ['bool', 6], shellJob: ['bool', 7],
      fileLocks: ['bool', 8], logLevel: ['int32', 9], logFile: ['string', 10], ps: ['PageServer', 11], notifyScripts: ['bool', 12], root: ['string', 13], parentImg: ['string', 14], trackMem: ['bool', 15],
      autoDedup: ['bool', 16], workDirFd: ['int32', 17], extMnt: ['ExtMount', 23, 'repeated'], manageCgroups: ['bool', 24], cgRoot: ['CgroupRoot', 25, 'repeated'], rstSibling: ['bool', 26],
      inheritFd: ['InheritFd', 27, 'repeated'], manageCgroupsMode: ['int32', 34], external: ['string', 37, 'repeated'], emptyNs: ['uint32', 38], joinNs: ['JoinNamespace', 39, 'repeated'],
      freezeCgroup: ['string', 44], lazyPages: ['bool', 48], orphanPtsMaster: ['bool', 50], configFile: ['string', 51], lsmProfile: ['string', 53], lsmMountContext: ['string', 63],
    }),
    Request: message({ type: ['int32', 1, 'required'], opts: ['Options', 2], notifySuccess: ['bool', 3], keepOpen: ['bool', 4] }),
    Notify: message({ script: ['string', 1], pid: ['int32', 2] }),
    Version: message({ major: ['int32', 1, 'required'], minor: ['int32', 2, 'required'] }),
    Response: message({ type: ['int32', 1, 'required'], success: ['bool', 2, 'required'], notify: ['Notify', 5], crErrno: ['int32', 7], crErrmsg: ['string', 9], version: ['Version', 10] }),
  },
});
const request = root.lookupType('Request');
const response = root.lookupType('Response');

/** enum criu_req_type */
export const TYPE = { dump: 1, restore: 2, preDump: 4, notify: 6, version: 10 } as const;

/** message criu_opts, by the names above; what is undefined is not sent. */
export type Options = Readonly<Record<string, unknown>> & { readonly imagesDirFd: number };
export interface Request { readonly type: number; readonly opts?: Options; readonly notifySuccess?: boolean; readonly keepOpen?: boolean }
export interface Response {
  readonly type: number;
  readonly success: boolean;
  readonly notify?: { readonly script?: string; readonly pid?: number };
  readonly crErrno?: number;
  readonly crErrmsg?: string;
  readonly version?: { readonly major: number; readonly minor: number };
}

export function encode(value: Request): Uint8Array {
  const invalid = request.verify(value);
  if (invalid !== null) throw new TypeError(`criu is not to be told this: ${invalid}`);
  return request.encode(value).finish();
}
/** Throws on what is no response. */
export const decode = (bytes: Uint8Array): Response => response.toObject(response.decode(bytes)) as Response;
/** For who plays criu in tests. */
export const decodeRequest = (bytes: Uint8Array): Request => request.toObject(request.decode(bytes)) as Request;
export const encodeResponse = (value: Response): Uint8Array => response.encode(value).finish();
