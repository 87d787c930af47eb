/* Random operations on the L2.5 pool against its model. */
#include "support/stores.h"

#include "support/l25_model.h"

#include <stdlib.h>

/* The shards there are at the end. */
static uint32_t run(uint64_t seed, unsigned steps) {
    static struct l25_model model;
    l25_model_start(&model, 1000000);
    for (unsigned i = 0; i < steps; i++) l25_model_step(&model, next_random(&seed));
    l25_model_end(&model);
    return model.shards;
}

static unsigned steps(void) { return getenv("HAK_SOAK") != NULL ? 200000 : 2500; }

static void the_pool_answers_as_its_model_does(void **state) {
    (void)state;
    set_option(L25_LOAD, 1000);
    for (uint64_t seed = 1; seed <= 3; seed++) assert_int_equal(run(seed, steps()), 64);
}

static void so_it_does_while_the_table_grows_from_one_shard(void **state) {
    (void)state;
    set_option(L25_SHARDS_MIN, 1);
    set_option(L25_SHARDS_MAX, 16);
    set_option(L25_LOAD, 5);
    for (uint64_t seed = 4; seed <= 6; seed++) assert_int_equal(run(seed, steps()), 16);
}

static void so_it_does_with_no_budget_for_free_memory(void **state) {
    (void)state;
    set_option(L25_SHARDS_MIN, 4);
    set_option(L25_SHARDS_MAX, 4);
    set_option(RETAIN_BYTES, 0);
    set_option(RETAIN_PERCENT, 0);
    set_option(PURGE_DELAY_MS, 0);
    set_option(UNMAP_DELAY_MS, 0);
    for (uint64_t seed = 7; seed <= 9; seed++) assert_int_equal(run(seed, steps()), 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pool_answers_as_its_model_does),
        cmocka_unit_test(so_it_does_while_the_table_grows_from_one_shard),
        cmocka_unit_test(so_it_does_with_no_budget_for_free_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
