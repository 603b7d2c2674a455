import { readdirSync, readFileSync } from 'node:fs';

/**
 * Does whoever inherited us have no other child? Below a subreaper (conmon, a containerd shim) it is he and not init who inherits a daemon that his
 * runtime has started, and conmon ends only when all of his children have. A kernel that does not tell children (CONFIG_PROC_CHILDREN) says no.
 */
export function isLastChild(pid = process.pid, parent = process.ppid): boolean {
  if (parent <= 1) return false;
  try {
    const children = readdirSync(`/proc/${parent}/task`).flatMap((task) => readFileSync(`/proc/${parent}/task/${task}/children`, 'latin1').trim().split(' ').filter(Boolean));
    return children.length === 1 && children[0] === String(pid);
  } catch {
    return false; // it has just ended, or a thread of it
  }
}
