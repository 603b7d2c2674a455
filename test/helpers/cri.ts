import { readFileSync } from 'node:fs';
import { connect as connectHttp, constants, type ClientHttp2Session } from 'node:http2';
import { connect } from 'node:net';
import { join } from 'node:path';
import protobuf from 'protobufjs';

/** What a server refused: gRPC's number and the server's words. */
export class CriError extends Error {
  readonly status: number;
  constructor(method: string, status: number, message: string) {
    super(`${method}: ${message} (gRPC status ${status})`);
    this.status = status;
  }
}

/** A client of Kubernetes' CRI over a unix socket, one call at a time or many. Field names as in cri.proto. */
export class Cri {
  readonly #session: ClientHttp2Session;
  readonly #root: protobuf.Root;
  constructor(socket: string) {
    this.#root = protobuf.parse(readFileSync(join(import.meta.dirname, 'cri.proto'), 'utf8'), { keepCase: true }).root;
    this.#session = connectHttp('http://localhost', { createConnection: () => connect(socket) });
    this.#session.on('error', () => {}); // the call under way says so
  }
  /** Rejects with a CriError when the server refuses. */
  async call<T = Record<string, unknown>>(method: string, request: object = {}, service = 'RuntimeService'): Promise<T> {
    const { requestType, responseType } = this.#root.lookupService(`runtime.v1.${service}`).methods[method] ?? {};
    if (requestType === undefined || responseType === undefined) throw new Error(`cri.proto has no ${method}`);
    const type = this.#root.lookupType(`runtime.v1.${requestType}`);
    const wrong = type.verify(request);
    if (wrong) throw new Error(`${method}: ${wrong}`);
    const body = Buffer.from(type.encode(type.fromObject(request)).finish());
    const head = Buffer.alloc(5); // not compressed, length
    head.writeUInt32BE(body.length, 1);
    const stream = this.#session.request({ ':method': 'POST', ':path': `/runtime.v1.${service}/${method}`, 'content-type': 'application/grpc', te: 'trailers' });
    const chunks: Buffer[] = [];
    let trailers: Record<string, unknown> = {};
    stream.on('response', (headers) => (trailers = { ...headers }));
    stream.on('trailers', (headers) => (trailers = { ...trailers, ...headers }));
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.end(Buffer.concat([head, body]));
    await new Promise<void>((resolve, reject) => {
      stream.once('error', reject);
      stream.once('close', resolve);
    });
    const status = Number(trailers['grpc-status'] ?? 2);
    if (status !== 0) throw new CriError(method, status, decodeURIComponent(String(trailers['grpc-message'] ?? `no answer, ${constants.NGHTTP2_INTERNAL_ERROR}`)));
    const answer = this.#root.lookupType(`runtime.v1.${responseType}`);
    return answer.toObject(answer.decode(Buffer.concat(chunks).subarray(5)), { longs: Number, enums: String, defaults: true }) as T;
  }
  close(): void {
    this.#session.destroy();
  }
}
