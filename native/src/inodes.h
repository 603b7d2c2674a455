/* A map from (device, inode) to a path or nothing: hard links while copying and packing, what an unpack has made itself. */
#ifndef ENGINE_INODES_H
#define ENGINE_INODES_H
#include <stdint.h>
#include <sys/types.h>

struct inode_entry { uint64_t device, inode; char *path; };
struct inodes { struct inode_entry *table; uint32_t size, used; };

/* The entry, or NULL. */
struct inode_entry *inodes_find(const struct inodes *set, dev_t device, ino_t inode);
/* Add with a copy of `path` (or NULL); an existing entry stays as it is. 0 or -ENOMEM. */
int inodes_add(struct inodes *set, dev_t device, ino_t inode, const char *path);
void inodes_free(struct inodes *set);
#endif
