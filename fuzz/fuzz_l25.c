/* The L2.5 pool against its model (tests/support/l25_model.h).
 *
 * Eight bytes choose the page size, the shards and what makes them more, the budgets and the delays; then operations of
 * eight bytes each: l25_model_step(), unit_next(). */
#include "unit.h"

#include "support/l25_model.h"

static struct l25_model model;

static void choose_options(struct fuzz_bytes *in) {
    unit_begin(in);
    set_option(L25_SHARDS_MIN, FUZZ_CHOOSE(in, 64, 1, 2, 128, 512));
    set_option(L25_SHARDS_MAX, FUZZ_CHOOSE(in, 1024, 512, 1));
    set_option(L25_LOAD, FUZZ_CHOOSE(in, 1000, 1, 5));
    set_option(L25_CHECK_MS, FUZZ_CHOOSE(in, 1000, 1));
    set_option(RETAIN_BYTES, FUZZ_CHOOSE(in, 4, 0, 1, 64) * HAK_MIB);
    set_option(RETAIN_PERCENT, FUZZ_CHOOSE(in, 12, 0, 100));
    const uint8_t delays = fuzz_byte(in);
    set_option(PURGE_DELAY_MS, delays & 1 ? 0 : 500);
    set_option(UNMAP_DELAY_MS, delays & 2 ? 0 : 5000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fuzz_bytes in = {.at = data, .end = data + bytes};
    uint64_t op;
    choose_options(&in);
    l25_model_start(&model, UNIT_BEGIN_MS);
    for (unsigned i = 0; i < FUZZ_UNIT_OPS && unit_next(&in, &op); i++) l25_model_step(&model, op);
    unit_calm();
    l25_model_end(&model);
    unit_end();
    return 0;
}
