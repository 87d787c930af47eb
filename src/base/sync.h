/* All synchronisation: atomics and locks. Nothing else in hakmem touches <stdatomic.h>, so that a reader
 * finds every ordering by one grep, and a scheduling point (point.h) stands at each operation.
 *
 * The memory order is in the operation's name; the comment at each use names the partner. There are no fences:
 * ThreadSanitizer does not see them. The table of all locks and atomics is in docs/ARCHITECTURE.md. */
#ifndef HAK_BASE_SYNC_H
#define HAK_BASE_SYNC_H

#include "base/config.h"
#include "base/point.h"

#include <stdatomic.h>

#define hak_load_rlx(p) (HAK_POINT("load", true, p), atomic_load_explicit(p, memory_order_relaxed))
#define hak_load_acq(p) (HAK_POINT("load", true, p), atomic_load_explicit(p, memory_order_acquire))
#define hak_store_rlx(p, v) atomic_store_explicit(p, HAK_POINT_THEN("store", false, p, v), memory_order_relaxed)
#define hak_store_rel(p, v) atomic_store_explicit(p, HAK_POINT_THEN("store", false, p, v), memory_order_release)
#define hak_xchg_acqrel(p, v) atomic_exchange_explicit(p, HAK_POINT_THEN("xchg", false, p, v), memory_order_acq_rel)
#define hak_or_acqrel(p, v) atomic_fetch_or_explicit(p, HAK_POINT_THEN("or", false, p, v), memory_order_acq_rel)
#define hak_and_acqrel(p, v) atomic_fetch_and_explicit(p, HAK_POINT_THEN("and", false, p, v), memory_order_acq_rel)
#define hak_add_rlx(p, v) atomic_fetch_add_explicit(p, HAK_POINT_THEN("add", false, p, v), memory_order_relaxed)
#define hak_sub_rlx(p, v) atomic_fetch_sub_explicit(p, HAK_POINT_THEN("sub", false, p, v), memory_order_relaxed)
/* Compare-and-swap: `*expected` is refreshed on failure, acquire either way, release on success. */
#define hak_cas_acqrel(p, expected, v)                                                                                 \
    atomic_compare_exchange_strong_explicit(p, expected, HAK_POINT_THEN("cas", false, p, v), memory_order_acq_rel,     \
                                            memory_order_acquire)

/* A counter written by one thread (its owner) and read by any: no read-modify-write needed. No scheduling point either,
 * for nothing is decided by it. */
#define hak_count_by_owner(p, n)                                                                                       \
    atomic_store_explicit(p, atomic_load_explicit(p, memory_order_relaxed) + (n), memory_order_relaxed)

/* Makes the compiler forget what it knows of a variable, or of memory, at the cost of no instruction. The hot paths
 * use it where it would otherwise spend one on an address or a value that a memory operand gives for free. */
#define hak_forget_register(x) __asm__("" : "+r"(x))
#define hak_forget_memory() __asm__ volatile("" ::: "memory")

#if defined(__clang__)
#define HAK_TSA(x) __attribute__((x))
#else
#define HAK_TSA(x)
#endif
#define HAK_GUARDED_BY(lock) HAK_TSA(guarded_by(lock))
#define HAK_REQUIRES(lock) HAK_TSA(requires_capability(lock))
#define HAK_ACQUIRE(lock) HAK_TSA(acquire_capability(lock))
#define HAK_TRY_ACQUIRE(lock) HAK_TSA(try_acquire_capability(true, lock))
#define HAK_RELEASE(lock) HAK_TSA(release_capability(lock))
#define HAK_NO_TSA HAK_TSA(no_thread_safety_analysis)

/* The lock law: a thread takes locks only in falling rank, from the top floor down. Debug builds check it. */
enum hak_rank {
    HAK_RANK_META = 1,  /* metadata arena */
    HAK_RANK_RETAINED,  /* ranges that munmap refused */
    HAK_RANK_REGION,    /* growth of the region map */
    HAK_RANK_BIGCACHE,  /* BigCache table */
    HAK_RANK_L25,       /* one shard of the L2.5 pool */
    HAK_RANK_L25_TABLE, /* growth of the shard table */
    HAK_RANK_SLABS,     /* superslabs */
    HAK_RANK_HEAPS,     /* registry of heaps; the thread-exit key */
    HAK_RANK_SHARED     /* the heap of threads that have none */
};

/* A mutual-exclusion lock of 16 bytes that knows its holder. Zero plus a rank is unlocked. A short spin, then a
 * futex wait. Taking it twice from one thread (a signal handler that interrupted malloc and calls malloc) ends
 * the process with a line that says so, instead of hanging. */
struct HAK_TSA(capability("mutex")) hak_lock {
    _Atomic uint64_t word; /* 0, or the holder's thread pointer, plus 1 while somebody may be waiting */
    uint8_t rank;          /* constant after init */
};
#define HAK_LOCK_INIT(r)                                                                                               \
    { .rank = (uint8_t)(r) }

#if HAK_DEBUG
/* The ranks of the locks that this thread holds, a bit each. A scheduler keeps it for each of its threads. */
extern _Thread_local uint32_t hak_held_ranks;
#endif

bool hak_lock_try(struct hak_lock *lock) HAK_TRY_ACQUIRE(*lock);
void hak_lock(struct hak_lock *lock) HAK_ACQUIRE(*lock);
void hak_unlock(struct hak_lock *lock) HAK_RELEASE(*lock);

/* In a forked child: frees a lock that a thread of the parent held. True if one did: what the lock protects may
 * be half changed and is to be set aside. What the calling thread itself holds stays held. */
bool hak_lock_reset_in_child(struct hak_lock *lock);

#endif
