/* Call sites for benchmarks of BigCache, which files blocks by the return address of the call that made them. */
#ifndef HAK_BENCH_BIGCACHE_SITES_H
#define HAK_BENCH_BIGCACHE_SITES_H

#include "bench.h"

/* realloc(NULL, bytes) is malloc. Its result passes through an empty asm that is different in each function: so none of
 * the calls is a jump, which would leave no return address here, and no two functions are merged into one. */
#define BENCH_SITE(n)                                                                                                  \
    static __attribute__((noinline)) void *bench_site_##n(void *ptr, size_t bytes) {                                   \
        ptr = realloc(ptr, bytes);                                                                                     \
        __asm__ volatile("" : "+r"(ptr) : "i"(n));                                                                     \
        return ptr;                                                                                                    \
    }
#define BENCH_SITE_NAME(n) bench_site_##n,
#define BENCH_EACH_SITE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

BENCH_EACH_SITE(BENCH_SITE)
static void *(*const bench_sites[])(void *ptr, size_t bytes) = {BENCH_EACH_SITE(BENCH_SITE_NAME)};
#define BENCH_SITES (sizeof bench_sites / sizeof *bench_sites)

#endif
