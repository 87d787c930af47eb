/* What slow paths do besides: give back what is too old, or too much where memory grows (tick.h). */
#include "front/tick.h"

#include "base/sys.h"
#include "front/fork.h"
#include "front/heap.h"
#include "front/tcache.h"
#include "pages/budget.h"
#include "stores/bigcache.h"
#include "stores/l25.h"
#include "stores/slab.h"

/* Slow-path visits between two looks at the clock. */
#define CLOCK_VISITS 32
#define DECAY_INTERVAL_MS 50
#define SWEEP_INTERVAL_MS 1000
/* Memory that was not resident before, taken by all: then as much of what is dirty is given back. */
#define RECLAIM_BYTES HAK_MIB
/* So many heaps are asked what they hold for each of these. */
#define LIVE_HEAPS 64

static void decay(struct hak_heap *heap) {
    static _Atomic uint64_t next_ms; /* any thread: who moves it on does the work; relaxed: publishes nothing */
    uint64_t now = hak_sys_now_ms(), due = hak_load_rlx(&next_ms);
    if (now >= heap->next_sweep_ms) {
        if (heap->next_sweep_ms != 0) hak_tcache_sweep(heap);
        heap->next_sweep_ms = now + SWEEP_INTERVAL_MS;
    }
    if (now < due || !hak_cas_acqrel(&next_ms, &due, now + DECAY_INTERVAL_MS)) return;
    hak_heap_lend_sleeping(); /* so that what is freed into them goes back, too */
    hak_slab_decay(now);
    hak_l25_decay(now);
    hak_big_decay(now);
    hak_budget_decay(now);
}

/* Asks all heaps; the more there are the less often. */
static void tell_live(void) {
    static _Atomic uint64_t rest; /* any thread; relaxed: one time more or less */
    const uint64_t left = hak_load_rlx(&rest);
    if (left != 0) {
        hak_store_rlx(&rest, left - 1);
        return;
    }
    struct hak_front_stats front;
    hak_front_stats(&front);
    hak_store_rlx(&rest, (front.threads + front.heaps_parked) / LIVE_HEAPS);
    hak_budget_note_live(HAK_STORE_SLABS, front.live_bytes[0] + front.live_bytes[1]);
}

/* The stores do not share their free memory, but where one grows the others shrink. What a store takes while it holds
 * dirty memory of its own did not fit there: then it must not shrink as well, or it would take and purge in turn. */
static void reclaim(void) {
    size_t taken[HAK_STORES];
    if (!hak_budget_take(RECLAIM_BYTES, taken)) return;
    if (hak_budget_asks_live(HAK_STORE_SLABS)) tell_live();
    const size_t slabs = taken[HAK_STORE_SLABS], l25 = taken[HAK_STORE_L25], big = taken[HAK_STORE_BIG];
    if (slabs != 0) {
        hak_heap_lend_sleeping();
        hak_slab_relieve();
    }
    if (l25 + big != 0) hak_budget_trimmed(HAK_STORE_SLABS, hak_slab_reclaim(l25 + big));
    if (slabs + big != 0) hak_budget_trimmed(HAK_STORE_L25, hak_l25_reclaim(slabs + big));
    if (slabs + l25 != 0) hak_budget_trimmed(HAK_STORE_BIG, hak_big_reclaim(slabs + l25));
}

void hak_tick(void) {
    hak_fork_check();
    reclaim();
    struct hak_heap *heap = hak_heap_peek();
    if (heap == NULL) return;
    hak_count_by_owner(&heap->visits, 1);
    if (hak_load_rlx(&heap->visits) % CLOCK_VISITS != 0) return;
    bool nested;
    if (!hak_heap_enter(heap, &nested)) return;
    decay(heap);
    hak_heap_leave(heap, nested);
}
