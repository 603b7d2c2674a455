/**
 * The entry stream read by `unpack` and written by `pack`: frames of
 *
 *     u8 kind, u8 flags(0), u16 0, u32 bodyLength, body
 *
 * Every body but `data` and `end` starts with the common head
 *
 *     u32 mode (permission bits with setuid/setgid/sticky), u32 uid, u32 gid, u32 xattrCount, i64 mtime (ns), u64 size,
 *     u32 major, u32 minor, str path, str linkTarget, then per xattr: str name, bytes value
 *
 * with `str` = u32 length + bytes (no NUL, no padding) and `bytes` alike. Paths are relative to the layer's root, cleaned (no `..`, no
 * leading `/`, no empty part; `.` alone is the root itself): the writer of a stream refuses others and the interpreter refuses them again. After a `file` of size > 0
 * come `data` frames that sum up to `size`; holes may be sent as `hole` frames (body: u64 length). Little-endian throughout.
 * `whiteout` names the path that is removed (without `.wh.`); `opaque` names the folder whose lower content is hidden.
 */
export const ENTRY = {
  folder: 1, file: 2, symlink: 3, hardlink: 4, character: 5, block: 6, fifo: 7, whiteout: 8, opaque: 9, data: 16, hole: 17, end: 31,
} as const;
export type EntryKind = keyof typeof ENTRY;
/** Longest body of a `data` frame, bytes. */
export const MAX_DATA = 1 << 20;
/** Longest path and link target, bytes; deeper or longer is refused with the entry's name. */
export const MAX_PATH = 4096;
export const MAX_DEPTH = 256;
