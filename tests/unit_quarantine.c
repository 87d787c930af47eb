/* The quarantine of builds for AddressSanitizer and Valgrind: it holds so many blocks, by number and by bytes, and
 * gives the oldest back first. */
#include "support/inside.h"
#include "support/prefixed.h"

#include "front/heap.h"

#if HAK_QUARANTINE

#define SLOTS 65536
#define BLOCKS (SLOTS + 5000)

static uint64_t live(void) {
    hak_thread_flush();
    return stats_of_front().live_blocks[0];
}

/* To the stores, a block that is held is live. */
static void hold_more_than_there_are_places_for(void *argument) {
    static void *blocks[BLOCKS];
    (void)argument;
    set_option(QUARANTINE, (uint64_t)1 << 30);
    uint64_t before = live();
    for (unsigned i = 0; i < BLOCKS; i++) must((blocks[i] = hak_malloc(24)) != NULL);
    for (unsigned i = 0; i < SLOTS; i++) hak_free(blocks[i]);
    must(live() == before + BLOCKS);
    for (unsigned i = SLOTS; i < BLOCKS; i++) hak_free(blocks[i]);
    must(live() == before + SLOTS);
    set_option(QUARANTINE, 32 * 1000); /* the block that comes now is smaller, but pushes the rest out */
    hak_free(hak_malloc(24));
    must(live() <= before + 1000 && live() > before);
    hak_purge();
    must(live() == before);
}

static void the_oldest_leave_when_there_is_no_place_or_too_much(void **state) {
    (void)state;
    struct ended ended = run_heard(hold_more_than_there_are_places_for, NULL);
    assert_string_equal(ended.text, "");
    assert_int_equal(ended.status, 0);
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
#if HAK_QUARANTINE
        cmocka_unit_test(the_oldest_leave_when_there_is_no_place_or_too_much),
#endif
        {.name = NULL},
    };
    return _cmocka_run_group_tests("quarantine", tests, COUNT(tests) - 1, NULL, NULL);
}
