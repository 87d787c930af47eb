/* Slabs and superslabs against their model (tests/support/slab_model.h).
 *
 * Four bytes choose the page size, the budgets and the delays; then operations of eight bytes each: slab_model_step(),
 * unit_next(). */
#include "unit.h"

#include "support/slab_model.h"

static struct slab_model model;

static void choose_options(struct fuzz_bytes *in) {
    unit_begin(in);
    set_option(RETAIN_BYTES, FUZZ_CHOOSE(in, 4 * HAK_MIB, 0, HAK_GRANULE, HAK_MIB));
    set_option(RETAIN_PERCENT, FUZZ_CHOOSE(in, 12, 0, 100));
    const uint8_t delays = fuzz_byte(in);
    set_option(PURGE_DELAY_MS, delays & 1 ? 0 : 500);
    set_option(UNMAP_DELAY_MS, delays & 2 ? 0 : 5000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fuzz_bytes in = {.at = data, .end = data + bytes};
    uint64_t op;
    choose_options(&in);
    slab_model_start(&model, UNIT_BEGIN_MS);
    for (unsigned i = 0; i < FUZZ_UNIT_OPS && unit_next(&in, &op); i++) slab_model_step(&model, op);
    unit_calm();
    slab_model_end(&model);
    unit_end();
    return 0;
}
