/* The checked library lays an inaccessible page behind large blocks, up to a number of them: each one splits a mapping,
 * and the kernel grants a process some 65,000. Further blocks do without. */
#include "support/api_child.h"

#define BLOCKS 9000
#define SIZE ((size_t)1 << 21)

static size_t mappings(void) {
    char buffer[4096];
    size_t lines = 0;
    ssize_t n;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    while ((n = read(fd, buffer, sizeof buffer)) > 0)
        for (ssize_t i = 0; i < n; i++) lines += buffer[i] == '\n';
    close(fd);
    return lines;
}

static char *blocks[BLOCKS];

static void overflow(void *block) { ((volatile char *)block)[SIZE] = 1; }

/* Whether a write behind the block ends the process. */
static bool has_guard(char *block) {
    struct api_child child = api_run_child(overflow, block);
    assert_true(child.status == 0 || (WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGSEGV));
    return child.status != 0;
}

static void many_large_blocks_do_not_use_the_mappings_up(void **state) {
    (void)state;
    api_need(api_build == API_CHECKED);
    size_t before = mappings();
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = api.malloc(SIZE);
        assert_non_null(blocks[i]);
        blocks[i][0] = blocks[i][SIZE - 1] = (char)i;
    }
    assert_true(mappings() - before <= 2 * 8192 + 1000);
    assert_true(has_guard(blocks[0]));
    assert_false(has_guard(blocks[BLOCKS - 1]));
    for (size_t i = 0; i < BLOCKS; i++) {
        assert_true(blocks[i][0] == (char)i && blocks[i][SIZE - 1] == (char)i);
        api.free(blocks[i]);
    }
    blocks[0] = api.malloc(SIZE);
    assert_true(has_guard(blocks[0])); /* there are some to be had again */
    api.free(blocks[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_large_blocks_do_not_use_the_mappings_up),
    };
    api_start();
    return cmocka_run_group_tests_name("guards", tests, NULL, NULL);
}
