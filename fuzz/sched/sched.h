/* A deterministic scheduler for the whole allocator: several virtual threads, of which exactly one runs at a time, and
 * a choice which at every scheduling point (src/base/point.h). The same choices give the same run, on either back-end:
 *
 *   fibers    all virtual threads on one system thread; fast, for AddressSanitizer and plain builds
 *   threads   one system thread each, handed the turn by a raw futex that ThreadSanitizer does not see, so that it
 *             judges the allocator's own synchronisation; real thread-local storage
 *
 * Words: a *step* is one scheduling point that a thread reached; a *switch* hands the turn to another thread; it is a
 * *preemption* if the first could have gone on. A *schedule* is the list of switches of one run, each with the number
 * of its step. A *kernel* is a small concurrent program with a check at its end (kernels.c).
 *
 * What is not explored: weak memory orders (the threads back-end under ThreadSanitizer covers them) and places between
 * plain memory accesses. */
#ifndef FUZZ_SCHED_SCHED_H
#define FUZZ_SCHED_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/point.h"

#define SCHED_THREADS_MAX 8
#define SCHED_SWITCHES_MAX 4096
/* Threads as bits. */
typedef uint32_t sched_set;

struct sched_switch {
    uint32_t step;
    uint32_t thread;
};
struct sched_schedule {
    uint32_t count;
    struct sched_switch at[SCHED_SWITCHES_MAX];
};

/* What a strategy is told at a step. */
struct sched_choice {
    uint32_t step;
    unsigned current; /* the thread that reached the step */
    sched_set ready;  /* those that can run; holds `current` unless it waits or has ended */
    bool contended;   /* threads have met at this place: worth a preemption */
    bool yields;      /* the current thread waits for others in a loop of its own */
};
/* Chooses the thread that runs next, one of `ready`. */
typedef unsigned sched_chooser(const struct sched_choice *choice, void *data);

enum sched_backend { SCHED_FIBERS, SCHED_THREADS };

struct sched_config {
    enum sched_backend backend;
    sched_chooser *choose;
    void *data;
    bool learn;         /* note where threads meet (fibers only) */
    bool everywhere;    /* every place counts as one where they do */
    uint32_t steps_max; /* more are a finding: an endless loop */
};

struct sched_program {
    unsigned threads;
    void (*body[SCHED_THREADS_MAX])(void);
    void (*afterlife)(
        void);  /* NULL, or what every thread still does when its thread-specific data has been destroyed */
    bool owner; /* thread 0 begins with the heap of the caller, who is then without one */
};
/* Runs the bodies, each in a thread of its own that ends with it, until all have ended. */
void sched_run(const struct sched_config *config, const struct sched_program *program);

/* The number of the running virtual thread; UINT_MAX outside a run. */
unsigned sched_thread(void);
/* The running thread ends, and another begins in its place. */
void sched_restart_thread(void);
/* Points of a kernel's own: one where any thread may go on, and one where the thread waits for others. */
void sched_pause_here(void);
void sched_yield_here(void);

/* Of the last run. */
const struct sched_schedule *sched_schedule(void);
uint32_t sched_steps(void);
uint32_t sched_preemptions(void);
/* True once if a place became known as contended since the last call. */
bool sched_has_learned(void);

/* Writes the last steps of the run, one line each: thread, place, operation. */
void sched_print_trace(int fd);

/* Called once when something is found, before the process ends: deadlock, endless loop, or an abort or a sanitizer's
 * report in the middle of a run. */
extern void (*sched_on_finding)(const char *what);
_Noreturn void sched_finding(const char *what);

#endif
