/* Capacities that ordinary use does not reach: what happens there. docs/DESIGN_FLAWS.md lists all of them, with the
 * tests of the others. Each test has a process of its own. */
#include "support/prefixed.h"

#include <limits.h>

#include "base/log.h"
#include "front/heap.h"
#include "front/tcache.h"
#include "stores/bigcache.h"
#include "stores/bigcache_table.h"
#include "stores/l25.h"
#include "stores/l25_table.h"
#include "support/whitebox.h"

/* ---- heaps ---------------------------------------------------------------------------------------------------- */

/* hakmem's key: the one whose value is the heap. */
static pthread_key_t own_key(void) {
    for (pthread_key_t key = 0; key < PTHREAD_KEYS_MAX; key++)
        if (pthread_getspecific(key) == hak_tls_heap) return key;
    must(!"no key");
    return 0;
}

static size_t longest;

static void follow(const struct hak_heap *heap, void *data) {
    size_t length = 0;
    (void)data;
    for (const struct hak_heap *at = heap; at != NULL; at = at->next_of_tag) length++;
    if (length > longest) longest = length;
}

/* Takes so many heaps, one after the other, as so many threads would that live at once. */
static void have_many_heaps(void *argument) {
    enum { HEAPS = 4000 };
    (void)argument;
    set_option(PREWARM, 0);
    must(hak_tcache_alloc(0) != NULL);
    const pthread_key_t key = own_key();
    for (unsigned i = 1; i < HEAPS; i++) {
        must(pthread_setspecific(key, NULL) == 0);
        hak_tls_heap = hak_heap_initial();
        must(hak_tcache_alloc(0) != NULL);
    }
    must(stats_of_front().threads == HEAPS);
    hak_heap_each(follow, NULL);
    must(longest <= 16);
}

static void a_new_heap_is_held_against_few_of_many(void **state) {
    (void)state;
    succeeds(have_many_heaps);
}

/* ---- L2.5 pool ------------------------------------------------------------------------------------------------ */

static void *run_of(size_t bytes, uint32_t lane) {
    struct hak_block block = hak_l25_alloc(bytes, HAK_MIN_ALIGN, lane);
    must(block.ptr != NULL);
    return block.ptr;
}

static void give_run(void *ptr) { must(hak_l25_free(descriptor_of(ptr), ptr) == HAK_FREE_OK); }

static void fill_a_chunk(void *argument) {
    (void)argument;
    for (unsigned i = 0; i < HAK_CHUNK_SLICES; i++) run_of(1, 0);
    must(hak_l25_stats().mapped_bytes == HAK_CHUNK_BYTES);
    run_of(1, 0);
    must(hak_l25_stats().mapped_bytes == 2 * HAK_CHUNK_BYTES);
    must(hak_l25_check());
}

static void the_65th_slice_begins_another_chunk(void **state) {
    (void)state;
    succeeds(fill_a_chunk);
}

/* Each shard may keep so many dirty slices to itself, whatever the budget. */
static void owe_in_every_shard(void *argument) {
    enum { SHARDS = 64, OWED = 16 };
    static void *runs[SHARDS], *slices[SHARDS];
    (void)argument;
    hak_sys_set_now_for_test(100000);
    set_option(RETAIN_BYTES, 0);
    set_option(RETAIN_PERCENT, 0);
    for (uint32_t lane = 0; lane < SHARDS; lane++) { /* a chunk for each shard */
        runs[lane] = run_of(OWED * HAK_SLICE_BYTES, lane);
        slices[lane] = run_of(1, lane);
        for (unsigned rest = HAK_CHUNK_SLICES - OWED - 1; rest > 0; rest--) run_of(1, lane);
    }
    must(hak_l25_stats().mapped_bytes == SHARDS * HAK_CHUNK_BYTES);
    for (uint32_t lane = 0; lane < SHARDS; lane++) give_run(runs[lane]);
    must(hak_l25_stats().dirty_bytes == SHARDS * OWED * HAK_SLICE_BYTES);
    for (uint32_t lane = 0; lane < SHARDS / 2; lane++) give_run(slices[lane]); /* one more is too much */
    must(hak_l25_stats().dirty_bytes == SHARDS / 2 * OWED * HAK_SLICE_BYTES);
    hak_l25_decay(100000 + hak_option(PURGE_DELAY_MS)); /* age finds it all the same */
    must(hak_l25_stats().dirty_bytes == 0);
    must(hak_l25_check());
}

static void what_a_shard_owes_passes_the_budget_by_a_mebibyte_at_most(void **state) {
    (void)state;
    succeeds(owe_in_every_shard);
}

/* ---- BigCache -------------------------------------------------------------------------------------------------- */

static void cache_more_than_expire_at_a_time(void *argument) {
    enum { BLOCKS = 200 };
    static void *blocks[BLOCKS];
    (void)argument;
    for (unsigned i = 0; i < BLOCKS; i++) must((blocks[i] = hak_big_alloc(2 * HAK_MIB, HAK_MIN_ALIGN, 1).ptr) != NULL);
    for (unsigned i = 0; i < BLOCKS; i++) must(hak_big_free(descriptor_of(blocks[i]), blocks[i]) == HAK_FREE_OK);
    must(hak_big_stats().entries == BLOCKS);
    must(hak_big_purge_all() == BLOCKS * 2 * HAK_MIB);
    must(hak_big_stats().entries == 0 && hak_big_stats().mapped_bytes == 0);
}

static void all_that_is_due_goes_however_much_it_is(void **state) {
    (void)state;
    succeeds(cache_more_than_expire_at_a_time);
}

/* ---- options and lines ------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    uint64_t max;
} options[] = {
#define HAK_OPTION(name, type, def, min, max, unit, help) {#name, max},
#include "base/options.def"
#undef HAK_OPTION
};

static uint64_t most(const char *name) {
    for (size_t i = 0; i < COUNT(options); i++)
        if (strcmp(options[i].name, name) == 0) return options[i].max;
    fail_msg("%s is no option", name);
    return 0;
}

static void no_option_can_be_set_beyond_what_depends_on_it(void **state) {
    (void)state;
    const struct hak_bin_state bin = {.capacity = UINT16_MAX};
    assert_true(most("TLS_SLOTS_MAX") <= bin.capacity && most("TLS_SLOTS_MIN") <= bin.capacity);
    assert_true(most("PREWARM") <= HAK_CLASS_COUNT);
    assert_true(most("L25_SHARDS_MAX") <= HAK_L25_SHARDS_LIMIT && most("L25_SHARDS_MIN") <= HAK_L25_SHARDS_LIMIT);
    assert_true(most("BIGCACHE_BUCKETS_MAX") <= UINT32_MAX / 2); /* a number that is doubled */
    assert_true(most("BIGCACHE_BLOCK_MAX") <= (uint64_t)1 << HAK_BIG_SHIFT_MAX);
    assert_true(most("BIGCACHE_MAPPED") >> HAK_BIG_SHIFT_MIN < UINT32_MAX); /* entries */
    assert_true(most("RETAIN_PERCENT") <= UINT64_MAX >> HAK_ADDRESS_BITS);  /* times bytes */
}

/* A name of which a third is wrong has at most half as many letters again. */
static void no_option_has_a_name_too_long_to_be_compared(void **state) {
    enum { COMPARED = 40 };
    (void)state;
    for (size_t i = 0; i < COUNT(options); i++) assert_true(strlen(options[i].name) * 3 / 2 <= COMPARED);
}

static void read_long_names(void *argument) {
    char near[] = "HAKMEM_BIGCACHE_BUCKETS_MAXIMUM=1", far[] = "HAKMEM_BIGCACHE_BUCKETS_MAX_OF_THE_LARGE_BLOCKS=1";
    char *environment[] = {near, far, NULL};
    (void)argument;
    hak_options_reset_for_test();
    hak_options_init(environment);
}

static void a_long_name_is_far_from_every_other(void **state) {
    (void)state;
    struct ended ended = run_heard(read_long_names, NULL);
    assert_non_null(strstr(ended.text, "the nearest one is HAKMEM_BIGCACHE_BUCKETS_MAX\n"));
    assert_non_null(strstr(ended.text, "OF_THE_LARGE_BLOCKS is not an option and ignored; HAKMEM_HELP=1 lists"));
}

static void the_largest_number_stays_whole(void **state) {
    (void)state;
    struct hak_text text = {.used = 0};
    hak_text_u64(&text, UINT64_MAX);
    hak_text_str(&text, " ");
    hak_text_hex(&text, UINT64_MAX);
    text.bytes[text.used] = '\0';
    assert_string_equal(text.bytes, "18446744073709551615 0xffffffffffffffff");
}

/* With a program's name of 255 bytes, each written as six, and each figure of 20 digits. */
static void the_longest_line_of_statistics_goes_out_in_one_piece(void **state) {
    (void)state;
    size_t layers = 0, figures = 0, figure = strlen("\"\":,") + 20;
#define HAK_STAT_LAYER(field, tiny, mid, l25, big) layers += strlen(#field) + figure;
#define HAK_STAT(field, value, meaning) figures += strlen(#field) + figure;
#include "api/stats.def"
    size_t head = strlen("{\"version\":4294967295,\"pid\":4294967295,\"program\":\"\",\"layers\":{}}\n") + 6 * 255;
    size_t line = head + HAK_LAYER_COUNT * (layers + strlen("\"tiny\":{},")) + figures;
    assert_in_range(line, 3000, PIPE_BUF); /* so much a pipe takes at once */
    assert_true(PIPE_BUF <= 8192);         /* the buffer */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_heap_is_held_against_few_of_many),
        cmocka_unit_test(the_65th_slice_begins_another_chunk),
        cmocka_unit_test(what_a_shard_owes_passes_the_budget_by_a_mebibyte_at_most),
        cmocka_unit_test(all_that_is_due_goes_however_much_it_is),
        cmocka_unit_test(no_option_can_be_set_beyond_what_depends_on_it),
        cmocka_unit_test(no_option_has_a_name_too_long_to_be_compared),
        cmocka_unit_test(a_long_name_is_far_from_every_other),
        cmocka_unit_test(the_largest_number_stays_whole),
        cmocka_unit_test(the_longest_line_of_statistics_goes_out_in_one_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
