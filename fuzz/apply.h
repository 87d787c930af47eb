/* Applies operations to the allocator and to the model, and checks each result. All state is in the arguments; any
 * thread, real or virtual, may apply an operation at any time. */
#ifndef FUZZ_APPLY_H
#define FUZZ_APPLY_H

#include "model.h"

struct fuzz_run;
/* What a target does itself: THREAD_EXIT, THREAD_START, FORK, FAULT, MISUSE. False: skipped. */
typedef bool fuzz_control(struct fuzz_run *run, const struct fuzz_at *at, struct fuzz_op op);

/* One input being run. Constant while it runs, but for the atomics and what only the one thread of a single run uses.
 */
struct fuzz_run {
    const struct fuzz_input *input;
    struct fuzz_model *model;
    bool single;   /* one thread: the clock is ours, statistics are compared at every step */
    bool may_fail; /* the system or an option may refuse any request: NULL is an answer, with ENOMEM */
    bool may_lose; /* the target has let a call fail without which address space cannot be given back */
    fuzz_control *control;
    /* TIME; NULL: the clock of a single run. */
    void (*pass_time)(struct fuzz_run *run, uint64_t ms);
    void *own;                    /* for the target */
    _Atomic bool forked;          /* the one fork of a run has been */
    _Atomic uint32_t refused;     /* requests answered by NULL though they were reasonable */
    _Atomic size_t refused_bytes; /* the smallest of them */
};

/* Sets options as the input's profile says, and the clock if the run is single. The caller has set input, single,
 * control, pass_time and own; `model` is made at the first call and kept for all inputs. */
void fuzz_run_begin(struct fuzz_run *run, const struct fuzz_input *input);

/* Applies operation `at->index`. False if it made no sense here, and nothing was done. */
bool fuzz_apply(struct fuzz_run *run, const struct fuzz_at *at);
/* An allocation and a free for a target's own use, checked like all others; into and out of a slot. */
bool fuzz_apply_op(struct fuzz_run *run, const struct fuzz_at *at, struct fuzz_op op);

/* Options back to their defaults, in mid-run: with a limit gone, requests are met again. */
void fuzz_profile_reset(void);

/* All blocks in slots are verified and freed. */
void fuzz_free_all(struct fuzz_run *run, const struct fuzz_at *at);

/* The end: frees all, gives back all, checks that nothing is left, and resets the allocator for the next input. For the
 * only thread left; what fails the system has stopped. */
void fuzz_run_end(struct fuzz_run *run);

/* The body of a forked child: verifies and frees all blocks in slots, allocates of every layer, checks, and _exit(0)s;
 * any other way to end is a finding. */
_Noreturn void fuzz_child_checks(struct fuzz_run *run, const struct fuzz_at *at);
/* Forks such a child and waits for it; once in a run, as it costs more than all the rest. False if it did not. */
bool fuzz_fork_and_check(struct fuzz_run *run, const struct fuzz_at *at);

#endif
