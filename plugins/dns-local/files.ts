import { type ContainerNames } from '@engine/core/contracts/dns';

/** What the driver writes into the service's folder, and the service reads. Names of files are ids. */
export const FOLDERS = { networks: 'networks', containers: 'containers' } as const;

export interface NetworkFile {
  readonly id: string;
  readonly name: string;
  readonly gateways: readonly string[];
  /** CIDR. */
  readonly subnets: readonly string[];
  readonly internal: boolean;
}
export type ContainerFile = ContainerNames;

const isStrings = (value: unknown): value is readonly string[] => Array.isArray(value) && value.every((one) => typeof one === 'string');
const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;

/** Undefined: half of it is written, or it is none. */
export function parseNetwork(text: string): NetworkFile | undefined {
  const value = parse(text);
  return isObject(value) && typeof value['id'] === 'string' && typeof value['name'] === 'string' && isStrings(value['gateways']) && isStrings(value['subnets']) ? (value as unknown as NetworkFile) : undefined;
}
export function parseContainer(text: string): ContainerFile | undefined {
  const value = parse(text);
  if (!isObject(value) || typeof value['container'] !== 'string' || !isStrings(value['servers']) || !Array.isArray(value['endpoints'])) return undefined;
  const sound = value['endpoints'].every((one) => isObject(one) && typeof one['network'] === 'string' && typeof one['name'] === 'string' && isStrings(one['names']) && isStrings(one['addresses']));
  return sound ? (value as unknown as ContainerFile) : undefined;
}
function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
