/* fuzz: ops model apply mutate */
/* Operations over the whole public interface, one thread, against the shadow model: overlap, alignment, usable size,
 * content, zeroing, errno, and statistics equal to the model. */
#include "apply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static bool control(struct fuzz_run *run, const struct fuzz_at *at, struct fuzz_op op) {
    return op.kind == FUZZ_FORK && fuzz_fork_and_check(run, at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct fuzz_model *model;
    struct fuzz_input input;
    if (!fuzz_decode(&input, data, bytes)) return 0;
    struct fuzz_run run = {.single = true, .control = control, .model = model};
    fuzz_run_begin(&run, &input);
    model = run.model;
    struct fuzz_at at = {.input = &input};
    for (; at.index < input.count; at.index++) fuzz_apply(&run, &at);
    fuzz_run_end(&run);
    return 0;
}
