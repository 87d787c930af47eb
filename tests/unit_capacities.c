/* Capacities that ordinary use does not reach: what happens there. docs/DESIGN_FLAWS.md lists all of them, with the tests
 * of the others. Each test has a process of its own. */
#include "support/prefixed.h"

#include <limits.h>

#include "base/log.h"
#include "front/heap.h"
#include "front/tcache.h"
#include "stores/bigcache.h"
#include "stores/l25.h"
#include "support/whitebox.h"

static void succeeds(void (*body)(void *)) {
    struct ended ended = run_heard(body, NULL);
    assert_string_equal(ended.text, "");
    assert_int_equal(ended.status, 0);
}

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
    struct hak_front_stats stats;
    hak_front_stats(&stats);
    must(stats.threads == HEAPS);
    hak_heap_each(follow, NULL);
    must(longest <= 16);
}

static void a_new_heap_is_held_against_few_of_many(void **state) {
    (void)state;
    succeeds(have_many_heaps);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_heap_is_held_against_few_of_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
