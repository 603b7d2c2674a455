#include "inodes.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t slot_of(uint32_t size, uint64_t device, uint64_t inode)
{
	uint64_t h = (inode ^ device * 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;
	return (uint32_t)(h >> 32) & (size - 1);
}

static struct inode_entry *probe(const struct inodes *set, uint64_t device, uint64_t inode)
{
	uint32_t i = slot_of(set->size, device, inode);
	/* inode 0 marks a free slot: no filesystem gives it to a file */
	while (set->table[i].inode && (set->table[i].inode != inode || set->table[i].device != device))
		i = (i + 1) & (set->size - 1);
	return &set->table[i];
}

struct inode_entry *inodes_find(const struct inodes *set, dev_t device, ino_t inode)
{
	if (!set->size || !inode)
		return NULL;
	struct inode_entry *e = probe(set, device, inode);
	return e->inode ? e : NULL;
}

static int grow(struct inodes *set)
{
	struct inodes bigger = { .size = set->size ? set->size * 2 : 1024, .used = set->used };
	bigger.table = calloc(bigger.size, sizeof *bigger.table);
	if (!bigger.table)
		return -ENOMEM;
	for (uint32_t i = 0; i < set->size; i++)
		if (set->table[i].inode)
			*probe(&bigger, set->table[i].device, set->table[i].inode) = set->table[i];
	free(set->table);
	*set = bigger;
	return 0;
}

int inodes_add(struct inodes *set, dev_t device, ino_t inode, const char *path)
{
	if (!inode)
		return 0;
	if (set->used * 2 >= set->size && grow(set))
		return -ENOMEM;
	struct inode_entry *e = probe(set, device, inode);
	if (e->inode)
		return 0;
	char *copy = path ? strdup(path) : NULL;
	if (path && !copy)
		return -ENOMEM;
	*e = (struct inode_entry){ device, inode, copy };
	set->used++;
	return 0;
}

void inodes_free(struct inodes *set)
{
	for (uint32_t i = 0; i < set->size; i++)
		free(set->table[i].path);
	free(set->table);
	*set = (struct inodes){ 0 };
}
