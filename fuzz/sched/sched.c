/* Steps, turns, waiting and the record of a run (sched.h). Not compiled with ThreadSanitizer: what is here is passed
 * from thread to thread with the turn, which it does not see. */
#include "sched.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <uthash.h>

#include "engine.h"

#define TRACE_STEPS 400 /* that are kept for printing */

enum state { READY, WAITING, ENDED };

struct entry {
    const struct hak_point *point;
    unsigned thread;
};

/* A word of memory that threads have met at, as far as this run has shown. */
struct object {
    uintptr_t address;
    sched_set threads, writers;
    struct hak_point *points[8];
    unsigned count;
    UT_hash_handle hh;
};
#define OBJECTS_MAX 4096

static struct {
    const struct sched_config *config;
    const struct engine_backend *backend;
    const struct sched_program *program;
    unsigned count, current;
    bool running;
    enum state state[SCHED_THREADS_MAX];
    const void *waits_for[SCHED_THREADS_MAX];
    uint32_t steps, preemptions;
    bool learned;
} run = {.current = UINT_MAX};
static struct sched_schedule schedule;
static struct entry trace[TRACE_STEPS];
static struct object objects[OBJECTS_MAX];
static unsigned object_count;
static struct object *object_table;

void (*sched_on_finding)(const char *what);

unsigned sched_thread(void) { return run.running ? run.current : UINT_MAX; }
const struct sched_schedule *sched_schedule(void) { return &schedule; }
uint32_t sched_steps(void) { return run.steps; }
uint32_t sched_preemptions(void) { return run.preemptions; }

bool sched_has_learned(void) {
    bool learned = run.learned;
    run.learned = false;
    return learned;
}

/* ---- findings --------------------------------------------------------------------------------------------- */

void sched_print_trace(int fd) {
    uint32_t first = run.steps > TRACE_STEPS ? run.steps - TRACE_STEPS : 0;
    for (uint32_t step = first; step < run.steps; step++) {
        const struct entry *entry = &trace[step % TRACE_STEPS];
        bool is_switch = step > first && trace[(step - 1) % TRACE_STEPS].thread != entry->thread;
        dprintf(fd, "%s%6u  t%u  %s:%u  %s\n", is_switch ? "        ----\n" : "", step, entry->thread,
                entry->point->file, entry->point->line, entry->point->operation);
    }
}

_Noreturn void sched_finding(const char *what) {
    run.running = false;
    if (sched_on_finding != NULL) sched_on_finding(what);
    _exit(1);
}

/* ---- where threads meet -------------------------------------------------------------------------------------- */

static struct object *object_at(uintptr_t address) {
    struct object *object;
    HASH_FIND(hh, object_table, &address, sizeof address, object);
    if (object != NULL || object_count == OBJECTS_MAX) return object;
    object = &objects[object_count++];
    *object = (struct object){.address = address};
    HASH_ADD(hh, object_table, address, sizeof object->address, object);
    return object;
}

static void mark(struct hak_point *point) {
    run.learned = run.learned || !point->contended;
    point->contended = true;
}

/* Notes that the current thread is about to use the object here. Places that meet at an object which some thread
 * writes and another uses are worth a preemption; all others commute with what the other threads do. */
static void learn(struct hak_point *point, const volatile void *address) {
    struct object *object = object_at((uintptr_t)address);
    if (object == NULL) {
        mark(point);
        return;
    }
    object->threads |= 1U << run.current;
    if (!point->reads_only) object->writers |= 1U << run.current;
    unsigned i = 0;
    while (i < object->count && object->points[i] != point) i++;
    if (i == object->count) {
        if (i == sizeof object->points / sizeof *object->points) mark(point);
        else object->points[object->count++] = point;
    }
    bool contended = object->writers != 0 && (object->threads & (object->threads - 1)) != 0;
    for (i = 0; contended && i < object->count; i++) mark(object->points[i]);
}

static void forget_objects(void) {
    HASH_CLEAR(hh, object_table);
    object_count = 0;
}

/* ---- turns --------------------------------------------------------------------------------------------------- */

static sched_set ready_set(void) {
    sched_set ready = 0;
    for (unsigned i = 0; i < run.count; i++) ready |= (sched_set)(run.state[i] == READY) << i;
    return ready;
}

static unsigned choose(bool contended, bool yields) {
    struct sched_choice choice = {
        .step = run.steps, .current = run.current, .ready = ready_set(), .contended = contended, .yields = yields};
    unsigned next = run.config->choose(&choice, run.config->data);
    if ((choice.ready >> next & 1) == 0) next = (unsigned)__builtin_ctz(choice.ready);
    if (next == run.current) return next;
    if (schedule.count < SCHED_SWITCHES_MAX) schedule.at[schedule.count++] = (struct sched_switch){run.steps, next};
    run.preemptions += choice.ready >> run.current & 1;
    return next;
}

static void record(const struct hak_point *point) {
    trace[run.steps % TRACE_STEPS] = (struct entry){.point = point, .thread = run.current};
    if (++run.steps > run.config->steps_max) sched_finding("endless loop: too many steps");
}

static void turn_to(unsigned next) {
    unsigned self = run.current;
    if (next == self) return;
    run.current = next;
    run.backend->hand_over(self, next);
}

static void step(struct hak_point *point, const volatile void *object, bool yields) {
    if (!run.running) return;
    /* A point without an object is a system call: its effect is on memory that anybody may use. */
    if (object == NULL) mark(point);
    turn_to(choose(point->contended || run.config->everywhere, yields));
    if (run.config->learn && object != NULL) learn(point, object);
    record(point);
}

void engine_step(struct hak_point *point, const volatile void *object) { step(point, object, false); }
void hak_point_reached(struct hak_point *point, const volatile void *object) { step(point, object, false); }

void sched_pause_here(void) {
    static struct hak_point here = {.operation = "pause", .file = "kernel", .contended = true};
    step(&here, NULL, false);
}

void sched_yield_here(void) {
    static struct hak_point here = {.operation = "yield", .file = "kernel", .contended = true};
    step(&here, NULL, true);
}

void engine_wait(const void *word) {
    static struct hak_point here = {.operation = "wait", .file = "futex", .contended = true};
    run.state[run.current] = WAITING;
    run.waits_for[run.current] = word;
    if (ready_set() == 0) sched_finding("deadlock: every thread waits");
    turn_to(choose(true, false));
    record(&here);
}

void engine_wake(const void *word, int count) {
    for (unsigned i = 0; i < run.count && count > 0; i++) {
        if (run.state[i] != WAITING || run.waits_for[i] != word) continue;
        run.state[i] = READY;
        count--;
    }
}

void sched_restart_thread(void) {
    world_end_thread(run.current);
    world_begin_thread(run.current, false);
    world_enter_thread(run.current);
}

/* ---- a run --------------------------------------------------------------------------------------------------- */

void engine_thread_main(unsigned thread) {
    static struct hak_point here = {.operation = "end", .file = "thread", .contended = true};
    world_enter_thread(thread);
    run.program->body[thread]();
    world_end_thread(thread);
    if (run.program->afterlife != NULL) run.program->afterlife();
    run.state[thread] = ENDED;
    record(&here);
    sched_set ready = ready_set();
    bool all_ended = true;
    for (unsigned i = 0; i < run.count; i++) all_ended = all_ended && run.state[i] == ENDED;
    if (ready == 0 && !all_ended) sched_finding("deadlock: the threads that are left wait");
    unsigned next = all_ended ? ENGINE_MAIN : choose(true, false);
    run.current = next;
    run.backend->leave(thread, next);
}

void sched_run(const struct sched_config *config, const struct sched_program *program) {
    const unsigned count = program->threads;
    run.config = config;
    run.backend = config->backend == SCHED_FIBERS ? &engine_fibers : &engine_threads;
    run.program = program;
    run.count = count;
    run.steps = run.preemptions = 0;
    schedule.count = 0;
    for (unsigned i = 0; i < count; i++) {
        run.state[i] = READY;
        world_begin_thread(i, program->owner && i == 0);
    }
    run.backend->start(count);
    run.current = 0;
    run.current = choose(true, false);
    run.running = true;
    run.backend->hand_over(ENGINE_MAIN, run.current);
    run.running = false;
    run.backend->finish(count);
    if (config->learn) forget_objects();
}
