/* build: -pthread */
/* After a peak, memory goes back to the system: within 3 s of light activity at most a fifth of the peak is left. */
#include "support/life.h"

enum { PEAK_MIB = 96, LEFT_PERCENT = 20, WAIT_MS = 3000 };

/* The light activity: a few blocks now and then, as of an idle server. */
static void light_activity(uint64_t *random) {
    void *few[16];
    for (int i = 0; i < 16; ++i) {
        few[i] = v_malloc(16 + life_random(random) % 2000);
    }
    for (int i = 0; i < 16; ++i) {
        v_free(few[i]);
    }
    void *large = v_malloc(100000);
    v_free(large);
}

static void *drop_all_body(void *arg) {
    void **block = arg;
    for (; *block != NULL; ++block) {
        v_free(*block);
    }
    return NULL;
}

/* Fills every byte of the peak, frees it (here or in another thread), and says what is left: 0 or an error. */
static int peak_of(size_t size, bool other_thread) {
    size_t count = PEAK_MIB * LIFE_MIB / size;
    size_t list_bytes = (count + 1) * sizeof(void *);
    uint64_t random = size;
    pthread_t thread;
    void **block = mmap(NULL, list_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(block, 0, list_bytes);
    light_activity(&random);
    size_t base = life_rss();
    for (size_t i = 0; i < count; ++i) {
        block[i] = v_malloc(size);
        if (block[i] == NULL) {
            return 1;
        }
        memset(block[i], 0xa5, size);
    }
    size_t peak = life_growth(base, life_rss());
    if (other_thread) {
        life_start(&thread, 1, drop_all_body, block);
        life_join(&thread, 1);
    } else {
        drop_all_body(block);
    }
    double end = life_seconds() + WAIT_MS / 1000.0;
    while (life_seconds() < end) {
        light_activity(&random);
        life_sleep_ms(10);
    }
    size_t left = life_growth(base, life_rss());
    printf("# %zu bytes%s: peak %zu KiB, left %zu KiB\n", size, other_thread ? ", freed by another thread" : "",
           peak >> 10, left >> 10);
    fflush(stdout);
    return peak < PEAK_MIB * LIFE_MIB / 10 * 9 ? 2 : left > PEAK_MIB * LIFE_MIB * LEFT_PERCENT / 100 ? 3 : 0;
}

static void assert_given_back(const char *mode) { assert_int_equal(life_rerun(mode), 0); }

static void peak_of_64_byte_blocks_is_given_back(void **state) {
    (void)state;
    assert_given_back("64");
}

static void peak_of_1_kib_blocks_is_given_back(void **state) {
    (void)state;
    assert_given_back("1024");
}

static void peak_of_16_kib_blocks_is_given_back(void **state) {
    (void)state;
    assert_given_back("16384");
}

static void peak_of_400_kib_blocks_is_given_back(void **state) {
    (void)state;
    assert_given_back("409600");
}

static void peak_of_3_mib_blocks_is_given_back(void **state) {
    (void)state;
    assert_given_back("3145728");
}

static void peak_freed_by_another_thread_is_given_back(void **state) {
    (void)state;
    assert_given_back("1024 other");
}

int main(int argc, char **argv) {
    const char *mode = life_rerun_mode(argc, argv);
    if (mode != NULL) {
        return peak_of(strtoul(mode, NULL, 10), strchr(mode, ' ') != NULL);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peak_of_64_byte_blocks_is_given_back),
        cmocka_unit_test(peak_of_1_kib_blocks_is_given_back),
        cmocka_unit_test(peak_of_16_kib_blocks_is_given_back),
        cmocka_unit_test(peak_of_400_kib_blocks_is_given_back),
        cmocka_unit_test(peak_of_3_mib_blocks_is_given_back),
        cmocka_unit_test(peak_freed_by_another_thread_is_given_back),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
