/* What exact builds (HAK_EXACT: the checked library and the sanitizer builds) add around each block: its
 * requested size is remembered, the slack behind it holds a canary, every misuse is found at the call itself, and
 * memory tools are told. In release builds none of this is called. */
#ifndef HAK_API_GUARD_H
#define HAK_API_GUARD_H

#include "base/sync.h"
#include "pages/region.h"

/* A block of `size` requested bytes, for which the store gave `usable` (more than `size`), goes out. True if its
 * content was written: it is not zero any more. */
bool hak_guard_alloc(void *ptr, size_t size, size_t usable);
/* A block comes back. Ends the process unless it is a live block whose canary is whole. True if it is held back
 * (quarantine.h): then it is not the router's any more. */
bool hak_guard_free(void *ptr, const struct hak_region *region, const char *function);
/* Looks at the canary of a live block; returns the bytes that the store gave for it. */
size_t hak_guard_check(const void *ptr, const struct hak_region *region, const char *function);
/* A live block, which the checked build has resized where it is or moved whole, now has `size` requested bytes. */
void hak_guard_resize(void *ptr, size_t size, size_t usable);
/* Ends the process if `ptr` is a live block, but not of this size, or not of this alignment. */
void hak_guard_expect_size(const void *ptr, size_t size, const char *function);
void hak_guard_expect_alignment(const void *ptr, size_t align, const char *function);
/* What the store gave for the block at `ptr`, live or held back; 0: none begins there. */
size_t hak_guard_given(const void *ptr);
/* The requested size of a live block. */
size_t hak_guard_size(const void *ptr, const struct hak_region *region, const char *function);
/* The byte that M_PERTURB set: freed blocks are filled with it, fresh ones with its complement; 0: neither. */
extern _Atomic int hak_guard_perturb; /* any thread; relaxed: publishes nothing */

#endif
