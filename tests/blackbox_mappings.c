/* build: -pthread */
/* The kernel grants a process some 65,000 mappings: many blocks, with holes between them, must not use them up. */
#include "support/life.h"

enum { MAX_MAPPINGS = 1000 };

static void touch(void *block, size_t size) {
    if (block == NULL) {
        abort();
    }
    memset(block, 1, 64);
    ((char *)block)[size - 1] = 1;
}

/* Many blocks, every other one freed, some time for memory to be given back, then the holes filled again. */
static int every_other(size_t count, size_t size) {
    size_t list_bytes = count * sizeof(void *);
    size_t mappings[4];
    void **block = mmap(NULL, list_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < count; ++i) {
        block[i] = v_malloc(size);
        if (block[i] == NULL) {
            return 1;
        }
        touch(block[i], size);
    }
    mappings[0] = life_mappings();
    for (size_t i = 0; i < count; i += 2) {
        v_free(block[i]);
    }
    mappings[1] = life_mappings();
    for (int i = 0; i < 150; ++i) {
        v_free(v_malloc(size));
        life_sleep_ms(10);
    }
    mappings[2] = life_mappings();
    for (size_t i = 0; i < count; i += 2) {
        block[i] = v_malloc(size);
        if (block[i] == NULL) {
            return 2;
        }
        touch(block[i], size);
    }
    mappings[3] = life_mappings();
    printf("# %zu x %zu bytes: %zu mappings when full, %zu with holes, %zu later, %zu when full again\n", count, size,
           mappings[0], mappings[1], mappings[2], mappings[3]);
    fflush(stdout);
    for (size_t i = 0; i < 4; ++i) {
        if (mappings[i] >= MAX_MAPPINGS) {
            return 3;
        }
    }
    return 0;
}

static void blocks_of_40_kib_with_holes_need_few_mappings(void **state) {
    (void)state;
    assert_int_equal(life_rerun("40"), 0);
}

static void blocks_of_600_kib_with_holes_need_few_mappings(void **state) {
    (void)state;
    assert_int_equal(life_rerun("600"), 0);
}

int main(int argc, char **argv) {
    const char *mode = life_rerun_mode(argc, argv);
    if (mode != NULL) {
        return strcmp(mode, "40") == 0 ? every_other(40000, 40 << 10) : every_other(3000, 600 << 10);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_40_kib_with_holes_need_few_mappings),
        cmocka_unit_test(blocks_of_600_kib_with_holes_need_few_mappings),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
