/* What a program asks of <malloc.h> beyond allocation: the answers are about hakmem's own heap, and true. */
#include "support/api_child.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* mallinfo() itself is tested */

#define MIB ((size_t)1 << 20)

static bool checked_build(void) {
    const char *expect = getenv("HAK_EXPECT");
    return expect && strcmp(expect, "checked") == 0;
}

static void *(*volatile v_malloc)(size_t) = malloc;
static void (*volatile v_free)(void *) = free;

/* ---- mallinfo ------------------------------------------------------------------------------------------------- */

enum { BLOCKS = 2000 };

/* What comes and goes is seen to the byte, but for rounding (at most a quarter; 64 KiB in the L2.5 pool). */
static void check_use(size_t size, size_t rounded) {
    static void *blocks[BLOCKS];
    malloc_trim(0);
    struct mallinfo2 before = mallinfo2();
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = v_malloc(size);
        assert_non_null(blocks[i]);
    }
    malloc_trim(0); /* empties the thread's cache, so that the figures are exact */
    struct mallinfo2 full = mallinfo2();
    assert_in_range(full.uordblks - before.uordblks, BLOCKS * size, BLOCKS * rounded);
    assert_int_equal(full.hblks, before.hblks);
    assert_int_equal(full.arena, full.uordblks + full.fordblks);
    assert_true(full.arena >= before.arena);
    for (size_t i = 0; i < BLOCKS; i++) {
        v_free(blocks[i]);
    }
    malloc_trim(0);
    struct mallinfo2 after = mallinfo2();
    assert_int_equal(after.uordblks, before.uordblks);
    assert_int_equal(after.arena, after.uordblks + after.fordblks);
}

static void uordblks_rises_and_falls_with_what_is_allocated(void **state) {
    (void)state;
    check_use(24, 48);
    check_use(1000, 1280);
    check_use(20000, 25000);
    check_use(200000, 262144);
}

static void blocks_over_a_mebibyte_are_mappings_of_their_own(void **state) {
    (void)state;
    void *blocks[5];
    malloc_trim(0);
    struct mallinfo2 before = mallinfo2();
    for (size_t i = 0; i < 5; i++) {
        blocks[i] = v_malloc(3 * MIB);
        assert_non_null(blocks[i]);
    }
    struct mallinfo2 full = mallinfo2();
    assert_int_equal(full.hblks - before.hblks, 5);
    assert_in_range(full.hblkhd - before.hblkhd, 5 * 3 * MIB, 5 * 4 * MIB);
    assert_int_equal(full.uordblks, before.uordblks);
    for (size_t i = 0; i < 5; i++) {
        v_free(blocks[i]);
    }
    struct mallinfo2 after = mallinfo2();
    assert_int_equal(after.hblks, before.hblks);
    assert_int_equal(after.hblkhd, before.hblkhd);
    assert_true(after.fordblks - before.fordblks >= 5 * 3 * MIB); /* cached */
    assert_true(after.keepcost >= 5 * 3 * MIB);
    malloc_trim(0);
    assert_true(mallinfo2().keepcost < MIB);
}

static void mallinfo_agrees_as_far_as_an_int_goes(void **state) {
    (void)state;
    struct mallinfo2 wide = mallinfo2();
    struct mallinfo narrow = mallinfo();
    assert_true(wide.uordblks > 0 && wide.arena > 0);
    assert_int_equal(narrow.arena, wide.arena);
    assert_int_equal(narrow.uordblks, wide.uordblks);
    assert_int_equal(narrow.fordblks, wide.fordblks);
    assert_int_equal(narrow.hblks, wide.hblks);
    assert_int_equal(narrow.hblkhd, wide.hblkhd);
    assert_int_equal(narrow.keepcost, wide.keepcost);
    void *block = v_malloc(3000 * MIB);
    assert_non_null(block);
    assert_int_equal(mallinfo().hblkhd, INT_MAX);
    assert_true(mallinfo2().hblkhd >= 3000 * MIB);
    v_free(block);
}

static void malloc_trim_says_whether_memory_went_back(void **state) {
    (void)state;
    void *block = v_malloc(3 * MIB);
    assert_non_null(block);
    memset(block, 1, 3 * MIB);
    v_free(block);
    assert_int_equal(malloc_trim(0), 1);
    assert_int_equal(malloc_trim(0), 0);
}

/* ---- malloc_info ------------------------------------------------------------------------------------------------ */

/* Steps over one tag and checks it against the stack of open elements; NULL where it is not well-formed. */
static const char *step_over_tag(const char *at, char open[8][16], size_t *depth) {
    bool closes = at[1] == '/';
    const char *name = at + 1 + closes;
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz");
    if (*at != '<' || length == 0 || length > 15) {
        return NULL;
    }
    at = name + length;
    if (closes) {
        bool fits = *depth > 0 && strlen(open[*depth - 1]) == length && memcmp(open[*depth - 1], name, length) == 0;
        return fits && *at == '>' && (*depth)-- ? at + 1 : NULL;
    }
    while (*at == ' ') {
        size_t attribute = strspn(++at, "abcdefghijklmnopqrstuvwxyz");
        at += attribute;
        if (attribute == 0 || at[0] != '=' || at[1] != '"') {
            return NULL;
        }
        at += 2 + strcspn(at + 2, "\"<&");
        if (*at++ != '"') {
            return NULL;
        }
    }
    if (at[0] == '/' && at[1] == '>') {
        return at + 2;
    }
    if (*at != '>' || *depth == 8) {
        return NULL;
    }
    snprintf(open[*depth], sizeof open[0], "%.*s", (int)length, name);
    ++*depth;
    return at + 1;
}

static void malloc_info_writes_well_formed_xml_of_version_1(void **state) {
    (void)state;
    static char text[8192], attribute[128];
    char open[8][16];
    size_t depth = 0, elements = 0;
    FILE *out = fmemopen(text, sizeof text, "w");
    assert_non_null(out);
    void *block = v_malloc(3 * MIB);
    assert_int_equal(malloc_info(0, out), 0);
    fclose(out);
    assert_memory_equal(text, "<malloc version=\"1\">\n", 21);
    const char *at = text;
    while (*at) {
        at = step_over_tag(at, open, &depth);
        assert_non_null(at);
        elements++;
        at += strspn(at, "\n");
        assert_true(depth > 0 || *at == '\0'); /* one root */
    }
    assert_int_equal(depth, 0);
    assert_true(elements > 10);
    struct mallinfo2 info = mallinfo2();
    snprintf(attribute, sizeof attribute, "<total type=\"mmap\" count=\"%zu\" size=\"%zu\"/>", info.hblks, info.hblkhd);
    assert_non_null(strstr(text, attribute));
    static const char *const parts[] = {"<heap nr=\"0\"", "<total type=\"fast\"", "<total type=\"rest\"",
                                        "<system type=\"current\"", "<aspace type=\"total\""};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        assert_non_null(strstr(text, parts[i]));
    }
    v_free(block);
}

static void malloc_info_refuses_options_and_reports_failed_writes(void **state) {
    (void)state;
    FILE *out = fopen("/dev/full", "w");
    assert_non_null(out);
    errno = 0;
    assert_int_equal(malloc_info(1, out), -1);
    assert_int_equal(errno, EINVAL);
    setvbuf(out, NULL, _IONBF, 0);
    errno = 0;
    assert_int_equal(malloc_info(0, out), -1);
    assert_int_equal(errno, ENOSPC);
    fclose(out);
}

/* ---- malloc_stats -------------------------------------------------------------------------------------------------
 */

static void call_malloc_stats(void *unused) {
    (void)unused;
    malloc_stats();
}

static void malloc_stats_prints_lines_with_the_head_on_stderr(void **state) {
    (void)state;
    struct api_child child = api_run_child(call_malloc_stats, NULL);
    char head[300];
    int lines = 0;
    int head_bytes = snprintf(head, sizeof head, "hakmem[%d %s]: ", (int)child.pid, program_invocation_short_name);
    assert_int_equal(child.status, 0);
    for (char *line = child.text; *line; line = strchr(line, '\n') + 1) {
        assert_memory_equal(line, head, (size_t)head_bytes);
        assert_non_null(strchr(line, '\n'));
        lines++;
    }
    assert_true(lines > 5);
    static const char *const words[] = {"]: tiny ", "]: mid ", "]: l25 ", "]: big ", "live_bytes", "metadata_bytes"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        assert_non_null(strstr(child.text, words[i]));
    }
}

/* ---- mallopt
 * --------------------------------------------------------------------------------------------------------- */

static void mallopt_returns_1_for_what_has_a_meaning(void **state) {
    (void)state;
    assert_int_equal(mallopt(M_TRIM_THRESHOLD, -2), 0);
    assert_int_equal(mallopt(M_TRIM_THRESHOLD, -1), 1);
    assert_int_equal(mallopt(M_TRIM_THRESHOLD, 0), 1);
    assert_int_equal(mallopt(M_TRIM_THRESHOLD, 8 << 20), 1);
    assert_int_equal(mallopt(M_MMAP_THRESHOLD, -1), 0);
    assert_int_equal(mallopt(M_MMAP_THRESHOLD, 64 << 20), 1);
    assert_int_equal(mallopt(M_PERTURB, 0), checked_build());
    static const int meaningless[] = {M_MXFAST,     M_NLBLKS,    M_GRAIN, M_KEEP, M_TOP_PAD, M_MMAP_MAX, M_CHECK_ACTION,
                                      M_ARENA_TEST, M_ARENA_MAX, 0,       12345,  -12345,    INT_MIN,    INT_MAX};
    for (size_t i = 0; i < sizeof meaningless / sizeof meaningless[0]; i++) {
        assert_int_equal(mallopt(meaningless[i], 1), 0);
    }
}

static size_t cached_after_freeing(size_t size) {
    malloc_trim(0);
    size_t before = mallinfo2().keepcost;
    void *block = v_malloc(size);
    assert_non_null(block);
    v_free(block);
    return mallinfo2().keepcost - before;
}

static void above_the_mmap_threshold_a_block_goes_straight_back(void **state) {
    (void)state;
    assert_true(cached_after_freeing(3 * MIB) >= 3 * MIB);
    assert_int_equal(mallopt(M_MMAP_THRESHOLD, 2 << 20), 1);
    assert_int_equal(cached_after_freeing(3 * MIB), 0);
    assert_int_equal(mallopt(M_MMAP_THRESHOLD, 4096), 1); /* means: 1 MiB */
    assert_int_equal(cached_after_freeing(3 * MIB), 0);
    assert_int_equal(mallopt(M_MMAP_THRESHOLD, 64 << 20), 1);
    assert_true(cached_after_freeing(3 * MIB) >= 3 * MIB);
}

enum { SMALL_BLOCKS = 32768, LARGE_BLOCKS = 64 };

/* Free memory of slabs, of the L2.5 pool and of BigCache together, while as much as it is live. */
static size_t kept_beside_what_is_live(void) {
    static void *small[2 * SMALL_BLOCKS], *medium[2 * LARGE_BLOCKS], *large[2 * LARGE_BLOCKS];
    for (size_t i = 0; i < 2 * SMALL_BLOCKS; i++) small[i] = v_malloc(1000);
    for (size_t i = 0; i < 2 * LARGE_BLOCKS; i++) medium[i] = v_malloc(500000);
    for (size_t i = 0; i < 2 * LARGE_BLOCKS; i++) large[i] = v_malloc(2 * MIB);
    for (size_t i = 0; i < SMALL_BLOCKS; i++) v_free(small[i]);
    for (size_t i = 0; i < LARGE_BLOCKS; i++) v_free(medium[i]);
    for (size_t i = 0; i < LARGE_BLOCKS; i++) v_free(large[i]);
    const size_t kept = mallinfo2().keepcost;
    for (size_t i = SMALL_BLOCKS; i < 2 * SMALL_BLOCKS; i++) v_free(small[i]);
    for (size_t i = LARGE_BLOCKS; i < 2 * LARGE_BLOCKS; i++) v_free(medium[i]);
    for (size_t i = LARGE_BLOCKS; i < 2 * LARGE_BLOCKS; i++) v_free(large[i]);
    return kept;
}

static void the_trim_threshold_holds_for_each_layer_whatever_is_live(void **state) {
    (void)state;
    assert_int_equal(mallopt(M_TRIM_THRESHOLD, 1 << 20), 1);
    const size_t little = kept_beside_what_is_live();
    if (little > 3 * (MIB + MIB)) fail_msg("%zu bytes kept", little); /* a layer may exceed its share by one unit */
    assert_int_equal(mallopt(M_TRIM_THRESHOLD, -1), 1);
    const size_t all = kept_beside_what_is_live();
    if (all < 128 * MIB) fail_msg("only %zu bytes kept", all);
    assert_int_equal(mallopt(M_TRIM_THRESHOLD, 8 << 20), 1);
}

static void the_checked_build_fills_blocks_as_m_perturb_says(void **state) {
    (void)state;
    if (!checked_build()) {
        assert_int_equal(mallopt(M_PERTURB, 0x5a), 0);
        return;
    }
    static const size_t sizes[] = {1, 100, 5000, 100000, 3 * MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(mallopt(M_PERTURB, 0x5a), 1);
        unsigned char *block = v_malloc(sizes[i]);
        assert_int_equal(mallopt(M_PERTURB, 0), 1);
        assert_non_null(block);
        for (size_t at = 0; at < sizes[i]; at++) {
            if (block[at] != 0xa5) {
                fail_msg("byte %zu of %zu is %#x", at, sizes[i], block[at]);
            }
        }
        v_free(block);
    }
    unsigned char *zero = calloc(100, 1);
    assert_int_equal(mallopt(M_PERTURB, 0x5a), 1);
    unsigned char *other = calloc(100, 1);
    assert_int_equal(mallopt(M_PERTURB, 0), 1);
    assert_memory_equal(zero, other, 100);
    v_free(zero);
    v_free(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uordblks_rises_and_falls_with_what_is_allocated),
        cmocka_unit_test(blocks_over_a_mebibyte_are_mappings_of_their_own),
        cmocka_unit_test(mallinfo_agrees_as_far_as_an_int_goes),
        cmocka_unit_test(malloc_trim_says_whether_memory_went_back),
        cmocka_unit_test(malloc_info_writes_well_formed_xml_of_version_1),
        cmocka_unit_test(malloc_info_refuses_options_and_reports_failed_writes),
        cmocka_unit_test(malloc_stats_prints_lines_with_the_head_on_stderr),
        cmocka_unit_test(mallopt_returns_1_for_what_has_a_meaning),
        cmocka_unit_test(above_the_mmap_threshold_a_block_goes_straight_back),
        cmocka_unit_test(the_trim_threshold_holds_for_each_layer_whatever_is_live),
        cmocka_unit_test(the_checked_build_fills_blocks_as_m_perturb_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
