/* Operations of 2 to 8 virtual threads, each with those of its number, under a schedule that the input holds: bytes
 * (strategy.h), or without any the seed of a PCT schedule. The same input is the same run, on either back-end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../apply.h"
#include "strategy.h"
#include "world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define STEPS_MAX 2000000
#define PCT_DEPTH 4
#define PCT_STEPS 3000

static struct fuzz_run run;

static void live(void) {
    struct fuzz_at at = {.input = run.input, .tid = (uint8_t)sched_thread()};
    for (; at.index < at.input->count; at.index++)
        if (fuzz_op_at(at.input, at.index).tid == at.tid) fuzz_apply(&run, &at);
}

/* There is no fork here, and a fault is another target's. */
static bool control(struct fuzz_run *of, const struct fuzz_at *at, struct fuzz_op op) {
    (void)of, (void)at;
    if (op.kind != FUZZ_THREAD_EXIT) return false;
    sched_restart_thread();
    return true;
}

static void pass_time(struct fuzz_run *of, uint64_t ms) {
    (void)of;
    world_advance_ms(ms);
}

static void print_trace(void) {
    const struct sched_schedule *schedule = sched_schedule();
    sched_print_trace(2);
    fprintf(stderr, "%u steps, %u switches, %u of them preemptions\n", sched_steps(), schedule->count,
            sched_preemptions());
}

static void on_finding(const char *what) {
    print_trace();
    fprintf(stderr, "FOUND %s\n", what);
    abort();
}

static enum sched_backend backend = HAK_TSAN ? SCHED_THREADS : SCHED_FIBERS;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    if (getenv("SCHED_BACKEND") != NULL) backend = strcmp(getenv("SCHED_BACKEND"), "threads") == 0;
    sched_on_finding = on_finding;
    fuzz_before_abort = print_trace;
    world_init(backend);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct fuzz_model *model;
    struct fuzz_input input;
    if (!fuzz_decode(&input, data, bytes)) return 0;
    if (input.config.threads == 1) input.config.threads = 2;
    world_reset();
    run = (struct fuzz_run){.control = control, .pass_time = pass_time, .model = model};
    fuzz_run_begin(&run, &input);
    model = run.model;

    struct bytes choices = {.data = input.schedule, .size = input.schedule_bytes};
    struct pct pct;
    pct_start(&pct, input.config.seed + 1U, input.config.threads, PCT_DEPTH, PCT_STEPS);
    struct sched_config config = {
        .backend = backend, .choose = bytes_choose, .data = &choices, .everywhere = true, .steps_max = STEPS_MAX};
    if (input.schedule_bytes == 0) {
        config.choose = pct_choose;
        config.data = &pct;
    }
    struct sched_program program = {.threads = input.config.threads};
    for (unsigned i = 0; i < program.threads; i++) program.body[i] = live;
    sched_run(&config, &program);
    fuzz_run_end(&run);
    return 0;
}
