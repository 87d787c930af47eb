/* build: -pthread */
/* The whole interface works on the smallest stack that a thread can have. */
#include "support/life.h"

#include <malloc.h>

static struct life_table table;

/* The largest frame of this test itself must stay small: no buffers here. */
static void *mix_body(void *arg) {
    uint64_t random = 11;
    (void)arg;
    if (life_full_mix() != 0) {
        return (void *)1;
    }
    for (int i = 0; i < 3000; ++i) {
        life_table_step(&table, &random);
    }
    malloc_trim(0);
    return life_table_empty(&table) == 0 ? NULL : (void *)2;
}

static void *run_on_smallest_stack(void *(*body)(void *)) {
    pthread_attr_t attributes;
    pthread_t thread;
    void *result = (void *)3;
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN), 0);
    assert_int_equal(pthread_create(&thread, &attributes, body, NULL), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    pthread_attr_destroy(&attributes);
    return result;
}

static void smallest_stack_carries_the_full_mix(void **state) {
    (void)state;
    life_table_open(&table, 300, 4 * LIFE_MIB);
    for (int i = 0; i < 20; ++i) {
        assert_null(run_on_smallest_stack(mix_body));
    }
    assert_int_equal(life_table_close(&table), 0);
}

/* A handler on an alternative stack of the smallest size is a usual place for crash reporters that free memory. */
static volatile int mixed = -1;

static void on_user(int signal) {
    (void)signal;
    mixed = life_full_mix();
}

static void alternative_signal_stack_carries_the_full_mix(void **state) {
    (void)state;
    size_t size = (size_t)sysconf(_SC_SIGSTKSZ);
    stack_t stack = {.ss_sp = malloc(size), .ss_size = size, .ss_flags = 0};
    struct sigaction action = {.sa_handler = on_user, .sa_flags = SA_ONSTACK};
    assert_non_null(stack.ss_sp);
    assert_int_equal(sigaltstack(&stack, NULL), 0);
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_int_equal(mixed, 0);
    stack.ss_flags = SS_DISABLE;
    assert_int_equal(sigaltstack(&stack, NULL), 0);
    free(stack.ss_sp);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smallest_stack_carries_the_full_mix),
        cmocka_unit_test(alternative_signal_stack_carries_the_full_mix),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
