/* The router: which layer serves a request, and whose an address is. Everything the entry points share. */
#ifndef HAK_API_ALLOC_H
#define HAK_API_ALLOC_H

#include "base/config.h"
#include "pages/region.h"

/* The call site that BigCache files a block under: where the public entry point returns to. */
#define HAK_SITE ((uintptr_t)__builtin_return_address(0))

/* Allocates `size` bytes aligned to `align` (a power of two), zeroed if asked. NULL and ENOMEM on failure, after
 * everything free was given back to the system and the request was tried again. */
void *hak_alloc(size_t size, size_t align, bool zero, uintptr_t site);

/* Zeroes memory of a block, and leaves what is zero and not resident as it is. */
void hak_clear(void *ptr, size_t bytes);

/* Frees `ptr` (NULL: nothing), whatever layer it is of. Misuse is reported under the name `function`. */
void hak_release(void *ptr, const char *function);
/* The second half of it, for a block that was held back (quarantine.h). */
void hak_give_back(void *ptr, const char *function);

/* The same where the caller says what was requested; the checked build holds it against what it knows. */
void hak_release_aligned(void *ptr, size_t align, const char *function);
void hak_release_sized(void *ptr, size_t size, size_t align, const char *function);

/* Resizes a block as hak_realloc() does, for a block that is not NULL and a size that is not 0. */
void *hak_resize(void *ptr, size_t size, uintptr_t site, const char *function);

/* What to ask for when a block of `usable` bytes is copied into one for `size`. A small one that grows gets a quarter
 * more than it had, if that is more than what it needs: the next steps then stay in place. */
HAK_INLINE size_t hak_with_room(size_t size, size_t usable) {
    if (HAK_EXACT) return size;
    const size_t roomy = usable + usable / 4;
    return size > usable && size < roomy && roomy <= HAK_MID_MAX ? roomy : size;
}

/* The usable bytes of a live block; 0 for a block of another allocator. Other misuse ends the process. */
size_t hak_usable(const void *ptr, const char *function);

/* The size that a request is rounded to. */
size_t hak_rounded(size_t size);

/* Lets go of all free memory, the calling thread's caches first; returns the bytes given back. */
size_t hak_let_go(void);

/* operator new (malloc.c), and the same where no block is at hand (operators.cc). Both may throw. */
__attribute__((visibility("hidden"))) void *hak_operator_new(size_t size);
__attribute__((visibility("hidden"))) void *hak_operator_new_slow(size_t size, uintptr_t site);

/* hak_malloc(), whatever else of that name there is in the process. */
__attribute__((visibility("hidden"))) void *hak_own_malloc(size_t size);

/* errno is set to ENOMEM here and nowhere else. */
void *hak_no_memory(void);

#endif
