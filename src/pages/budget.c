/* Budgets of dirty memory, and what is counted for them (budget.h). */
#include "pages/budget.h"

#include "base/options.h"
#include "base/sync.h"
#include "base/sys.h"

/* By so many times RETAIN_BYTES all budgets together may rise: a process that goes idle may keep it. */
#define EXTRA_MAX 256
/* Each by so many, its floor by twice as many; further only as long as no more is in use and kept than was live at the
 * peak. */
#define EXTRA_LEAST 8
#define FLOOR_SHARE 8

static struct {
    HAK_ALIGNED_LINE _Atomic ptrdiff_t balance; /* taken since the counts were, less what went at once */
    _Atomic uint64_t gone_ms;                   /* when something went at once, the last time */
    _Atomic uint64_t trimmed_ms;                /* when something was trimmed, the last time */
    _Atomic size_t trimmed;                     /* by then, and not taken anew since */
    _Atomic size_t extra;                       /* trimmed too early, of late */
    _Atomic uint64_t peak;                      /* most that blocks took up, of late */
} counts[HAK_STORES];

void hak_budget_note_live(enum hak_store store, uint64_t bytes) {
    if (bytes > hak_load_rlx(&counts[store].peak)) hak_store_rlx(&counts[store].peak, bytes);
}

static uint64_t small_extra(void) { return EXTRA_LEAST * hak_option(RETAIN_BYTES); }

bool hak_budget_asks_live(enum hak_store store) { return hak_load_rlx(&counts[store].extra) >= small_extra(); }

/* Memory that comes and goes as a whole may stay as it was at its peak. */
static uint64_t most_extra(enum hak_store store, uint64_t in_use) {
    const uint64_t peak = hak_load_rlx(&counts[store].peak);
    return small_extra() + (peak > in_use ? peak - in_use : 0);
}

static uint64_t least_of(uint64_t a, uint64_t b) { return a < b ? a : b; }

uint64_t hak_budget(enum hak_store store, enum hak_budget_part part, uint64_t in_use) {
    if (part == HAK_BUDGET_NONE) return 0;
    if (store != HAK_STORE_SLABS) hak_budget_note_live(store, in_use); /* there is often little in a slab in use */
    const uint64_t percent = hak_option(RETAIN_PERCENT);
    const uint64_t fixed = store == HAK_STORE_BIG ? hak_option(BIGCACHE_RESIDENT) : hak_option(RETAIN_BYTES);
    /* Free slabs fit nearly anywhere, so that an eighth of the share is enough to keep them for the next taker. */
    const uint64_t share = in_use / (store == HAK_STORE_SLABS ? 800 : 100) * percent;
    const uint64_t budget = fixed > share ? fixed : share;
    const uint64_t kept = part == HAK_BUDGET_FLOOR ? budget / FLOOR_SHARE : budget;
    if (percent == 0) return kept;
    /* Of much, most is there for the others to grow into: else each might keep what only one at a time needs. */
    const uint64_t most = part == HAK_BUDGET_FLOOR ? 2 * small_extra() : most_extra(store, in_use);
    return kept + least_of(hak_load_rlx(&counts[store].extra), most);
}

void hak_budget_count(enum hak_store store, ptrdiff_t bytes) {
    if (bytes < 0) hak_store_rlx(&counts[store].gone_ms, hak_sys_now_ms());
    hak_add_rlx(&counts[store].balance, bytes);
}

static bool is_past(const _Atomic uint64_t *time_ms, uint64_t now_ms) {
    return now_ms >= hak_load_rlx(time_ms) + hak_option(PURGE_DELAY_MS);
}

void hak_budget_trimmed(enum hak_store store, size_t bytes) {
    if (bytes == 0 || hak_option(RETAIN_PERCENT) == 0) return;
    const uint64_t now_ms = hak_sys_now_ms();
    if (is_past(&counts[store].trimmed_ms, now_ms)) hak_store_rlx(&counts[store].trimmed, 0);
    hak_store_rlx(&counts[store].trimmed_ms, now_ms);
    hak_add_rlx(&counts[store].trimmed, bytes);
}

bool hak_budget_was_trimmed(enum hak_store store) { return hak_load_rlx(&counts[store].trimmed) != 0; }

static uint64_t extra_of_all(void) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < HAK_STORES; i++) sum += hak_load_rlx(&counts[i].extra);
    return sum;
}

void hak_budget_retaken(enum hak_store store, size_t bytes) {
    size_t trimmed = hak_load_rlx(&counts[store].trimmed);
    const bool late = is_past(&counts[store].trimmed_ms, hak_sys_now_ms());
    if (bytes > trimmed) bytes = trimmed;
    if (!hak_cas_acqrel(&counts[store].trimmed, &trimmed, late ? 0 : trimmed - bytes) || late) return;
    const uint64_t extra = hak_load_rlx(&counts[store].extra), most = most_extra(store, 0);
    if (extra >= most) return;
    bytes = least_of(bytes, most - extra);
    if (extra_of_all() + bytes <= EXTRA_MAX * hak_option(RETAIN_BYTES)) hak_add_rlx(&counts[store].extra, bytes);
}

bool hak_budget_take(size_t least, size_t taken[HAK_STORES]) {
    ptrdiff_t sum = 0;
    for (unsigned i = 0; i < HAK_STORES; i++) sum += hak_load_rlx(&counts[i].balance);
    if (hak_likely(sum < (ptrdiff_t)least)) return false;
    for (unsigned i = 0; i < HAK_STORES; i++) {
        const ptrdiff_t balance = hak_xchg_acqrel(&counts[i].balance, 0);
        taken[i] = (size_t)(balance < 0 ? 0 : balance < sum ? balance : sum);
    }
    return true;
}

void hak_budget_decay(uint64_t now_ms) {
    static _Atomic uint64_t next_ms; /* who moves it on halves */
    uint64_t due_ms = hak_load_rlx(&next_ms);
    const bool halve = now_ms >= due_ms && hak_cas_acqrel(&next_ms, &due_ms, now_ms + hak_option(UNMAP_DELAY_MS));
    for (unsigned i = 0; i < HAK_STORES; i++) {
        ptrdiff_t balance = hak_load_rlx(&counts[i].balance);
        if (balance < 0 && is_past(&counts[i].gone_ms, now_ms)) hak_cas_acqrel(&counts[i].balance, &balance, 0);
        size_t extra = hak_load_rlx(&counts[i].extra);
        if (!halve) continue;
        if (extra != 0) hak_cas_acqrel(&counts[i].extra, &extra, extra / 2);
        hak_store_rlx(&counts[i].peak, hak_load_rlx(&counts[i].peak) / 2);
    }
}

static void forget(enum hak_store store) {
    hak_store_rlx(&counts[store].balance, 0);
    hak_store_rlx(&counts[store].trimmed, 0);
    hak_store_rlx(&counts[store].extra, 0);
    hak_store_rlx(&counts[store].peak, 0);
}

/* The child is another program as a rule, and most of what the parent gives back and takes is not its. */
void hak_budget_fork_child(void) {
    for (unsigned i = 0; i < HAK_STORES; i++) forget(i);
}

#if HAK_TEST
void hak_budget_reset_for_test(enum hak_store store) { forget(store); }
#endif
