/* Metadata arena: memory for everything hakmem knows about its memory. Blocks come from chunks mapped straight
 * from the OS and are recycled by size class; chunks are never unmapped, so a stale descriptor can always be read.
 * Called by every store and by the front; calls only the OS. One lock, held for a few instructions. */
#ifndef HAK_PAGES_META_H
#define HAK_PAGES_META_H

#include "base/config.h"

/* `bytes` of zero memory aligned to 16 (to 64 from 64 bytes up), or NULL. */
void *hak_meta_alloc(size_t bytes);
/* Takes back a block of that many bytes. */
void hak_meta_free(void *ptr, size_t bytes);
/* Bytes mapped for metadata. */
uint64_t hak_meta_mapped_bytes(void);
/* In a forked child: sets the arena aside if another thread held it. */
void hak_meta_fork_child(void);

#endif
