/** The oldest kernel that is promised: RHEL 9's. See docs/kernels.md. */
export const OLDEST = [5, 14] as const;

/** `kernel` is `since` or later. */
export const isSince = ([major, minor]: readonly [number, number], [least, minorLeast]: readonly [number, number]): boolean => major > least || (major === least && minor >= minorLeast);
