/* The futex lock of sync.h. The word holds the thread pointer of its holder, so that a forked child knows which
 * locks nobody will ever release, and a thread that meets itself says so instead of hanging.
 * Called from everywhere; calls only the OS layer. */
#include "base/log.h"
#include "base/sync.h"
#include "base/sys.h"

#define WAITERS ((uint64_t)1)
/* A lock is held for some tens of instructions; longer spinning only helps when the holder is not preempted. Under a
 * scheduler that runs one thread at a time it never does. */
#define SPINS (HAK_SCHED ? 0 : 60)

#if HAK_DEBUG
static_assert(HAK_RANK_SHARED < 32, "a bit per rank");
_Thread_local uint32_t hak_held_ranks;
/* Before a wait. A try needs no check, for it waits for nobody: a forked child may try what lies above a lock that its
 * thread was interrupted with. Locks of one rank are shards of one table, only ever tried one under the other. */
static void rank_check(const struct hak_lock *lock) { hak_assert((hak_held_ranks & ((1U << lock->rank) - 1)) == 0); }
static void rank_push(const struct hak_lock *lock) { hak_held_ranks |= 1U << lock->rank; }
static void rank_pop(const struct hak_lock *lock) { hak_held_ranks &= ~(1U << lock->rank); }
#else
static void rank_check(const struct hak_lock *lock) { (void)lock; }
static void rank_push(const struct hak_lock *lock) { (void)lock; }
static void rank_pop(const struct hak_lock *lock) { (void)lock; }
#endif

/* The half of the word that a futex can watch; it holds the waiters bit. */
static const void *futex_word(const struct hak_lock *lock) {
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half of the word comes first");
    return &lock->word;
}

static bool take(struct hak_lock *lock, uint64_t value) {
    uint64_t expected = 0;
    return hak_cas_acqrel(&lock->word, &expected, value); /* acquire: pairs with the release in hak_unlock */
}

bool hak_lock_try(struct hak_lock *lock) HAK_NO_TSA {
    if (!take(lock, hak_sys_thread())) return false;
    rank_push(lock);
    return true;
}

static HAK_COLD void die_of_recursion(void) {
    hak_warn("malloc was called by a signal handler that had interrupted malloc");
    hak_sys_abort();
}

static HAK_COLD void lock_slow(struct hak_lock *lock) {
    const uint64_t self = hak_sys_thread();
    for (int i = 0; i < SPINS; i++) {
        if (hak_load_rlx(&lock->word) == 0 && take(lock, self)) return;
        hak_sys_relax();
    }
    for (;;) {
        /* From here on the lock is taken with the waiters bit, for there may be sleepers that we do not know of. */
        if (take(lock, self | WAITERS)) return;
        uint64_t seen = hak_load_rlx(&lock->word);
        if ((seen & ~WAITERS) == self) die_of_recursion();
        if (seen == 0) continue;
        if ((seen & WAITERS) == 0 && !hak_cas_acqrel(&lock->word, &seen, seen | WAITERS)) continue;
        hak_sys_futex_wait(futex_word(lock), (uint32_t)(seen | WAITERS));
    }
}

void hak_lock(struct hak_lock *lock) HAK_NO_TSA {
    rank_check(lock);
    if (hak_unlikely(!take(lock, hak_sys_thread()))) lock_slow(lock);
    rank_push(lock);
}

void hak_unlock(struct hak_lock *lock) HAK_NO_TSA {
    rank_pop(lock);
    /* release: what was written under the lock is seen by the next holder's acquire */
    if (hak_unlikely((hak_xchg_acqrel(&lock->word, 0) & WAITERS) != 0)) hak_sys_futex_wake(futex_word(lock), 1);
}

bool hak_lock_reset_in_child(struct hak_lock *lock) {
    uint64_t word = hak_load_rlx(&lock->word);
    if (word == 0 || (word & ~WAITERS) == hak_sys_thread()) return false;
    hak_store_rlx(&lock->word, 0);
    return true;
}
