/* What memory tools are told of our blocks; nothing at all in release builds. The tools see user memory as hakmem
 * does: a block is accessible from its allocation to its free, up to its requested size. */
#ifndef HAK_BASE_ANNOTATE_H
#define HAK_BASE_ANNOTATE_H

#include "base/config.h"

#if HAK_ASAN
#include <sanitizer/asan_interface.h>
#define HAK_ASAN_OPEN(ptr, bytes) __asan_unpoison_memory_region(ptr, bytes)
#define HAK_ASAN_CLOSE(ptr, bytes) __asan_poison_memory_region(ptr, bytes)
#else
#define HAK_ASAN_OPEN(ptr, bytes) ((void)0)
#define HAK_ASAN_CLOSE(ptr, bytes) ((void)0)
#endif
#if HAK_MSAN
#include <sanitizer/msan_interface.h>
/* Not __msan_allocated_memory(): it does nothing where poison_in_malloc is off, as sanitizer/msan.mk has it. */
#define HAK_MSAN_FRESH(ptr, bytes) __msan_poison(ptr, bytes)
#define HAK_MSAN_DEFINED(ptr, bytes) __msan_unpoison(ptr, bytes)
#else
#define HAK_MSAN_FRESH(ptr, bytes) ((void)0)
#define HAK_MSAN_DEFINED(ptr, bytes) ((void)0)
#endif
#if HAK_VALGRIND
#include <valgrind/memcheck.h>
#include <valgrind/valgrind.h>
#define HAK_VG_ALLOC(ptr, bytes) VALGRIND_MALLOCLIKE_BLOCK(ptr, bytes, 0, 0)
#define HAK_VG_FREE(ptr) VALGRIND_FREELIKE_BLOCK(ptr, 0)
#define HAK_VG_CLOSE(ptr, bytes) VALGRIND_MAKE_MEM_NOACCESS(ptr, bytes)
#define HAK_VG_OPEN(ptr, bytes) VALGRIND_MAKE_MEM_UNDEFINED(ptr, bytes)
#define HAK_VG_DEFINED(ptr, bytes) VALGRIND_MAKE_MEM_DEFINED(ptr, bytes)
#else
#define HAK_VG_ALLOC(ptr, bytes) ((void)0)
#define HAK_VG_FREE(ptr) ((void)0)
#define HAK_VG_CLOSE(ptr, bytes) ((void)0)
#define HAK_VG_OPEN(ptr, bytes) ((void)0)
#define HAK_VG_DEFINED(ptr, bytes) ((void)0)
#endif

/* A block of `bytes` is handed out, its content undefined. */
HAK_INLINE void hak_annotate_alloc(void *ptr, size_t bytes) {
    (void)ptr, (void)bytes;
    HAK_ASAN_OPEN(ptr, bytes);
    HAK_MSAN_FRESH(ptr, bytes);
    HAK_VG_ALLOC(ptr, bytes);
}

/* All of a block's content is known to be zero. */
HAK_INLINE void hak_annotate_defined(void *ptr, size_t bytes) {
    (void)ptr, (void)bytes;
    HAK_MSAN_DEFINED(ptr, bytes);
    HAK_VG_DEFINED(ptr, bytes);
}

/* A block whose store gave it `usable_bytes` comes back. */
HAK_INLINE void hak_annotate_free(void *ptr, size_t usable_bytes) {
    (void)ptr, (void)usable_bytes;
    HAK_ASAN_CLOSE(ptr, usable_bytes);
    HAK_VG_FREE(ptr);
}

/* hakmem itself may now touch [ptr, ptr + bytes), the slack behind a block, or may not. */
HAK_INLINE void hak_annotate_open(void *ptr, size_t bytes) {
    (void)ptr, (void)bytes;
    HAK_ASAN_OPEN(ptr, bytes);
    HAK_MSAN_DEFINED(ptr, bytes);
    HAK_VG_OPEN(ptr, bytes);
}
HAK_INLINE void hak_annotate_close(void *ptr, size_t bytes) {
    (void)ptr, (void)bytes;
    HAK_ASAN_CLOSE(ptr, bytes);
    HAK_VG_CLOSE(ptr, bytes);
}

#endif
