/* What goes back to the system is nobody's any more when it goes: while a range is unmapped or moved away it has no
 * entry in the region map, for another thread may get it at once; while it is purged it cannot be served. A hook looks
 * at the moment of the system call. */
#include "support/prefixed.h"

#include "base/sys.h"
#include "pages/region.h"
#include "stores/bigcache.h"
#include "stores/l25.h"
#include "stores/slab.h"
#include "stores/superslab.h"

#define CLASS_1024 (HAK_TINY_CLASSES - 1)

static const char *going;
static enum hak_sys_call at_call;
static unsigned looked;

static bool is_in_the_map(const void *ptr) { return hak_region_lookup(ptr).kind != HAK_KIND_NONE; }

static int expect_no_entry(enum hak_sys_call call, size_t bytes) {
    if (call != at_call || bytes < HAK_GRANULE) return 0;
    must(!is_in_the_map(going));
    looked++;
    return 0;
}

static void watch(hak_sys_fault *hook, enum hak_sys_call call, const void *ptr) {
    going = ptr;
    at_call = call;
    looked = 0;
    assert_true(is_in_the_map(ptr));
    hak_sys_set_fault_for_test(hook);
}

static void end_watch(void) {
    hak_sys_set_fault_for_test(NULL);
    assert_int_not_equal(looked, 0);
}

/* ---- unmap and move --------------------------------------------------------------------------------------------- */

static void a_superslab_has_no_entries_when_it_is_unmapped(void **state) {
    (void)state;
    struct hak_slab_run run = hak_superslab_take(1, false);
    hak_superslab_give(run.superslab, run.first, 1);
    watch(expect_no_entry, HAK_SYS_UNMAP, run.ptr);
    hak_superslab_purge_all();
    end_watch();
}

static void a_chunk_has_no_entries_when_it_is_unmapped(void **state) {
    (void)state;
    void *ptr = hak_l25_alloc(HAK_SLICE_BYTES, 0, 0).ptr;
    assert_int_equal(hak_l25_free(hak_region_lookup(ptr).descriptor, ptr), HAK_FREE_OK);
    watch(expect_no_entry, HAK_SYS_UNMAP, ptr);
    hak_l25_purge_all();
    end_watch();
}

static void a_big_block_has_no_entries_when_it_is_unmapped(void **state) {
    (void)state;
    void *ptr = hak_big_alloc(2 * MIB, 0, 0).ptr;
    assert_int_equal(hak_big_free(hak_region_lookup(ptr).descriptor, ptr), HAK_FREE_OK);
    watch(expect_no_entry, HAK_SYS_UNMAP, ptr);
    hak_big_purge_all();
    end_watch();
}

static void the_tail_of_a_big_block_has_no_entries_when_it_shrinks(void **state) {
    (void)state;
    char *ptr = hak_big_alloc(8 * MIB, 0, 0).ptr;
    watch(expect_no_entry, HAK_SYS_REMAP, ptr + 6 * MIB);
    assert_ptr_equal(hak_big_realloc(hak_region_lookup(ptr).descriptor, ptr, 4 * MIB, 0).ptr, ptr);
    end_watch();
    assert_int_equal(hak_big_free(hak_region_lookup(ptr).descriptor, ptr), HAK_FREE_OK);
}

static unsigned remaps;

/* The first call is the try to grow where it is. */
static int refuse_to_grow_in_place(enum hak_sys_call call, size_t bytes) {
    if (call == HAK_SYS_REMAP && remaps++ == 0) return ENOMEM;
    return expect_no_entry(call, bytes);
}

static void a_big_block_has_no_entries_when_it_moves(void **state) {
    (void)state;
    char *ptr = hak_big_alloc(2 * MIB, 0, 0).ptr;
    watch(refuse_to_grow_in_place, HAK_SYS_REMAP, ptr);
    char *moved = hak_big_realloc(hak_region_lookup(ptr).descriptor, ptr, 9 * MIB, 0).ptr;
    end_watch();
    assert_true(moved != NULL && moved != ptr);
    assert_int_equal(hak_big_free(hak_region_lookup(moved).descriptor, moved), HAK_FREE_OK);
}

/* ---- purge ------------------------------------------------------------------------------------------------------ */

/* What another thread could take just now is something else, and it may. */
static int take_a_slab_meanwhile(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    if (call != HAK_SYS_PURGE) return 0;
    struct hak_slab_run other = hak_superslab_take(1, false);
    must(other.ptr != NULL && other.ptr != going);
    must(hak_superslab_check());
    hak_sys_set_fault_for_test(NULL);
    hak_superslab_give(other.superslab, other.first, 1);
    looked++;
    return 0;
}

static void a_slab_that_is_purged_cannot_be_taken(void **state) {
    (void)state;
    struct hak_slab_run kept = hak_superslab_take(1, false), run = hak_superslab_take(1, false);
    hak_superslab_give(run.superslab, run.first, 1);
    watch(take_a_slab_meanwhile, HAK_SYS_PURGE, run.ptr);
    hak_superslab_purge_all();
    end_watch();
    assert_true(hak_superslab_check());
    hak_superslab_give(kept.superslab, kept.first, 1);
}

static int take_a_run_meanwhile(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    if (call != HAK_SYS_PURGE) return 0;
    char *other = hak_l25_alloc(HAK_SLICE_BYTES, 0, 0).ptr;
    must(other != NULL && other != going);
    must(hak_l25_check());
    hak_sys_set_fault_for_test(NULL);
    must(hak_l25_free(hak_region_lookup(other).descriptor, other) == HAK_FREE_OK);
    looked++;
    return 0;
}

static void a_run_that_is_purged_cannot_be_taken(void **state) {
    (void)state;
    void *kept = hak_l25_alloc(HAK_SLICE_BYTES, 0, 0).ptr, *run = hak_l25_alloc(HAK_SLICE_BYTES, 0, 0).ptr;
    assert_int_equal(hak_l25_free(hak_region_lookup(run).descriptor, run), HAK_FREE_OK);
    watch(take_a_run_meanwhile, HAK_SYS_PURGE, run);
    hak_l25_purge_all();
    end_watch();
    assert_true(hak_l25_check());
    assert_int_equal(hak_l25_free(hak_region_lookup(kept).descriptor, kept), HAK_FREE_OK);
}

static int take_a_block_meanwhile(enum hak_sys_call call, size_t bytes) {
    if (call != HAK_SYS_PURGE || bytes < MIB) return 0;
    char *other = hak_big_alloc(2 * MIB, 0, 0).ptr;
    must(other != NULL && other != going);
    must(hak_big_check());
    must(hak_big_free(hak_region_lookup(going).descriptor, (void *)(uintptr_t)going) == HAK_FREE_DOUBLE);
    hak_sys_set_fault_for_test(NULL);
    must(hak_big_free(hak_region_lookup(other).descriptor, other) == HAK_FREE_OK);
    looked++;
    return 0;
}

static void a_big_block_that_is_purged_cannot_be_taken(void **state) {
    (void)state;
    hak_big_purge_all();
    void *ptr = hak_big_alloc(2 * MIB, 0, 0).ptr;
    hak_sys_set_now_for_test(1000);
    assert_int_equal(hak_big_free(hak_region_lookup(ptr).descriptor, ptr), HAK_FREE_OK);
    watch(take_a_block_meanwhile, HAK_SYS_PURGE, ptr);
    hak_big_decay(1600); /* old enough to be purged, not to be unmapped */
    end_watch();
    hak_sys_set_now_for_test(0);
    assert_true(hak_big_check());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_superslab_has_no_entries_when_it_is_unmapped),
        cmocka_unit_test(a_chunk_has_no_entries_when_it_is_unmapped),
        cmocka_unit_test(a_big_block_has_no_entries_when_it_is_unmapped),
        cmocka_unit_test(the_tail_of_a_big_block_has_no_entries_when_it_shrinks),
        cmocka_unit_test(a_big_block_has_no_entries_when_it_moves),
        cmocka_unit_test(a_slab_that_is_purged_cannot_be_taken),
        cmocka_unit_test(a_run_that_is_purged_cannot_be_taken),
        cmocka_unit_test(a_big_block_that_is_purged_cannot_be_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
