/* The allocator's own figures, where the program runs on hakmem. */
#ifndef HAK_BENCH_STATS_H
#define HAK_BENCH_STATS_H

#include "bench.h"

#include "hakmem.h"

#include <dlfcn.h>

/* False on another allocator. Allocates nothing after the first call. */
BENCH_INLINE bool bench_stats(struct hak_stats *stats) {
    static int (*get)(struct hak_stats *);
    if (get == NULL) *(void **)&get = dlsym(RTLD_DEFAULT, "hak_stats_get");
    *stats = (struct hak_stats){.version = HAK_STATS_VERSION, .size = sizeof *stats};
    return get != NULL && get(stats) == 0;
}

/* Free blocks that lie in the caches of all threads. */
BENCH_INLINE uint64_t bench_stats_cached_bytes(const struct hak_stats *stats) {
    return stats->layer[HAK_LAYER_TINY].cached_bytes + stats->layer[HAK_LAYER_MID].cached_bytes;
}

#endif
