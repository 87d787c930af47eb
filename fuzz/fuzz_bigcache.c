/* BigCache against its model (tests/support/bigcache_model.h), which says of each request which cached mapping must
 * serve it, and of each free what is evicted and purged.
 *
 * Seven bytes choose the page size, the budgets, the length of chains and the delays; then operations of eight bytes
 * each: big_model_step(), unit_next(). */
#include "unit.h"

#include "support/bigcache_model.h"

static struct big_model model;

static void choose_options(struct fuzz_bytes *in) {
    unit_begin(in);
    set_option(BIGCACHE_MAPPED, FUZZ_CHOOSE(in, 1024, 8192, 48, 8, 1, 0) * HAK_MIB);
    set_option(BIGCACHE_RESIDENT, FUZZ_CHOOSE(in, 32, 64, 4, 1, 0) * HAK_MIB);
    set_option(BIGCACHE_BLOCK_MAX, FUZZ_CHOOSE(in, 64, 5, 1) * HAK_MIB);
    set_option(BIGCACHE_CHAIN_MAX, FUZZ_CHOOSE(in, 0, 1, 2, 5));
    unit_faults = hak_option(BIGCACHE_CHAIN_MAX) == 0 ? 0xff : 1 << HAK_SYS_MAP | 1 << HAK_SYS_UNMAP;
    set_option(BIGCACHE_DECAY_MS, FUZZ_CHOOSE(in, 1000, 0, 100, 900000));
    set_option(PURGE_DELAY_MS, FUZZ_CHOOSE(in, 500, 0, 50, 900000));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fuzz_bytes in = {.at = data, .end = data + bytes};
    uint64_t op;
    choose_options(&in);
    big_model_start(&model, UNIT_BEGIN_MS);
    for (unsigned i = 0; i < FUZZ_UNIT_OPS && unit_next(&in, &op); i++) big_model_step(&model, op);
    unit_calm();
    big_model_end(&model);
    unit_end();
    return 0;
}
