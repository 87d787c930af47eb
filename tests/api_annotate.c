/* What builds for Valgrind know of the mappings of metadata. White-box, but for Valgrind's eyes: it runs the api tests.
 */
#include "support/prefixed.h"

#include "base/annotate.h"

#if HAK_VALGRIND

#define MAPPINGS 5000 /* more than there are places in the first table */
#define FAKE(i) ((char *)(uintptr_t)0x100000000 + (size_t)(i)*8192)

static bool seen[MAPPINGS];
static unsigned others;

static void note(void *ptr, size_t bytes) {
    size_t i = (size_t)((char *)ptr - FAKE(0)) / 8192;
    if ((char *)ptr >= FAKE(0) && i < MAPPINGS && bytes == 4096 && !seen[i]) seen[i] = true;
    else others++;
}

static unsigned count(void) {
    unsigned n = 0;
    memset(seen, 0, sizeof seen);
    others = 0;
    hak_annotate_each_metadata(note);
    for (unsigned i = 0; i < MAPPINGS; i++) n += seen[i];
    return n;
}

static void mappings_of_metadata_are_known_however_many_there_are(void **state) {
    (void)state;
    hak_free(hak_malloc(1));
    assert_int_equal(count(), 0);
    const unsigned own = others;
    assert_true(own > 0);
    for (unsigned i = 0; i < MAPPINGS; i++) hak_annotate_metadata(FAKE(i), 4096, true);
    assert_int_equal(count(), MAPPINGS);
    assert_int_equal(others, own);
    for (unsigned i = 0; i < MAPPINGS; i += 2) hak_annotate_metadata(FAKE(i), 4096, false);
    assert_int_equal(count(), MAPPINGS / 2);
    for (unsigned i = 1; i < MAPPINGS; i += 2) hak_annotate_metadata(FAKE(i), 4096, false);
    assert_int_equal(count(), 0);
    assert_int_equal(others, own);
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
#if HAK_VALGRIND
        cmocka_unit_test(mappings_of_metadata_are_known_however_many_there_are),
#endif
        {.name = NULL},
    };
    return _cmocka_run_group_tests("annotations", tests, COUNT(tests) - 1, NULL, NULL);
}
