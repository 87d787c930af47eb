/* build: -pthread */
/* The first allocation of a thread finds its bin filled: it is served at once, and nothing cached is let go for it. */
#include "support/life.h"

#include "hakmem.h"

static int (*stats_get)(struct hak_stats *);

struct first {
    size_t size;
    bool served;
    uint64_t refills, purged_bytes;
};

static uint64_t refills_now(uint64_t *purged_bytes) {
    struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof(stats)};
    if (stats_get(&stats) != 0) {
        abort();
    }
    *purged_bytes = stats.layer[HAK_LAYER_BIG].purged_bytes;
    return stats.tls_refills;
}

static void *first_body(void *arg) {
    struct first *first = arg;
    uint64_t purged_before = 0;
    uint64_t purged_after = 0;
    uint64_t before = refills_now(&purged_before);
    void *block = v_malloc(first->size);
    first->refills = refills_now(&purged_after) - before;
    first->purged_bytes = purged_after - purged_before;
    first->served = block != NULL;
    v_free(block);
    return NULL;
}

static void first_allocation_of_a_thread_visits_its_bin_once_at_most(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 16, 17, 32, 48, 64, 65, 1000, 30000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
        struct first first = {.size = sizes[i]};
        pthread_t thread;
        v_free(v_malloc(3 * LIFE_MIB)); /* now cached */
        life_start(&thread, 1, first_body, &first);
        life_join(&thread, 1);
        assert_true(first.served);
        assert_true(first.refills <= 1); /* 0: the thread before it has left a block */
        assert_int_equal(first.purged_bytes, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(first_allocation_of_a_thread_visits_its_bin_once_at_most)};
    *(void **)&stats_get = dlsym(RTLD_DEFAULT, "hak_stats_get");
    if (stats_get == NULL) {
        print_message("1..0 # SKIP runs on hakmem only\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
