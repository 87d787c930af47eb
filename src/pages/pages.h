/* Pages for the stores: aligned mappings of whole granules, counted. Remembers the ranges that munmap refused
 * and serves them again. No lock is held while the OS is called. */
#ifndef HAK_PAGES_PAGES_H
#define HAK_PAGES_PAGES_H

#include "base/config.h"

/* Maps `bytes` (a multiple of the granule) at a multiple of `align` (a power of two, at least the granule).
 * All zero unless `*zero` (may be NULL: then zero is not asked for) comes back false. NULL if the OS refuses. */
void *hak_pages_map(size_t bytes, size_t align, bool *zero);
/* Gives the range back. Where munmap fails, the range is purged and kept for a later hak_pages_map(). */
void hak_pages_unmap(void *ptr, size_t bytes);
/* Gives the memory back but keeps the range. True only if it now reads as zero. */
bool hak_pages_purge(void *ptr, size_t bytes);
/* True for PURGE_DELAY_MS after the system refused a purge (locked pages): no use in asking at every free. */
bool hak_pages_purge_is_refused(void);
/* Whether who holds `bytes` may take huge pages (HUGE_BYTES): what those hold too much of is little beside it. */
bool hak_pages_may_be_huge(uint64_t bytes);
/* A range in use is two now, or two neighbours are one: each is given back by itself. */
void hak_pages_count_cut(void);
void hak_pages_count_joined(void);
/* Resizes a mapping in place; whole granules. If it cannot, `*movable` says whether hak_pages_move() may. */
bool hak_pages_resize(void *ptr, size_t old_bytes, size_t new_bytes, bool *movable);
/* Moves a mapping's pages, without copying, over the larger mapping `target`; the tail is zero. False if it cannot be
 * done: the old mapping is then as before. The target, as it was mapped, is gone in any case. */
bool hak_pages_move(void *ptr, size_t old_bytes, void *target, size_t new_bytes);

struct hak_pages_stats {
    uint64_t mappings; /* ranges mapped and not yet given back */
    uint64_t mapped_bytes;
    uint64_t retained_bytes; /* of ranges that munmap refused */
};
struct hak_pages_stats hak_pages_stats(void);
void hak_pages_fork_child(void);
/* Unmaps what munmap refused, and forgets what else the system ever refused. By the only thread. */
void hak_pages_reset_for_test(void);

#endif
