/* What memory tools are told of our blocks; nothing at all in release builds. The tools see user memory as hakmem
 * does: a block is accessible from its allocation to its free, up to its requested size. */
#ifndef HAK_BASE_ANNOTATE_H
#define HAK_BASE_ANNOTATE_H

#include "base/config.h"

/* ASan names an error after what its shadow holds. Its own calls leave one value there, for "use-after-poison"; these
 * are the values of its own malloc, so that the report says what happened. */
enum hak_shade {
    HAK_SHADE_FREED = 0xfd, /* heap-use-after-free */
    HAK_SHADE_BEYOND = 0xfa /* heap-buffer-overflow */
};

#if HAK_ASAN
#include <sanitizer/asan_interface.h>
#define HAK_ASAN_OPEN(ptr, bytes) __asan_unpoison_memory_region(ptr, bytes)
#define HAK_ASAN_CLOSE(ptr, bytes, shade) hak_annotate_shade(ptr, bytes, shade)
#define HAK_ASAN_IS_OPEN(ptr) (!__asan_address_is_poisoned(ptr))
#define HAK_NO_ASAN __attribute__((no_sanitize_address))
#else
#define HAK_ASAN_OPEN(ptr, bytes) ((void)0)
#define HAK_ASAN_CLOSE(ptr, bytes, shade) ((void)0)
#define HAK_ASAN_IS_OPEN(ptr) false
#define HAK_NO_ASAN
#endif
#if HAK_MSAN
#include <sanitizer/msan_interface.h>
/* The first call tells origins, but only where poison_in_malloc is on; sanitizer/msan.mk has it off. */
#define HAK_MSAN_FRESH(ptr, bytes) (__msan_allocated_memory(ptr, bytes), __msan_poison(ptr, bytes))
#define HAK_MSAN_FREED(ptr, bytes) __msan_poison(ptr, bytes)
#define HAK_MSAN_DEFINED(ptr, bytes) __msan_unpoison(ptr, bytes)
#else
#define HAK_MSAN_FRESH(ptr, bytes) ((void)0)
#define HAK_MSAN_FREED(ptr, bytes) ((void)0)
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

/* Of annotate.c: poisons memory so that an access is reported as `shade` says. ASan builds. */
void hak_annotate_shade(const void *ptr, size_t bytes, enum hak_shade shade);
/* Describes the code at `pc` as `format` says (__sanitizer_symbolize_pc). ASan builds. */
void hak_annotate_symbolize(uintptr_t pc, const char *format, char *text, size_t bytes);
/* Has `report` called at the end of each report, with the address that it is about. ASan builds. */
void hak_annotate_on_report(void (*report)(const void *ptr));
/* Metadata was mapped, or is about to be unmapped: the pointers in it are no uses of a block. Valgrind builds. */
void hak_annotate_metadata(const void *ptr, size_t bytes, bool mapped);
/* Calls `visit` for each mapping of metadata. Valgrind builds. */
void hak_annotate_each_metadata(void (*visit)(void *ptr, size_t bytes));
/* A range whose content a leak check must look through. ASan builds. */
void hak_annotate_root(const void *ptr, size_t bytes);

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
    HAK_ASAN_CLOSE(ptr, usable_bytes, HAK_SHADE_FREED);
    HAK_MSAN_FREED(ptr, usable_bytes);
    HAK_VG_FREE(ptr);
}

/* hakmem itself may now touch [ptr, ptr + bytes), the slack behind a block or a mapping, or nobody may. */
HAK_INLINE void hak_annotate_open(void *ptr, size_t bytes) {
    (void)ptr, (void)bytes;
    HAK_ASAN_OPEN(ptr, bytes);
    HAK_MSAN_DEFINED(ptr, bytes);
    HAK_VG_OPEN(ptr, bytes);
}
HAK_INLINE void hak_annotate_close(void *ptr, size_t bytes) {
    (void)ptr, (void)bytes;
    HAK_ASAN_CLOSE(ptr, bytes, HAK_SHADE_BEYOND);
    HAK_VG_CLOSE(ptr, bytes);
}

#endif
