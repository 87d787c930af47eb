/* sched: explores the schedules of the kernels, and replays what it found. */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kernels.h"
#include "strategy.h"
#include "world.h"

#define STEPS_MAX 200000
#define PROBE_RUNS 200

static struct options {
    enum sched_backend backend;
    const char *command, *what;
    uint64_t seed, runs, times;
    unsigned bound, depth;
    bool trace;
    const char *found; /* directory for what is found */
} options = {.seed = 1, .runs = 2000, .times = 1, .bound = 2, .depth = 3, .found = "build/sched/found"};

static const char *program;
static const struct kernel *current;

/* ---- schedule files ------------------------------------------------------------------------------------------------
 */

static int write_schedule(FILE *out) {
    const struct sched_schedule *schedule = sched_schedule();
    fprintf(out, "hakmem schedule 1\nkernel %s\n", current->name);
    for (uint32_t i = 0; i < schedule->count; i++)
        fprintf(out, "%" PRIu32 " %" PRIu32 "\n", schedule->at[i].step, schedule->at[i].thread);
    return fflush(out);
}

static const struct kernel *kernel_named(const char *name) {
    for (size_t i = 0; i < kernel_count; i++)
        if (strcmp(kernels[i].name, name) == 0) return &kernels[i];
    fprintf(stderr, "%s: no kernel is called %s; see %s list\n", program, name, program);
    exit(2);
}

static _Noreturn void bad_file(const char *path, const char *why) {
    fprintf(stderr, "%s: %s: %s\n", program, path, why);
    exit(2);
}

static void read_schedule(const char *path, struct sched_schedule *schedule) {
    char name[64] = "";
    int version = 0;
    FILE *in = fopen(path, "r");
    if (in == NULL) bad_file(path, strerror(errno));
    if (fscanf(in, "hakmem schedule %d kernel %63s", &version, name) != 2 || version != 1)
        bad_file(path, "not a schedule of version 1");
    current = kernel_named(name);
    schedule->count = 0;
    struct sched_switch at;
    int got;
    while ((got = fscanf(in, "%" SCNu32 "%" SCNu32, &at.step, &at.thread)) == 2) {
        if (schedule->count == SCHED_SWITCHES_MAX) bad_file(path, "too many switches");
        if (at.thread >= current->program.threads) bad_file(path, "a thread that the kernel does not have");
        schedule->at[schedule->count++] = at;
    }
    if (got != EOF) bad_file(path, "a line is not `STEP THREAD`");
    fclose(in);
}

/* ---- findings ------------------------------------------------------------------------------------------------------
 */

static const char *save(const char *suffix, char *path, size_t size) {
    char folder[256];
    snprintf(folder, sizeof folder, "%s", options.found);
    for (char *slash = strchr(folder + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(folder, 0777);
        *slash = '/';
    }
    mkdir(folder, 0777);
    snprintf(path, size, "%s/%s%s", folder, current->name, suffix);
    return path;
}

static void report(const char *what) {
    char path[400];
    printf("FOUND %s: %s\n", current->name, what);
    if (strcmp(options.command, "replay") == 0) {
        fflush(stdout);
        if (options.trace) sched_print_trace(1);
        return;
    }
    FILE *out = fopen(save(".sched", path, sizeof path), "w");
    if (out != NULL && write_schedule(out) == 0) {
        fclose(out);
        printf("reproduce: %s replay --trace %s\n", program, path);
    } else {
        printf("the schedule cannot be written to %s: %s; here it is:\n", path, strerror(errno));
        write_schedule(stdout);
    }
    fflush(stdout);
}

#if HAK_ASAN || HAK_TSAN
#include <sanitizer/common_interface_defs.h>
static void on_sanitizer(void) { report("see the sanitizer's report"); }
static void watch(void) { __sanitizer_set_death_callback(on_sanitizer); }
#else
static void on_signal(int number) {
    signal(number, SIG_DFL);
    sched_finding(number == SIGSEGV || number == SIGBUS ? "an access to memory that is not there" : "a signal");
}

static void watch(void) {
    static char stack[64 << 10]; /* a fiber that has overflowed has none of its own */
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    sigaltstack(&other, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}
#endif

/* ---- commands ------------------------------------------------------------------------------------------------------
 */

static struct timespec started;
static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - started.tv_sec) + (double)(now.tv_nsec - started.tv_nsec) / 1e9;
}

static void progress(uint64_t runs) {
    static double last;
    if (runs % 1024 != 0 || !isatty(2) || seconds() - last < 1) return;
    last = seconds();
    fprintf(stderr, "\r%-20s %10" PRIu64 " schedules, %.0f s ", current->name, runs, last);
}

static void summary(const char *how, uint64_t runs, uint32_t steps) {
    double took = seconds();
    if (isatty(2)) fprintf(stderr, "\r%60s\r", "");
    printf("%-20s %-22s %9" PRIu64 " schedules, %4" PRIu32 " steps, %7.0f per second\n", current->name, how, runs,
           steps, took > 0 ? (double)runs / took : 0);
    fflush(stdout);
}

static struct sched_config config_for(sched_chooser *choose, void *data) {
    return (struct sched_config){.backend = options.backend,
                                 .choose = choose,
                                 .data = data,
                                 .learn = options.backend == SCHED_FIBERS,
                                 .steps_max = STEPS_MAX};
}

static void start_clock(void) { clock_gettime(CLOCK_MONOTONIC, &started); }

/* Finds out where threads meet, by random runs. On fibers, whatever the back-end is: the places are the same. */
static uint32_t probe(void) {
    uint32_t longest = 0;
    const enum sched_backend backend = options.backend;
    options.backend = SCHED_FIBERS;
    for (uint64_t i = 1; i <= PROBE_RUNS; i++) {
        struct random_walk walk = {.state = options.seed * 1000003 + i, .period = 1 + (uint32_t)(i % 16)};
        struct sched_config config = config_for(random_choose, &walk);
        kernel_run(current, &config);
        if (sched_steps() > longest) longest = sched_steps();
    }
    options.backend = backend;
    return longest;
}

static void explore_all(void) {
    static struct exhaustive all;
    struct sched_config config = config_for(exhaustive_choose, &all);
    start_clock();
    uint32_t longest = probe();
    uint64_t runs;
    bool learned;
    do { /* a place where threads meet that was not known changes the choices: begin again */
        sched_has_learned();
        exhaustive_start(&all, options.bound);
        runs = 0;
        learned = false;
        do {
            kernel_run(current, &config);
            progress(++runs);
            learned = sched_has_learned();
        } while (!learned && exhaustive_next(&all));
    } while (learned);
    char how[32];
    snprintf(how, sizeof how, "all, %u preemption%s", options.bound, options.bound == 1 ? "" : "s");
    summary(how, runs, longest);
}

static void explore_random(void) {
    start_clock();
    uint32_t longest = probe();
    for (uint64_t i = 0; i < options.runs; i++) {
        struct random_walk walk = {.state = (options.seed + i) * 0x9E3779B97F4A7C15U | 1,
                                   .period = 1 + (uint32_t)(i % 16)};
        struct sched_config config = config_for(random_choose, &walk);
        kernel_run(current, &config);
        if (sched_steps() > longest) longest = sched_steps();
        progress(i + 1);
    }
    summary("random", options.runs, longest);
}

static void explore_pct(void) {
    start_clock();
    uint32_t longest = probe();
    for (uint64_t i = 0; i < options.runs; i++) {
        struct pct pct;
        pct_start(&pct, options.seed + i, current->program.threads, options.depth, longest);
        struct sched_config config = config_for(pct_choose, &pct);
        kernel_run(current, &config);
        progress(i + 1);
    }
    char how[32];
    snprintf(how, sizeof how, "PCT, depth %u", options.depth);
    summary(how, options.runs, longest);
}

static void replay_file(const char *path) {
    static struct sched_schedule schedule;
    read_schedule(path, &schedule);
    uint32_t steps = 0;
    for (uint64_t i = 0; i < options.times; i++) {
        struct replay replay = {.schedule = &schedule};
        struct sched_config config = config_for(replay_choose, &replay);
        config.learn = false;
        kernel_run(current, &config);
        if (i != 0 && sched_steps() != steps) sched_finding("the same schedule gave another run");
        steps = sched_steps();
    }
    if (options.trace) sched_print_trace(1);
    printf("%s: %" PRIu64 " runs of this schedule, %" PRIu32 " steps each: nothing found\n", current->name,
           options.times, steps);
}

static void list(void) {
    for (size_t i = 0; i < kernel_count; i++) printf("%-20s %s\n", kernels[i].name, kernels[i].what);
}

static void for_each_kernel(void (*explore)(void)) {
    for (size_t i = 0; i < kernel_count; i++) {
        if (options.what != NULL && strcmp(options.what, kernels[i].name) != 0) continue;
        current = &kernels[i];
        explore();
    }
}

/* ---- arguments -----------------------------------------------------------------------------------------------------
 */

static uint64_t number(const char *text, uint64_t least, uint64_t most, struct argp_state *state) {
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || *text == '-' || value < least || value > most)
        argp_error(state, "%s is not a number from %" PRIu64 " to %" PRIu64, text, least, most);
    return value;
}

static void set_backend(const char *name, struct argp_state *state) {
    if (strcmp(name, "fibers") == 0 && HAK_TSAN) argp_error(state, "ThreadSanitizer needs the threads back-end");
    if (strcmp(name, "fibers") == 0) options.backend = SCHED_FIBERS;
    else if (strcmp(name, "threads") == 0) options.backend = SCHED_THREADS;
    else argp_error(state, "a back-end is fibers or threads, not %s", name);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    switch (key) {
    case 'b':
        set_backend(arg, state);
        return 0;
    case 'p':
        options.bound = (unsigned)number(arg, 0, 16, state);
        return 0;
    case 'd':
        options.depth = (unsigned)number(arg, 1, PCT_DEPTH_MAX, state);
        return 0;
    case 's':
        options.seed = number(arg, 1, UINT32_MAX, state);
        return 0;
    case 'n':
        options.runs = number(arg, 1, UINT32_MAX, state);
        return 0;
    case 't':
        options.times = number(arg, 1, UINT32_MAX, state);
        return 0;
    case 'T':
        options.trace = true;
        return 0;
    case 'o':
        options.found = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0) options.command = arg;
        else if (state->arg_num == 1) options.what = arg;
        else argp_error(state, "too many arguments");
        return 0;
    case ARGP_KEY_END:
        if (options.command == NULL) argp_error(state, "no command");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option rows[] = {
    {"backend", 'b', "fibers|threads", 0,
     "virtual threads as fibers (default), or as system threads (ThreadSanitizer: always)", 0},
    {"bound", 'p', "N", 0, "exhaustive: at most N preemptions (default 2)", 0},
    {"depth", 'd', "N", 0, "pct: depth of the defects looked for (default 3)", 0},
    {"seed", 's', "N", 0, "random, pct: first seed (default 1)", 0},
    {"runs", 'n', "N", 0, "random, pct: runs of each kernel (default 2000)", 0},
    {"times", 't', "N", 0, "replay: repeat it N times (default 1)", 0},
    {"trace", 'T', NULL, 0, "replay: print the last steps", 0},
    {"found", 'o', "DIRECTORY", 0, "where findings go (default build/sched/found)", 0},
    {0}};
static const struct argp description = {
    .options = rows,
    .parser = parse,
    .args_doc = "exhaustive|random|pct [KERNEL]\nreplay FILE\nlist",
    .doc =
        "Explores the schedules of small concurrent programs over the allocator (`list` names them), or replays one.\v"
        "A finding is printed, its schedule is saved, and the exit status is 1. Docs: fuzz/sched/README.md"};

int main(int argc, char **argv) {
    program = argv[0];
    if (HAK_TSAN) options.backend = SCHED_THREADS;
    argp_parse(&description, argc, argv, 0, NULL, NULL);
    const bool is_replay = strcmp(options.command, "replay") == 0;
    if (options.what != NULL && !is_replay) kernel_named(options.what);
    sched_on_finding = report;
    watch();
    if (strcmp(options.command, "list") == 0) list();
    else if (is_replay && options.what == NULL) bad_file("replay", "which file?");
    else {
        world_init(options.backend);
        if (is_replay) replay_file(options.what);
        else if (strcmp(options.command, "exhaustive") == 0) for_each_kernel(explore_all);
        else if (strcmp(options.command, "random") == 0) for_each_kernel(explore_random);
        else if (strcmp(options.command, "pct") == 0) for_each_kernel(explore_pct);
        else bad_file(options.command, "not a command; see --help");
    }
    return 0;
}
