/* Kernels with planted defects, and the same without: does the exploration find what it is for, and only that? They
 * use none of the allocator but its atomics and locks. Names of those that are to be found begin with "bad_". */
#include "kernels.h"

#include "world.h"

#include "base/sync.h"

#define must(condition)                                                                                                \
    do                                                                                                                 \
        if (!(condition)) sched_finding("not true: " #condition);                                                      \
    while (0)

/* ---- a counter: depth 2 ------------------------------------------------------------------------------------------ */

static _Atomic uint32_t counter;
static void reset_counter(void) { hak_store_rlx(&counter, 0); }
static void add_in_two_steps(void) { hak_store_rlx(&counter, hak_load_rlx(&counter) + 1); } /* two points */
static void add_at_once(void) { hak_add_rlx(&counter, 1); }
static void counted_two(void) { must(hak_load_rlx(&counter) == 2); }

/* ---- a stack of free nodes that is popped by compare-and-swap: ABA, depth 3 ----------------------------------------
 */

#define NODES 3
static _Atomic uint64_t top; /* index + 1, and above it a tag that `tagged` makes count */
static _Atomic uint32_t next_of[NODES];
static _Atomic uint32_t owner_of[NODES];
static bool tagged;

static void reset_stack(bool with_tag) {
    tagged = with_tag;
    hak_store_rlx(&top, 1);
    for (uint32_t i = 0; i < NODES; i++) {
        hak_store_rlx(&next_of[i], i + 1 < NODES ? i + 2 : 0);
        hak_store_rlx(&owner_of[i], 0);
    }
}
static void reset_stack_without_tag(void) { reset_stack(false); }
static void reset_stack_with_tag(void) { reset_stack(true); }

static uint64_t with_tag_of(uint64_t old, uint32_t index) { return (tagged ? (old >> 32) + 1 : 0) << 32 | index; }

static uint32_t pop(void) {
    uint64_t old = hak_load_acq(&top);
    while ((uint32_t)old != 0) {
        uint32_t next = hak_load_rlx(&next_of[(uint32_t)old - 1]);
        if (!hak_cas_acqrel(&top, &old, with_tag_of(old, next))) continue;
        must(hak_xchg_acqrel(&owner_of[(uint32_t)old - 1], 1) == 0); /* handed out twice? */
        return (uint32_t)old;
    }
    return 0;
}

static void push(uint32_t index) {
    if (index == 0) return;
    hak_store_rlx(&owner_of[index - 1], 0);
    uint64_t old = hak_load_acq(&top);
    do hak_store_rlx(&next_of[index - 1], (uint32_t)old);
    while (!hak_cas_acqrel(&top, &old, with_tag_of(old, index)));
}

static void pop_and_keep(void) { pop(); }
static void pop_two_push_first(void) {
    uint32_t first = pop();
    pop();
    push(first);
    pop();
}
static void nothing_more(void) {}

/* ---- two locks ------------------------------------------------------------------------------------------------------
 */

static struct hak_lock lock_a = HAK_LOCK_INIT(HAK_RANK_META), lock_b = HAK_LOCK_INIT(HAK_RANK_META);
static void in_both(struct hak_lock *first, struct hak_lock *second) HAK_NO_TSA {
    hak_lock(first);
    hak_lock(second);
    hak_unlock(second);
    hak_unlock(first);
}
static void a_then_b(void) { in_both(&lock_a, &lock_b); }
static void b_then_a(void) { in_both(&lock_b, &lock_a); }

/* ---- a flag that one thread waits for -------------------------------------------------------------------------------
 */

static void wait_for_flag(void) {
    while (hak_load_acq(&counter) == 0) sched_yield_here();
}
static void raise_flag(void) { hak_store_rel(&counter, 1); }
static void forget_flag(void) { hak_load_rlx(&counter); }

/* ---- a plain variable behind a flag: for ThreadSanitizer
 * -------------------------------------------------------------- */

int planted_payload; /* not static, or the compiler would know too much of it */
static void publish_relaxed(void) {
    planted_payload = 1;
    hak_store_rlx(&counter, 1);
}
static void publish(void) {
    planted_payload = 1;
    hak_store_rel(&counter, 1);
}
static void use_payload(void) {
    if (hak_load_acq(&counter) != 0) must(planted_payload == 1);
}

#define TWO(a, b)                                                                                                      \
    {                                                                                                                  \
        .threads = 2, .body = { a, b }                                                                                 \
    }
const struct kernel kernels[] = {
    {"bad_counter", "an increment in two steps", reset_counter, TWO(add_in_two_steps, add_in_two_steps), counted_two},
    {"good_counter", "an increment at once", reset_counter, TWO(add_at_once, add_at_once), counted_two},
    {"bad_stack", "ABA", reset_stack_without_tag, TWO(pop_and_keep, pop_two_push_first), nothing_more},
    {"good_stack", "the same with a tag", reset_stack_with_tag, TWO(pop_and_keep, pop_two_push_first), nothing_more},
    {"bad_locks", "two locks in both orders", reset_counter, TWO(a_then_b, b_then_a), nothing_more},
    {"good_locks", "two locks in one order", reset_counter, TWO(a_then_b, a_then_b), nothing_more},
    {"bad_flag", "a wait for what never comes", reset_counter, TWO(wait_for_flag, forget_flag), nothing_more},
    {"good_flag", "a wait for what comes", reset_counter, TWO(wait_for_flag, raise_flag), nothing_more},
    {"bad_order", "a relaxed store publishes (ThreadSanitizer)", reset_counter, TWO(publish_relaxed, use_payload),
     nothing_more},
    {"good_order", "a release store publishes", reset_counter, TWO(publish, use_payload), nothing_more},
};
const size_t kernel_count = sizeof kernels / sizeof *kernels;

void kernel_run(const struct kernel *kernel, const struct sched_config *config) {
    world_reset();
    kernel->setup();
    sched_run(config, &kernel->program);
    kernel->check();
}
