/* What l25_record writes and sim_shards replays: a line `KIND NANOSECONDS` for each time, in the order in which they
 * were taken. */
#ifndef HAK_BENCH_L25_RECORD_H
#define HAK_BENCH_L25_RECORD_H

enum l25_kind {
    L25_ALLOC_REST,  /* a malloc and the program's own work before it, less what follows */
    L25_FREE_REST,   /* a free, likewise */
    L25_ALLOC_OWN,   /* a shard's lock held by malloc; this thread had held it last */
    L25_ALLOC_MOVED, /* the same; another thread had held it last, on another processor */
    L25_FREE_OWN,    /* held by free */
    L25_FREE_MOVED,  /* held by free, another thread had */
    L25_MISS,        /* a try-lock that failed */
    L25_HANDOVER,    /* from a release to the moment when a thread that had to wait has the lock */
    L25_MAP,         /* system calls: mmap with munmap, */
    L25_PURGE,       /* madvise */
    L25_KINDS
};

static const char *const l25_kind_names[L25_KINDS] = {"alloc_rest", "free_rest", "alloc_own", "alloc_moved", "free_own",
                                                      "free_moved", "miss",      "handover",  "map",         "purge"};

#endif
