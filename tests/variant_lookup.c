/* The lookup by two steps, which builds without HAK_REGION_LOOKUP have instead of the region map's tags
 * (bench/phase7.mk): it finds a slab from every granule of it as long as it is in use, and nothing else ever. */
#include "support/prefixed.h"
#include "support/whitebox.h"

#include "base/size_class.h"
#include "stores/l25.h"
#include "stores/slab.h"
#include "stores/superslab.h"

#define SLABS_MOST 300

static int me;
static struct hak_slab *slabs[SLABS_MOST];
static unsigned count;

static const struct hak_slab *find(const void *ptr) {
    const struct hak_region_leaf *leaf = hak_region_leaf_of(ptr);
    return leaf == NULL ? NULL : hak_slab_find(leaf, hak_region_index(ptr));
}

static void expect_found(const struct hak_slab *slab, const struct hak_slab *found) {
    for (unsigned i = 0; i < slab->slabs; i++) expect_equal(find(slab->base + i * HAK_SLAB_BYTES), found);
}

static void take(unsigned size_class) {
    struct hak_slab *slab = hak_slab_take(size_class, &me, 1, false);
    expect(slab != NULL);
    slabs[count++] = slab;
    expect_found(slab, slab);
}

static void give(unsigned i) {
    struct hak_slab *slab = slabs[i];
    slabs[i] = slabs[--count];
    hak_slab_give(slab);
    expect_found(slab, NULL);
}

static void a_slab_is_found_while_it_is_in_use(void **state) {
    (void)state;
    uint64_t random = 7;
    for (unsigned round = 0; round < 40; round++) {
        /* Up to many slabs and down to few, and in every other round the empty superslabs go. */
        unsigned goal = round % 2 == 0 ? SLABS_MOST : round % 3;
        while (count != goal)
            if (count < goal) take((unsigned)(next_random(&random) % HAK_CLASS_COUNT));
            else give((unsigned)(next_random(&random) % count));
        for (unsigned i = 0; i < count; i++) expect_found(slabs[i], slabs[i]);
        if (round % 4 == 1) hak_superslab_purge_all();
    }
}

static void whole_superslabs_come_and_go(void **state) {
    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        while (count < SLABS_MOST) take(0);
        char *bases[SLABS_MOST];
        for (unsigned i = 0; i < SLABS_MOST; i++) bases[i] = slabs[i]->base;
        for (unsigned i = 0; i < SLABS_MOST; i++) expect_equal(find(bases[i]), slabs[i]);
        while (count != 0) give(count - 1);
        hak_superslab_purge_all();
        for (unsigned i = 0; i < SLABS_MOST; i++) {
            const struct hak_region_leaf *leaf = hak_region_leaf_of(bases[i]);
            expect(hak_load_acq(&leaf->superslab[hak_region_index(bases[i]) / HAK_SUPERSLAB_SLABS]) == NULL);
        }
    }
}

static void what_is_no_slab_is_not_found(void **state) {
    (void)state;
    int local;
    char *run = hak_l25_alloc(HAK_L25_MAX, 0, 0).ptr;
    must(run != NULL);
    expect_equal(find(run), NULL);
    expect_equal(find(run + HAK_GRANULE), NULL);
    expect_equal(find(&local), NULL);
    expect_equal(find(slabs), NULL);
    expect_equal(find(NULL), NULL);
    assert_int_equal(hak_l25_free(hak_region_lookup(run).descriptor, run), HAK_FREE_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slab_is_found_while_it_is_in_use),
        cmocka_unit_test(whole_superslabs_come_and_go),
        cmocka_unit_test(what_is_no_slab_is_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
