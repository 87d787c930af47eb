/* hakmem: a general-purpose malloc for Linux.
 *
 * The one public header, for C (C99 and later) and C++. Every function here is also what the libc name of the
 * same meaning does when libhakmem is preloaded or linked: malloc() is hak_malloc(), and so on.
 *
 * Common to all functions, unless a comment says otherwise:
 *  - Sizes and alignments are in bytes. A size over PTRDIFF_MAX fails with ENOMEM.
 *  - A returned block is aligned to at least 16 bytes (alignof(max_align_t)), for every size, also 0.
 *  - A failed allocation returns NULL and sets errno to ENOMEM; nothing else is changed.
 *  - Thread-safe: any thread may call any function at any time, and may free a block of any other thread.
 *  - Not async-signal-safe (as malloc is not), but fork() from a signal handler is supported.
 *  - Freeing NULL does nothing. Freeing twice, or freeing what is not the start of a live block, is misuse: it ends
 *    the process with one line on stderr; the checked library does so at once and also for a wrong size, the default
 *    one at the latest when the thread's cache is flushed (docs/ARCHITECTURE.md, "Misuse").
 */
#ifndef HAKMEM_H
#define HAKMEM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define HAKMEM_VERSION_MAJOR 0
#define HAKMEM_VERSION_MINOR 1
#define HAKMEM_VERSION_PATCH 0

#if defined(__GNUC__)
#define HAK_PUBLIC __attribute__((visibility("default")))
#define HAK_ATTR(...) __attribute__((__VA_ARGS__))
#else
#define HAK_PUBLIC
#define HAK_ATTR(...)
#endif

#if defined(__cplusplus)
#define HAK_NOEXCEPT noexcept
#else
#define HAK_NOEXCEPT
#endif

/* ---- the standard interface, prefixed ------------------------------------------------------------------ */

/* Allocates `size` bytes (0..PTRDIFF_MAX), uninitialised. hak_malloc(0) returns a unique pointer that can be
 * freed. C11 7.22.3.4, malloc(3). */
HAK_PUBLIC void *hak_malloc(size_t size) HAK_NOEXCEPT HAK_ATTR(malloc, alloc_size(1), warn_unused_result);

/* Allocates `count` objects of `size` bytes, all zero, including what hak_malloc_usable_size() reports beyond
 * them. ENOMEM too if the product overflows. C11 7.22.3.2. */
HAK_PUBLIC void *hak_calloc(size_t count, size_t size) HAK_NOEXCEPT
    HAK_ATTR(malloc, alloc_size(1, 2), warn_unused_result);

/* Resizes block `ptr` (NULL: as hak_malloc) to `size` bytes, moving it if it must; keeps the first
 * min(old, new) bytes. A block that moves in order to grow may get a quarter more than it had, up to 32 KiB, so that
 * the next steps stay in place. Returns the block, or NULL with ENOMEM and `ptr` untouched. hak_realloc(ptr, 0) frees
 * and returns NULL, as glibc does. The result is aligned to 16 bytes whatever `ptr` was allocated with. */
HAK_PUBLIC void *hak_realloc(void *ptr, size_t size) HAK_NOEXCEPT HAK_ATTR(alloc_size(2), warn_unused_result);

/* hak_realloc(ptr, count * size); ENOMEM if the product overflows. reallocarray(3). */
HAK_PUBLIC void *hak_reallocarray(void *ptr, size_t count, size_t size) HAK_NOEXCEPT
    HAK_ATTR(alloc_size(2, 3), warn_unused_result);

/* Frees block `ptr`. Keeps errno. C11 7.22.3.3. */
HAK_PUBLIC void hak_free(void *ptr) HAK_NOEXCEPT;

/* hak_free() under the name that SVID gave it. */
HAK_PUBLIC void hak_cfree(void *ptr) HAK_NOEXCEPT;

/* Frees block `ptr` that was asked for with `size` bytes (any value from the requested to the usable size is
 * accepted). The checked build reports a wrong size. C23 7.24.3.4. */
HAK_PUBLIC void hak_free_sized(void *ptr, size_t size) HAK_NOEXCEPT;

/* The same for a block from an aligned allocation with these arguments. C23 7.24.3.5. */
HAK_PUBLIC void hak_free_aligned_sized(void *ptr, size_t alignment, size_t size) HAK_NOEXCEPT;

/* Allocates `size` bytes aligned to `alignment`, a power of two; otherwise NULL and EINVAL. `size` need not be
 * a multiple of it. C11 7.22.3.1 as relaxed by DR 460. */
HAK_PUBLIC void *hak_aligned_alloc(size_t alignment, size_t size) HAK_NOEXCEPT
    HAK_ATTR(malloc, alloc_align(1), alloc_size(2), warn_unused_result);

/* Stores in `*memptr` a block of `size` bytes aligned to `alignment`, a power of two and a multiple of
 * sizeof(void *). Returns 0, EINVAL or ENOMEM; on failure `*memptr` and errno are untouched. POSIX.1-2017. */
HAK_PUBLIC int hak_posix_memalign(void **memptr, size_t alignment, size_t size) HAK_NOEXCEPT
    HAK_ATTR(warn_unused_result);

/* As hak_aligned_alloc(), but rounds `alignment` up to a power of two, as glibc does; EINVAL where that
 * overflows. memalign(3). */
HAK_PUBLIC void *hak_memalign(size_t alignment, size_t size) HAK_NOEXCEPT
    HAK_ATTR(malloc, alloc_size(2), warn_unused_result);

/* Page-aligned `size` bytes. valloc(3). */
HAK_PUBLIC void *hak_valloc(size_t size) HAK_NOEXCEPT HAK_ATTR(malloc, alloc_size(1), warn_unused_result);

/* Page-aligned `size` bytes rounded up to whole pages. pvalloc(3). */
HAK_PUBLIC void *hak_pvalloc(size_t size) HAK_NOEXCEPT HAK_ATTR(malloc, warn_unused_result);

/* Bytes that may be used at `ptr`: at least the requested size, stable while the block lives; 0 for NULL. All
 * of them may be written. malloc_usable_size(3). */
HAK_PUBLIC size_t hak_malloc_usable_size(void *ptr) HAK_NOEXCEPT;

/* Gives free memory back to the system, keeping at most `pad` bytes of it. Returns 1 if any was given back,
 * else 0. Other threads' caches are left alone. malloc_trim(3). */
HAK_PUBLIC int hak_malloc_trim(size_t pad) HAK_NOEXCEPT;

/* Sets a parameter of mallopt(3). M_TRIM_THRESHOLD (bytes of free memory each layer keeps, the rest is given back),
 * M_MMAP_THRESHOLD (cap above which a block is never cached, at least 1 MiB) and M_PERTURB (fill byte; checked
 * build only) have a meaning here. Returns 1 if the parameter was set, 0 if it means nothing here. */
HAK_PUBLIC int hak_mallopt(int param, int value) HAK_NOEXCEPT;

/* The heap in the form of mallinfo(3): hakmem's own figures. arena is uordblks + fordblks; blocks over 1 MiB are
 * mappings of their own (hblks, hblkhd). What hakmem does not count is 0. In the form with int members a figure that
 * does not fit is INT_MAX. With glibc only, whose <malloc.h> has the types. */
#ifdef __GLIBC__
HAK_PUBLIC struct mallinfo hak_mallinfo(void) HAK_NOEXCEPT;
HAK_PUBLIC struct mallinfo2 hak_mallinfo2(void) HAK_NOEXCEPT;
#endif

/* Writes the statistics as XML, in the form of malloc_info(3) with one heap per layer, to `out`. Returns 0; -1 with
 * EINVAL for `options` other than 0, or with the errno of the failed write. */
HAK_PUBLIC int hak_malloc_info(int options, FILE *out) HAK_NOEXCEPT;

/* hak_stats_print() as text to stderr. malloc_stats(3). */
HAK_PUBLIC void hak_malloc_stats(void) HAK_NOEXCEPT;

/* ---- beyond the standard ------------------------------------------------------------------------------- */

/* The usable size that hak_malloc(`size`) would give: what to round a growing buffer to. SIZE_MAX is never
 * returned; a size that hak_malloc() refuses gives 0. */
HAK_PUBLIC size_t hak_good_size(size_t size) HAK_NOEXCEPT HAK_ATTR(const);

/* A block and the bytes that may be used in it. */
struct hak_sized_ptr {
    void *ptr;
    size_t size;
};

/* Allocates at least `size` bytes and says how many there are; {NULL, 0} and ENOMEM on failure.
 * After C++23 allocate_at_least. */
HAK_PUBLIC struct hak_sized_ptr hak_malloc_at_least(size_t size) HAK_NOEXCEPT HAK_ATTR(warn_unused_result);

/* hak_realloc() that zeroes what is new: bytes from the old *usable* size to the new usable size are zero. For a block
 * whose every resize went through it, all bytes beyond what the caller wrote are zero. */
HAK_PUBLIC void *hak_rezalloc(void *ptr, size_t size) HAK_NOEXCEPT HAK_ATTR(alloc_size(2), warn_unused_result);

/* 1 if `ptr` points into memory that hakmem manages (a live block, or memory it holds for later), else 0.
 * Never dereferences `ptr`. Signal-safe. */
HAK_PUBLIC int hak_is_owned(const void *ptr) HAK_NOEXCEPT;

/* Empties the calling thread's caches into the layers below, and delivers its pending remote frees. */
HAK_PUBLIC void hak_thread_flush(void) HAK_NOEXCEPT;

/* hak_thread_flush(), collects what was freed into the memory of threads that are in no slow path of hakmem at the
 * moment, then gives every free page back to the system at once. Returns the bytes given back. */
HAK_PUBLIC size_t hak_purge(void) HAK_NOEXCEPT;

/* The layers, by requested size. */
enum hak_layer {
    HAK_LAYER_TINY, /* 0 .. 1 KiB */
    HAK_LAYER_MID,  /* 1 .. 32 KiB */
    HAK_LAYER_L25,  /* 32 KiB .. 1 MiB */
    HAK_LAYER_BIG,  /* over 1 MiB */
    HAK_LAYER_COUNT
};

#define HAK_STATS_VERSION 1

/* Figures of one layer. Counters only grow. The thread caches count nothing on their hot path: what lies in
 * the caches of *other* threads is known as of their last slow-path visit and counts as live until then. */
struct hak_layer_stats {
    uint64_t live_bytes;    /* usable bytes of live blocks */
    uint64_t live_blocks;   /* how many */
    uint64_t cached_bytes;  /* free blocks held in thread caches (Tiny, Mid) or in BigCache */
    uint64_t mapped_bytes;  /* address space this layer holds now */
    uint64_t served_bytes;  /* bytes this layer ever handed up (a cache hit of Tiny and Mid is not seen) */
    uint64_t served_blocks; /* how many */
    uint64_t purged_bytes;  /* bytes ever given back to the system by this layer */
};

/* A snapshot. The fields after `size` are filled up to the caller's size, so that a program built against an
 * older header keeps working; fields it does not know are left out. */
struct hak_stats {
    uint32_t version; /* in: HAK_STATS_VERSION */
    uint32_t size;    /* in: sizeof(struct hak_stats) */
    struct hak_layer_stats layer[HAK_LAYER_COUNT];
    uint64_t metadata_bytes;  /* mapped for descriptors, caches and maps */
    uint64_t mappings;        /* mappings asked of the system and not yet returned */
    uint64_t threads;         /* heaps in use by a thread */
    uint64_t heaps_parked;    /* heaps whose thread has ended */
    uint64_t superslabs;      /* 2 MiB superslabs mapped */
    uint64_t slabs;           /* slabs (64 KiB each; a span counts all of its own) in use */
    uint64_t remote_frees;    /* blocks sent back to the thread that owns their slab */
    uint64_t adopted_slabs;   /* slabs taken over from other heaps */
    uint64_t tls_refills;     /* thread-cache refills */
    uint64_t tls_flushes;     /* thread-cache flushes */
    uint64_t tls_grows;       /* bins doubled */
    uint64_t tls_shrinks;     /* bins halved */
    uint64_t l25_shards;      /* shards now */
    uint64_t l25_expansions;  /* times the shard table doubled */
    uint64_t l25_lock_misses; /* try-locks of a shard that failed */
    uint64_t l25_requests;    /* requests that reached a shard */
    uint64_t big_buckets;     /* buckets of the BigCache table now */
    uint64_t big_resizes;     /* times it doubled */
    uint64_t big_hits;        /* requests over 1 MiB served from the cache */
    uint64_t big_misses;      /* and not */
    uint64_t big_evictions;   /* cached mappings dropped for room or age */
    uint64_t foreign_frees;   /* pointers of another allocator passed to us and ignored */
};

/* Fills `*stats`, whose `version` and `size` the caller has set. Returns 0, or EINVAL for NULL, an unknown
 * version or a size below the first two fields. Allocates nothing; takes a snapshot without stopping threads. */
HAK_PUBLIC int hak_stats_get(struct hak_stats *stats) HAK_NOEXCEPT;

enum hak_format { HAK_FORMAT_TEXT, HAK_FORMAT_JSON };

/* Writes the statistics to file descriptor `fd` as text or as one JSON object. Allocates nothing. Returns 0,
 * EINVAL for an unknown format, or the errno of the failed write. */
HAK_PUBLIC int hak_stats_print(int fd, enum hak_format format) HAK_NOEXCEPT;

/* The version of the library in use, "MAJOR.MINOR.PATCH", with "-checked" behind it in the checked build. */
HAK_PUBLIC const char *hak_version(void) HAK_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif
