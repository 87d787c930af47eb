/* Budgets of dirty memory, and what is counted for them (budget.h). */
#include "pages/budget.h"

#include "base/options.h"
#include "base/sync.h"
#include "base/sys.h"

static HAK_ALIGNED_LINE struct {
    _Atomic size_t fresh;        /* taken, less what went; below zero, as two's complement, where more went */
    _Atomic size_t trimmed;      /* over budget, and not taken anew since */
    _Atomic size_t extra;        /* trimmed and taken anew within PURGE_DELAY_MS: beyond the budget, of late */
    _Atomic uint64_t trimmed_ms; /* the last time */
} counts[HAK_STORES];

uint64_t hak_budget(enum hak_store store, uint64_t live_bytes) {
    const uint64_t percent = hak_option(RETAIN_PERCENT);
    const uint64_t fixed = store == HAK_STORE_BIG ? hak_option(BIGCACHE_RESIDENT) : hak_option(RETAIN_BYTES);
    /* Free slabs fit nearly anywhere, so that a quarter of the share is enough to keep them for the next taker. */
    const uint64_t share = live_bytes / (store == HAK_STORE_SLABS ? 400 : 100) * percent;
    const uint64_t extra = percent == 0 ? 0 : hak_load_rlx(&counts[store].extra);
    return (fixed > share ? fixed : share) + extra;
}

/* Memory is taken by a store that had to give some back: was that too early? */
static void regret(enum hak_store store, size_t bytes) {
    size_t trimmed = hak_load_rlx(&counts[store].trimmed);
    const bool late = hak_sys_now_ms() >= hak_load_rlx(&counts[store].trimmed_ms) + hak_option(PURGE_DELAY_MS);
    if (bytes > trimmed) bytes = trimmed;
    if (hak_cas_acqrel(&counts[store].trimmed, &trimmed, late ? 0 : trimmed - bytes) && !late)
        hak_add_rlx(&counts[store].extra, bytes);
}

void hak_budget_count_fresh(enum hak_store store, size_t bytes, bool spent) {
    hak_add_rlx(&counts[store].fresh, bytes);
    if (spent && hak_load_rlx(&counts[store].trimmed) != 0) regret(store, bytes);
}

void hak_budget_count_gone(enum hak_store store, size_t bytes) { hak_sub_rlx(&counts[store].fresh, bytes); }

void hak_budget_count_trimmed(enum hak_store store, size_t bytes) {
    if (bytes == 0) return;
    hak_store_rlx(&counts[store].trimmed_ms, hak_sys_now_ms());
    hak_add_rlx(&counts[store].trimmed, bytes);
}

bool hak_budget_take_fresh(size_t least, size_t fresh[HAK_STORES]) {
    size_t sum = 0;
    for (unsigned i = 0; i < HAK_STORES; i++) sum += hak_load_rlx(&counts[i].fresh);
    if (hak_likely((ptrdiff_t)sum < (ptrdiff_t)least)) return false;
    for (unsigned i = 0; i < HAK_STORES; i++) {
        fresh[i] = hak_xchg_acqrel(&counts[i].fresh, 0);
        if ((ptrdiff_t)fresh[i] < 0) fresh[i] = 0;
    }
    return true;
}

void hak_budget_decay(uint64_t now_ms) {
    static _Atomic uint64_t next_ms; /* who finds it due is alone: hak_tcache_tick() */
    if (now_ms < hak_load_rlx(&next_ms)) return;
    hak_store_rlx(&next_ms, now_ms + hak_option(UNMAP_DELAY_MS));
    for (unsigned i = 0; i < HAK_STORES; i++) {
        const size_t extra = hak_load_rlx(&counts[i].extra);
        hak_sub_rlx(&counts[i].extra, extra - extra / 2);
    }
}

#if HAK_TEST
void hak_budget_reset_for_test(enum hak_store store) {
    hak_store_rlx(&counts[store].fresh, 0);
    hak_store_rlx(&counts[store].trimmed, 0);
    hak_store_rlx(&counts[store].extra, 0);
}
#endif
