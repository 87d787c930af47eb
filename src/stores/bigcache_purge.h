/* What leaves the cache: mappings to unmap or to purge, always after the table's lock was released. */
#ifndef HAK_STORES_BIGCACHE_PURGE_H
#define HAK_STORES_BIGCACHE_PURGE_H

#include "stores/bigcache_table.h"

/* Bytes that were given back. Any thread, relaxed: a counter. */
extern _Atomic uint64_t hak_big_purged_bytes;

/* Unmaps a held block for good, and recycles its descriptor. */
void hak_big_drop(struct hak_big *big);
/* Recycles a descriptor that no region entry leads to. */
void hak_big_recycle(struct hak_big *big);
/* Puts a held block into the cache, or drops it where the options or the lack of memory say so. */
void hak_big_cache(struct hak_big *big);

#endif
