/* The boundaries and capacities of the four layers, and the build switches. Every constant that two files must
 * agree on is here; what a user may change is an option (options.def). */
#ifndef HAK_BASE_CONFIG_H
#define HAK_BASE_CONFIG_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Build switches: always defined, 0 or 1, used as `if (HAK_X)`. */
static_assert(HAK_CHECKED == 0 || HAK_CHECKED == 1, "every misuse is found at once; exact sizes; canaries");
static_assert(HAK_DEBUG == 0 || HAK_DEBUG == 1, "asserts, lock ranks");
static_assert(HAK_TEST == 0 || HAK_TEST == 1, "prefixed interface only, test hooks present");
static_assert(HAK_ASAN == 0 || HAK_ASAN == 1, "annotations for AddressSanitizer");
static_assert(HAK_TSAN == 0 || HAK_TSAN == 1, "built with ThreadSanitizer (no annotations are needed)");
static_assert(HAK_MSAN == 0 || HAK_MSAN == 1, "annotations for MemorySanitizer");
static_assert(HAK_VALGRIND == 0 || HAK_VALGRIND == 1, "client requests for Valgrind");
static_assert(HAK_SCHED == 0 || HAK_SCHED == 1, "scheduling points for controlled schedules");
/* These three are 1 but in the variants that measure what each gains (make phase7). */
static_assert(HAK_REGION_LOOKUP == 0 || HAK_REGION_LOOKUP == 1,
              "free asks the tags of the region map; 0: the slab's record");
static_assert(HAK_AGGRESSIVE_INLINE == 0 || HAK_AGGRESSIVE_INLINE == 1,
              "hits stand in the entry points; 0: are called");
static_assert(HAK_PREWARM_TLS == 0 || HAK_PREWARM_TLS == 1, "a thread's first use fills bins");

/* Builds that remember the requested size of every block, and tell it as the usable size. */
#define HAK_EXACT (HAK_CHECKED + HAK_ASAN + HAK_MSAN + HAK_VALGRIND != 0)

/* What they ask of a store beyond the request: a byte for a canary or poison; for ASan as much as leaves a whole
 * granule of it however the block ends, which is also where the block's history stands (api/explain.h). */
#define HAK_EXACT_SLACK ((size_t)(HAK_ASAN ? 16 : 1))

/* Builds that hold freed blocks back (api/quarantine.h), and that know where each was allocated and freed
 * (api/trace.h). Controlled schedules start over too often for either. */
#define HAK_QUARANTINE ((HAK_ASAN || HAK_VALGRIND) && !HAK_SCHED)
#define HAK_TRACE (HAK_ASAN && !HAK_SCHED)

#define HAK_KIB ((size_t)1 << 10)
#define HAK_MIB ((size_t)1 << 20)

/* The alignment of every block, and the unit of the size classes. */
#define HAK_MIN_ALIGN_SHIFT 4
#define HAK_MIN_ALIGN ((size_t)1 << HAK_MIN_ALIGN_SHIFT)

/* Region map: a granule is the smallest piece of address space that has an entry; a leaf covers one window. */
#define HAK_GRANULE_SHIFT 16
#define HAK_GRANULE ((size_t)1 << HAK_GRANULE_SHIFT)
#define HAK_WINDOW_SHIFT 34
#define HAK_WINDOW_GRANULES ((size_t)1 << (HAK_WINDOW_SHIFT - HAK_GRANULE_SHIFT))
#define HAK_ADDRESS_BITS 48
#define HAK_ROOT_ENTRIES ((size_t)1 << (HAK_ADDRESS_BITS - HAK_WINDOW_SHIFT))

/* Layer limits, by requested size. */
#define HAK_TINY_MAX (1 * HAK_KIB)
#define HAK_MID_MAX (32 * HAK_KIB)
#define HAK_L25_MAX (1 * HAK_MIB)
#define HAK_SIZE_MAX ((size_t)PTRDIFF_MAX)

/* Slabs. A slab is one granule; a span is 2, 4 or 8 of them in a row. */
#define HAK_SLAB_BYTES HAK_GRANULE
#define HAK_SUPERSLAB_BYTES (2 * HAK_MIB)
#define HAK_SUPERSLAB_SLABS 32

/* L2.5 pool. A slice is one granule. */
#define HAK_SLICE_BYTES HAK_GRANULE
#define HAK_CHUNK_BYTES (4 * HAK_MIB)
#define HAK_CHUNK_SLICES 64

#define HAK_CACHE_LINE 64

#define HAK_ALIGNED_LINE _Alignas(HAK_CACHE_LINE)
#define HAK_HOT __attribute__((hot))
#define HAK_COLD __attribute__((cold, noinline))
#define HAK_NOINLINE __attribute__((noinline))
#define HAK_INLINE static inline __attribute__((always_inline))
#define hak_likely(x) __builtin_expect(!!(x), 1)
#define hak_unlikely(x) __builtin_expect(!!(x), 0)

/* An invariant: checked in debug builds, believed in release builds. */
#define hak_assert(x)                                                                                                  \
    do {                                                                                                               \
        if (HAK_DEBUG && !(x)) hak_assert_failed(#x, __FILE__, __LINE__);                                              \
    } while (0)
_Noreturn void hak_assert_failed(const char *text, const char *file, int line); /* log.c */

HAK_INLINE size_t hak_round_up(size_t n, size_t align) { return (n + align - 1) & ~(align - 1); }
HAK_INLINE bool hak_is_pow2(size_t n) { return n != 0 && (n & (n - 1)) == 0; }
/* The largest power of two that is not over `n`, which is not 0. */
HAK_INLINE uint64_t hak_pow2_floor(uint64_t n) { return (uint64_t)1 << (63 - __builtin_clzll(n)); }

#endif
