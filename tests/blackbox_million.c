/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* A million live blocks of one size: none fails, none overlaps another, and what the process holds is little more
 * than what was asked for. */
#include "support/api_blackbox.h"
#include "support/api_child.h"

enum { MILLION = 1000000 };

struct load {
    size_t size;
    size_t percent_max; /* of memory held over the payload; 0: no limit */
};

static uint64_t stamp(size_t index) { return (index + 1) * 0x9E3779B97F4A7C15u; }

static bool stamped(const char *block, size_t size, size_t index) {
    uint64_t head;
    uint64_t tail;
    memcpy(&head, block, sizeof head);
    memcpy(&tail, block + size - sizeof tail, sizeof tail);
    return head == stamp(index) && tail == stamp(index);
}

static void put_stamp(char *block, size_t size, size_t index) {
    uint64_t value = stamp(index);
    memset(block, 0x3C, size);
    memcpy(block, &value, sizeof value);
    memcpy(block + size - sizeof value, &value, sizeof value);
}

/* Walks all blocks in an order in which neighbours in time are far apart in memory. */
static size_t scattered(size_t turn) { return turn * 611953 % MILLION; }

static void hold_a_million(void *argument) {
    const struct load *load = argument;
    char **blocks = api_books(MILLION * sizeof *blocks);
    size_t before = api_rss();
    for (size_t i = 0; i < MILLION; i++) {
        blocks[i] = api.malloc(load->size);
        api_child_check(blocks[i] != NULL && api_aligned(blocks[i], 16));
        put_stamp(blocks[i], load->size, i);
    }
    size_t payload = MILLION * load->size;
    size_t held = api_rss() - before;
    api_trace->value = (long)(held / (payload / 1000));
    for (size_t i = 0; i < MILLION; i++) {
        size_t at = scattered(i);
        api_child_check(stamped(blocks[at], load->size, at));
        api.free(blocks[at]);
    }
    /* And again: the memory is found anew, in whatever order it was freed. */
    for (size_t i = 0; i < MILLION; i++) {
        blocks[i] = api.malloc(load->size);
        api_child_check(blocks[i] != NULL);
        put_stamp(blocks[i], load->size, i);
    }
    api_child_check(api_rss() - before < held + held / 10);
    for (size_t i = 0; i < MILLION; i++) {
        api_child_check(stamped(blocks[i], load->size, i));
        api.free(blocks[i]);
    }
}

static void assert_million(struct load load) {
    struct api_child child = api_run_child(hold_a_million, &load);
    if (child.status != 0 || child.text[0]) {
        fail_msg("wait status 0x%x, stderr \"%s\"", (unsigned)child.status, child.text);
    }
    printf("# %d blocks of %zu bytes: %ld permille of the payload resident\n", MILLION, load.size, child.trace.value);
    /* The checked build watches a byte behind each block, which puts these sizes a class higher, and notes four bytes.
     */
    size_t percent_max = api_build == API_CHECKED ? load.percent_max + 25 : load.percent_max;
    if (load.percent_max) {
        assert_in_range(child.trace.value, 1000, 1000 + 10 * (long)percent_max);
    }
}

static void a_million_blocks_of_16_bytes_live_at_once(void **state) {
    (void)state;
    assert_million((struct load){16, 0});
}

static void a_million_blocks_of_64_bytes_take_at_most_12_percent_more(void **state) {
    (void)state;
    assert_million((struct load){64, 12});
}

static void a_million_blocks_of_1024_bytes_take_at_most_12_percent_more(void **state) {
    (void)state;
    assert_million((struct load){1024, 12});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_million_blocks_of_16_bytes_live_at_once),
        cmocka_unit_test(a_million_blocks_of_64_bytes_take_at_most_12_percent_more),
        cmocka_unit_test(a_million_blocks_of_1024_bytes_take_at_most_12_percent_more),
    };
    api_start();
    return cmocka_run_group_tests_name("million", tests, NULL, NULL);
}
