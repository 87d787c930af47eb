/* Random operations on BigCache against its model. */
#include "support/stores.h"

#include "support/bigcache_model.h"

#include <stdlib.h>

static struct big_model model;

static void run(uint64_t seed) {
    const unsigned steps = getenv("HAK_SOAK") != NULL ? 200000 : 3000;
    big_model_start(&model, 1000000);
    for (unsigned i = 0; i < steps; i++) big_model_step(&model, next_random(&seed));
    big_model_end(&model);
}

static void the_cache_answers_as_its_model_does(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) run(seed);
    assert_true(model.hits[0] != 0 && model.hits[1] != 0 && model.hits[2] != 0 && model.evictions != 0);
    assert_true(model.hits[3] != 0 && model.hits[4] != 0); /* cut, joined */
}

static void so_it_does_where_nothing_is_cut(void **state) {
    (void)state;
    set_option(BIGCACHE_CUT, 0);
    run(9);
    set_option(BIGCACHE_CUT, 1);
    assert_true(model.hits[2] != 0 && model.hits[3] == 0 && model.hits[4] == 0);
}

static void so_it_does_when_the_table_grows_and_nothing_decays(void **state) {
    (void)state;
    set_option(BIGCACHE_DECAY_MS, 900000);
    set_option(PURGE_DELAY_MS, 900000);
    set_option(BIGCACHE_MAPPED, 8192 * HAK_MIB);
    set_option(BIGCACHE_RESIDENT, 64 * HAK_MIB);
    for (uint64_t seed = 3; seed <= 4; seed++) {
        run(seed);
        assert_in_range(model.resizes, 1, 3);
    }
}

static void so_it_does_under_tight_budgets(void **state) {
    (void)state;
    set_option(BIGCACHE_DECAY_MS, 1000);
    set_option(PURGE_DELAY_MS, 500);
    set_option(BIGCACHE_MAPPED, 48 * HAK_MIB);
    set_option(BIGCACHE_RESIDENT, 4 * HAK_MIB);
    set_option(BIGCACHE_BLOCK_MAX, 5 * HAK_MIB);
    for (uint64_t seed = 5; seed <= 6; seed++) run(seed);
    assert_int_not_equal(model.evictions, 0);
}

static void so_it_does_when_chains_are_kept_short(void **state) {
    (void)state;
    set_option(BIGCACHE_CHAIN_MAX, 2);
    set_option(BIGCACHE_MAPPED, 512 * HAK_MIB);
    set_option(BIGCACHE_RESIDENT, 64 * HAK_MIB);
    for (uint64_t seed = 7; seed <= 8; seed++) run(seed);
    assert_int_not_equal(model.evictions, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cache_answers_as_its_model_does),
        cmocka_unit_test(so_it_does_where_nothing_is_cut),
        cmocka_unit_test(so_it_does_when_the_table_grows_and_nothing_decays),
        cmocka_unit_test(so_it_does_under_tight_budgets),
        cmocka_unit_test(so_it_does_when_chains_are_kept_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
