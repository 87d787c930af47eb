/* Between the scheduler proper (sched.c), its back-ends (fibers.c, threads.c) and the world that the allocator sees
 * (world.c). */
#ifndef FUZZ_SCHED_ENGINE_H
#define FUZZ_SCHED_ENGINE_H

#include "sched.h"

/* The thread that started the run, as far as turns go. */
#define ENGINE_MAIN SCHED_THREADS_MAX

struct engine_backend {
    /* Gets ready to run engine_thread_main(i) for each i < count; none runs yet. */
    void (*start)(unsigned count);
    /* Hands the turn over and returns when the caller has it again. */
    void (*hand_over)(unsigned from, unsigned to);
    /* Hands the turn over for good. */
    void (*leave)(unsigned from, unsigned to);
    /* All have left. */
    void (*finish)(unsigned count);
};
extern const struct engine_backend engine_fibers, engine_threads;

/* The life of virtual thread i: its body, then what ends a thread. */
void engine_thread_main(unsigned thread);
/* The current thread waits until woken. */
void engine_wait(const void *word);
void engine_wake(const void *word, int count);
void engine_step(struct hak_point *point, const volatile void *object);

/* The state that the allocator keeps per thread, saved and put back around a switch between fibers. */
void world_leave_thread(unsigned thread);
void world_enter_thread(unsigned thread);
/* A virtual thread that has done nothing yet, or that takes over what the caller of the run has. */
void world_begin_thread(unsigned thread, bool takes_over);
/* Runs the destructors of thread-specific data. */
void world_end_thread(unsigned thread);

#endif
