/* build: -pthread */
/* Which processors a process may use is not "the first n", and it changes while the process runs. */
#include "support/life.h"

#include <sched.h>

enum { CHURNERS = 4 };

static struct life_table table;
static cpu_set_t allowed;

/* The highest processor that this process may use. */
static size_t last_processor(void) {
    for (size_t cpu = CPU_SETSIZE - 1; cpu > 0; --cpu) {
        if (CPU_ISSET(cpu, &allowed)) {
            return cpu;
        }
    }
    return 0;
}

static void only(size_t cpu, cpu_set_t *set) {
    CPU_ZERO(set);
    CPU_SET(cpu, set);
}

static void churn_for(long ms) {
    pthread_t threads[CHURNERS];
    life_table_open(&table, 1000, 2 * LIFE_MIB);
    life_start(threads, CHURNERS, life_table_churn, &table);
    life_sleep_ms(ms);
    atomic_store(&table.stop, true);
    life_join(threads, CHURNERS);
    assert_int_equal(life_table_close(&table), 0);
}

/* In a fresh process, so that the library starts up with it. */
static int last_processor_process(void) {
    cpu_set_t mine;
    sched_getaffinity(0, sizeof(mine), &mine);
    if (CPU_COUNT(&mine) != 1) {
        return 1;
    }
    churn_for(300);
    return life_full_mix();
}

static void last_processor_alone_is_enough(void **state) {
    (void)state;
    cpu_set_t last;
    only(last_processor(), &last);
    assert_int_equal(sched_setaffinity(0, sizeof(last), &last), 0);
    int status = life_rerun("last");
    assert_int_equal(sched_setaffinity(0, sizeof(allowed), &allowed), 0);
    assert_int_equal(status, 0);
}

static void affinity_may_change_while_threads_allocate(void **state) {
    (void)state;
    pthread_t threads[CHURNERS];
    uint64_t random = 4;
    life_table_open(&table, 1000, 2 * LIFE_MIB);
    life_start(threads, CHURNERS, life_table_churn, &table);
    size_t changes = 0;
    double end = life_seconds() + (double)life_scale(1, 20);
    while (life_seconds() < end || changes < 100) {
        cpu_set_t one;
        size_t cpu = life_random(&random) % (last_processor() + 1);
        only(cpu, &one);
        pthread_t thread = threads[changes % CHURNERS];
        if (CPU_ISSET(cpu, &allowed) && pthread_setaffinity_np(thread, sizeof(one), &one) == 0) {
            ++changes;
        }
        life_table_step(&table, &random);
    }
    atomic_store(&table.stop, true);
    life_join(threads, CHURNERS);
    assert_int_equal(life_table_close(&table), 0);
}

int main(int argc, char **argv) {
    sched_getaffinity(0, sizeof(allowed), &allowed);
    if (life_rerun_mode(argc, argv) != NULL) {
        return last_processor_process();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(last_processor_alone_is_enough),
        cmocka_unit_test(affinity_may_change_while_threads_allocate),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
