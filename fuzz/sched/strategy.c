/* Choosers (strategy.h). Not compiled with ThreadSanitizer: their state goes with the turn. */
#include "strategy.h"

uint64_t strategy_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

static unsigned first_of(sched_set set) { return (unsigned)__builtin_ctz(set); }
static unsigned count_of(sched_set set) { return (unsigned)__builtin_popcount(set); }

static unsigned nth_of(sched_set set, unsigned n) {
    while (n-- > 0) set &= set - 1;
    return first_of(set);
}

static bool can_go_on(const struct sched_choice *choice) { return (choice->ready >> choice->current & 1) != 0; }

/* Stays where it is; where it cannot, or only waits for others, goes round. */
static unsigned go_on(const struct sched_choice *choice) {
    if (can_go_on(choice) && !choice->yields) return choice->current;
    sched_set above = choice->ready & ~((2U << choice->current) - 1);
    return first_of(above != 0 ? above : choice->ready);
}

unsigned replay_choose(const struct sched_choice *choice, void *data) {
    struct replay *replay = data;
    const struct sched_schedule *schedule = replay->schedule;
    while (replay->next < schedule->count && schedule->at[replay->next].step < choice->step) replay->next++;
    if (replay->next < schedule->count && schedule->at[replay->next].step == choice->step)
        return schedule->at[replay->next++].thread;
    return can_go_on(choice) ? choice->current : first_of(choice->ready);
}

unsigned bytes_choose(const struct sched_choice *choice, void *data) {
    struct bytes *bytes = data;
    if (!bytes->loaded && bytes->used + 2 <= bytes->size) {
        bytes->gap = bytes->data[bytes->used];
        bytes->loaded = true;
    }
    if (!bytes->loaded || (can_go_on(choice) && (!choice->contended || bytes->gap-- != 0))) return go_on(choice);
    unsigned pick = bytes->data[bytes->used + 1];
    bytes->used += 2;
    bytes->loaded = false;
    return nth_of(choice->ready, pick % count_of(choice->ready));
}

unsigned random_choose(const struct sched_choice *choice, void *data) {
    struct random_walk *walk = data;
    bool stay = can_go_on(choice) && !choice->yields;
    if (stay && (!choice->contended || strategy_random(&walk->state) % walk->period != 0)) return choice->current;
    return nth_of(choice->ready, (unsigned)(strategy_random(&walk->state) % count_of(choice->ready)));
}

void pct_start(struct pct *pct, uint64_t seed, unsigned threads, unsigned depth, uint32_t steps) {
    uint64_t state = seed * 0x9E3779B97F4A7C15U | 1;
    for (unsigned i = 0; i < 8; i++) strategy_random(&state);
    *pct = (struct pct){.depth = depth < PCT_DEPTH_MAX ? depth : PCT_DEPTH_MAX};
    for (unsigned i = 0; i < threads; i++) pct->priority[i] = PCT_DEPTH_MAX + i;
    for (unsigned i = threads; i-- > 1;) {
        unsigned other = (unsigned)(strategy_random(&state) % (i + 1));
        uint32_t swap = pct->priority[i];
        pct->priority[i] = pct->priority[other];
        pct->priority[other] = swap;
    }
    for (unsigned i = 0; i + 1 < pct->depth; i++) pct->change_at[i] = (uint32_t)(strategy_random(&state) % (steps + 1));
}

unsigned pct_choose(const struct sched_choice *choice, void *data) {
    struct pct *pct = data;
    /* The lowest priorities are for the changes, the first change above the later ones. */
    for (unsigned i = 0; choice->contended && i + 1 < pct->depth; i++)
        if (pct->change_at[i] == pct->seen) pct->priority[choice->current] = pct->depth - 1 - pct->changed++;
    pct->seen += choice->contended;
    if (choice->yields) pct->priority[choice->current] = 0;
    unsigned best = first_of(choice->ready);
    for (sched_set left = choice->ready; left != 0; left &= left - 1)
        if (pct->priority[first_of(left)] > pct->priority[best]) best = first_of(left);
    return best;
}

void exhaustive_start(struct exhaustive *all, unsigned bound) {
    all->bound = bound;
    all->length = all->at = all->preemptions = 0;
}

bool exhaustive_next(struct exhaustive *all) {
    all->at = all->preemptions = 0;
    while (all->length > 0 && all->path[all->length - 1].untried == 0) all->length--;
    if (all->length == 0) return false;
    struct branch *last = &all->path[all->length - 1];
    last->chosen = (uint8_t)first_of(last->untried);
    last->untried &= last->untried - 1;
    return true;
}

unsigned exhaustive_choose(const struct sched_choice *choice, void *data) {
    struct exhaustive *all = data;
    bool free_choice = !can_go_on(choice) || choice->yields;
    if (!free_choice && (!choice->contended || all->preemptions == all->bound)) return choice->current;
    unsigned usual = go_on(choice);
    sched_set others = choice->ready & ~(1U << usual);
    if (others == 0) return usual;
    if (all->at == EXHAUSTIVE_DEPTH_MAX) sched_finding("too many choices for an exhaustive search");
    struct branch *branch = &all->path[all->at];
    if (all->at == all->length) {
        *branch = (struct branch){.untried = others, .chosen = (uint8_t)usual};
        all->length++;
    }
    all->at++;
    if (!free_choice && branch->chosen != choice->current) all->preemptions++;
    return branch->chosen;
}
