/* build: -pthread */
/* Blocks freed by other threads than made them, in the three ways that real programs do it, with 4, 8 and 64 threads on
 * however few processors: handed from generation to generation (Larson), from producers to consumers, and from all to
 * all. Each run is a process of its own. Every block is stamped and checked. */
#include "support/life.h"

#include <sched.h>

enum { MAX_THREADS = 64, MAX_SIZE = 70000 };

static size_t threads_wanted;
static size_t work; /* steps per run, shared by all threads */
static atomic_size_t failures;

/* ---- generations: each thread works on its array and leaves it to a successor that it starts ---- */

enum { ARRAY = 200, GENERATIONS = 10 };

struct bleeding {
    void *block[ARRAY];
    size_t generation;
    uint64_t random;
};

static struct bleeding lines[MAX_THREADS];
static atomic_size_t lines_running;

static void *bleed_body(void *arg) {
    struct bleeding *line = arg;
    for (size_t i = 0; i < work / threads_wanted / GENERATIONS; ++i) {
        void **slot = &line->block[life_random(&line->random) % ARRAY];
        failures += !life_drop(*slot);
        *slot = life_make(life_random_size(&line->random, MAX_SIZE));
        failures += *slot == NULL;
    }
    pthread_t next;
    if (++line->generation < GENERATIONS) {
        if (pthread_create(&next, NULL, bleed_body, line) != 0) {
            abort();
        }
        pthread_detach(next);
    } else {
        atomic_fetch_sub(&lines_running, 1);
    }
    return NULL;
}

static void bleed(void) {
    atomic_store(&lines_running, threads_wanted);
    for (size_t i = 0; i < threads_wanted; ++i) {
        pthread_t first;
        lines[i].random = i;
        life_start(&first, 1, bleed_body, &lines[i]);
        pthread_detach(first);
    }
    while (atomic_load(&lines_running) != 0) {
        life_sleep_ms(1);
    }
    for (size_t i = 0; i < threads_wanted * ARRAY; ++i) {
        failures += !life_drop(lines[i / ARRAY].block[i % ARRAY]);
    }
}

/* ---- producers and consumers, in pairs, each pair with a ring ---- */

enum { RING = 256 };

static struct ring { _Atomic(void *) slot[RING]; } rings[MAX_THREADS / 2];

static atomic_size_t pipes_started;

static void *pipe_body(void *arg) {
    size_t number = atomic_fetch_add(&pipes_started, 1);
    struct ring *ring = &rings[number / 2];
    uint64_t random = number;
    (void)arg;
    for (size_t i = 0; i < work / threads_wanted; ++i) {
        _Atomic(void *) *slot = &ring->slot[i % RING];
        if (number % 2 == 0) {
            void *block = life_make(life_random_size(&random, MAX_SIZE));
            failures += block == NULL;
            while (atomic_load(slot) != NULL) {
                sched_yield();
            }
            atomic_store(slot, block);
        } else {
            void *block;
            while ((block = atomic_exchange(slot, NULL)) == NULL) {
                sched_yield();
            }
            failures += !life_drop(block);
        }
    }
    return NULL;
}

static void run_pipes(void) {
    pthread_t threads[MAX_THREADS];
    life_start(threads, threads_wanted, pipe_body, NULL);
    life_join(threads, threads_wanted);
}

/* ---- all to all ---- */

static struct life_table table;

static void *exchange_body(void *arg) {
    uint64_t random = (uintptr_t)pthread_self();
    (void)arg;
    for (size_t i = 0; i < work / threads_wanted; ++i) {
        life_table_step(&table, &random);
    }
    return NULL;
}

static void exchange(void) {
    pthread_t threads[MAX_THREADS];
    life_table_open(&table, 16 * threads_wanted, MAX_SIZE);
    life_start(threads, threads_wanted, exchange_body, NULL);
    life_join(threads, threads_wanted);
    failures += life_table_close(&table);
}

/* ---- runs ---- */

static int run_mode(const char *mode) {
    char kind[16];
    if (sscanf(mode, "%15s %zu %zu", kind, &threads_wanted, &work) != 3) {
        return 2;
    }
    (strcmp(kind, "bleed") == 0 ? bleed : strcmp(kind, "pipes") == 0 ? run_pipes : exchange)();
    return atomic_load(&failures) == 0 ? 0 : 1;
}

static void assert_runs_in_a_row(size_t runs, const char *kind, size_t threads, size_t steps) {
    char mode[64];
    snprintf(mode, sizeof(mode), "%s %zu %zu", kind, threads, steps);
    for (size_t i = 0; i < runs; ++i) {
        assert_int_equal(life_rerun(mode), 0);
    }
}

static void generations_of_4_threads_100_times_in_a_row(void **state) {
    (void)state;
    assert_runs_in_a_row(life_scale(100, 1000), "bleed", 4, 40000);
}

static void producers_and_consumers_of_4_threads_100_times_in_a_row(void **state) {
    (void)state;
    assert_runs_in_a_row(life_scale(100, 1000), "pipes", 4, 40000);
}

static void all_to_all_of_4_threads_100_times_in_a_row(void **state) {
    (void)state;
    assert_runs_in_a_row(life_scale(100, 1000), "all", 4, 40000);
}

static void all_three_of_8_threads(void **state) {
    (void)state;
    size_t runs = life_scale(4, 100);
    assert_runs_in_a_row(runs, "bleed", 8, 200000);
    assert_runs_in_a_row(runs, "pipes", 8, 200000);
    assert_runs_in_a_row(runs, "all", 8, 200000);
}

static void all_three_of_64_threads(void **state) {
    (void)state;
    size_t runs = life_scale(4, 100);
    assert_runs_in_a_row(runs, "bleed", 64, 400000);
    assert_runs_in_a_row(runs, "pipes", 64, 400000);
    assert_runs_in_a_row(runs, "all", 64, 400000);
}

int main(int argc, char **argv) {
    const char *mode = life_rerun_mode(argc, argv);
    if (mode != NULL) {
        return run_mode(mode);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generations_of_4_threads_100_times_in_a_row),
        cmocka_unit_test(producers_and_consumers_of_4_threads_100_times_in_a_row),
        cmocka_unit_test(all_to_all_of_4_threads_100_times_in_a_row),
        cmocka_unit_test(all_three_of_8_threads),
        cmocka_unit_test(all_three_of_64_threads),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
