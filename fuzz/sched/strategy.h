/* Ways to choose the next thread (sched_chooser). */
#ifndef FUZZ_SCHED_STRATEGY_H
#define FUZZ_SCHED_STRATEGY_H

#include "sched.h"

/* A given schedule; where it says nothing the thread goes on, or the first that can. */
struct replay {
    const struct sched_schedule *schedule;
    uint32_t next;
};
sched_chooser replay_choose;

/* Bytes: pairs (gap, pick). After `gap` contended steps the turn goes to the pick-th thread that is ready. When they
 * are used up the thread goes on. */
struct bytes {
    const uint8_t *data;
    size_t size, used;
    uint32_t gap;
    bool loaded;
};
sched_chooser bytes_choose;

/* At every contended step another thread with a probability of 1 in `period`. */
struct random_walk {
    uint64_t state; /* not 0 */
    uint32_t period;
};
sched_chooser random_choose;

/* Probabilistic concurrency testing (Burckhardt and others, ASPLOS 2010): random priorities, which change at depth - 1
 * random steps of `steps`, the length of a run: finds a defect of that depth with a probability of at least
 * 1 / (threads * steps^(depth - 1)). */
#define PCT_DEPTH_MAX 16
struct pct {
    uint32_t priority[SCHED_THREADS_MAX];
    uint32_t change_at[PCT_DEPTH_MAX];
    uint32_t seen; /* contended steps */
    unsigned depth, changed;
};
void pct_start(struct pct *pct, uint64_t seed, unsigned threads, unsigned depth, uint32_t steps);
sched_chooser pct_choose;

/* All schedules with at most `bound` preemptions, one run each, depth first. */
#define EXHAUSTIVE_DEPTH_MAX 4096
struct exhaustive {
    unsigned bound;
    uint32_t length, at;  /* choices on the path; choices made in this run */
    uint32_t preemptions; /* in this run */
    struct branch {
        sched_set untried;
        uint8_t chosen;
    } path[EXHAUSTIVE_DEPTH_MAX];
};
void exhaustive_start(struct exhaustive *all, unsigned bound);
/* Before each run but the first: false if there is none left. */
bool exhaustive_next(struct exhaustive *all);
sched_chooser exhaustive_choose;

uint64_t strategy_random(uint64_t *state);

#endif
