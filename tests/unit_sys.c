/* The system calls, refused for real: each says so, and leaves errno as it was. */
#include "support/prefixed.h"

#include "base/sys.h"

#include <sys/mman.h>

#define MARK 12345

static char *page; /* mapped; the next byte belongs to no page's start */

static bool maps(void) { return hak_sys_map((size_t)1 << 62) != NULL; }
static bool unmaps(void) { return hak_sys_unmap(page + 1, 1); }
static bool purges(void) { return hak_sys_purge(page + 1, 1); }
static bool protects(void) { return hak_sys_protect(page + 1, 1, true); }
static bool grows_in_place(void) { return hak_sys_remap_in_place(page, 1, (size_t)1 << 62) == HAK_REMAP_DONE; }
static bool moves(void) { return hak_sys_remap_to(page + 1, 1, page, 1); }
static bool wipes(void) { return hak_sys_wipe_on_fork(page + 1, 1); }
static bool makes_huge(void) { return hak_sys_make_huge(page + 1, 1); }
static bool keeps_small(void) {
    hak_sys_keep_small(page + 1, 1);
    return false;
}
static bool waits(void) {
    uint32_t word = 1;
    hak_sys_futex_wait(&word, 2);
    return false;
}
static bool wakes(void) {
    hak_sys_futex_wake(page + 1, 1);
    return false;
}
static bool writes(void) { return hak_sys_write(-1, "x", 1) == 0; }
static bool opens(void) { return hak_sys_open_append("/nowhere/at all") >= 0; }
static bool duplicates(void) { return hak_sys_duplicate(-1) >= 0; }
static bool closes(void) {
    hak_sys_close(-1);
    return false;
}

static void what_is_refused_leaves_errno_alone(void **state) {
    static bool (*const calls[])(void) = {maps,  unmaps, purges,     protects,    grows_in_place,
                                          moves, wipes,  makes_huge, keeps_small, waits,
                                          wakes, writes, opens,      duplicates,  closes};
    (void)state;
    page = hak_sys_map(hak_sys_page_bytes());
    assert_non_null(page);
    for (size_t i = 0; i < COUNT(calls); i++) {
        errno = MARK;
        if (calls[i]() || errno != MARK) fail_msg("call %zu: errno %d", i, errno);
    }
    assert_true(hak_sys_unmap(page, hak_sys_page_bytes()));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_refused_leaves_errno_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
