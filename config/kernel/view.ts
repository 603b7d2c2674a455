import { closeSync, openSync, readdirSync, readlinkSync, statSync } from 'node:fs';
import { type Machine } from '@engine/core/contracts/common';
import { cgroupMode } from '../machine.ts';
import { kernelCalls, type KernelCalls } from './calls.ts';

/** What is looked at to tell what a kernel can do: data, files, and calls that change nothing. Tests hand in another one. */
export interface KernelView {
  readonly machine: Machine;
  /** Undefined: where calls can't be made. */
  readonly calls: KernelCalls | undefined;
  exists(path: string): boolean;
  /** Names in a folder, none when it can't be read. */
  list(path: string): readonly string[];
  /** Where a link leads to. */
  link(path: string): string | undefined;
}

export function viewOf(machine: Machine): KernelView {
  return {
    machine,
    calls: kernelCalls(),
    exists: (path) => statSync(path, { throwIfNoEntry: false }) !== undefined,
    list: (path) => {
      try {
        return readdirSync(path);
      } catch {
        return [];
      }
    },
    link: (path) => {
      try {
        return readlinkSync(path);
      } catch {
        return undefined;
      }
    },
  };
}

/** undefined: it doesn't tell. */
export type Answer = boolean | undefined;
export type Probe = (view: KernelView) => Answer;

/** Nothing tells but the version. */
export const byVersion: Probe = () => undefined;
export const byFile = (path: string): Probe => ({ exists }) => exists(path);
export const byFilesystem = (type: string): Probe => ({ machine }) => machine.filesystems.includes(type) || undefined;
export const byNamespace = (type: string): Probe => ({ machine }) => machine.namespaces.includes(type);
/** A call that exists answers to impossible arguments in its own way. EPERM: a filter, or no root. */
export const byCall = (name: keyof KernelCalls): Probe => ({ calls }) => calls?.[name]();

const CGROUPS = '/sys/fs/cgroup';
/** Where cgroup v2 is mounted: alone, or beside v1. */
export const unifiedOf = ({ machine }: KernelView): string | undefined => machine.mounts.find(({ type, target }) => type === 'cgroup2' && target.startsWith(CGROUPS))?.target;

/** Cgroup v2 alone, with its controllers: beside v1 it has few. */
export const isUnified = ({ machine }: KernelView): boolean => cgroupMode(machine.mounts) === 'v2' && machine.mounts.some(({ type }) => type === 'cgroup2');

/** A file of the groups of cgroup v2; the root group has few of them. `beside`: the file of the same controller that is there when the controller is. */
export const byGroupFile = (file: string, beside = 'cgroup.procs'): Probe => (view) => {
  const root = unifiedOf(view);
  if (root === undefined) return undefined;
  let answer: Answer;
  for (const name of view.list(root)) {
    if (name.includes('.') && !/\.(slice|scope|service|mount)$/.test(name)) continue;
    if (view.exists(`${root}/${name}/${file}`)) return true;
    if (view.exists(`${root}/${name}/${beside}`)) answer = false;
  }
  return answer;
};
export const byController = (name: string): Probe => (view) => {
  const root = unifiedOf(view);
  return root === undefined ? undefined : (view.machine.read(`${root}/cgroup.controllers`) ?? '').split(/\s/).includes(name);
};

/** An open folder for the time of `use`. */
export function withFolder<T>(path: string, use: (fd: number) => T): T | undefined {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return undefined;
  }
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}
