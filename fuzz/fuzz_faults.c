/* fuzz: ops model apply mutate */
/* As fuzz_api, on a system that fails: FAULT operations say which calls are refused from then on, and how many. A
 * request is met or refused with ENOMEM, nothing else changes by a refusal, and when the system has recovered the same
 * request is met.
 *
 * FAULT: the slot's bits choose the calls, the size code how:
 *   slot       bits 0-5: map, unmap, purge, protect, remap, wipe; none: the system recovers
 *   size code  bits 0-5: calls that still succeed; bits 6-9: calls that then fail, 0: all; bits 10-15: only calls for
 *              at least (2^n - 1) granules; with slot bit 6 instead a limit of address space: as many granules as bits
 *              0-15 say may be mapped from then on */
#include "apply.h"

#include "base/sys.h"
#include "hakmem.h"

#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define LIMIT_BIT 0x40

/* What the system refuses. One thread, so plain words will do. */
static struct weather {
    uint8_t calls; /* bits, by enum hak_sys_call */
    unsigned good, bad;
    bool lasts;
    size_t from_bytes;
    bool limited;
    size_t left_bytes;
} weather;

/* The checked build gives up the address space of a block whose guard page cannot be made accessible again. */
static bool guard_stuck;

static bool over_limit(enum hak_sys_call call, size_t bytes) {
    if (!weather.limited || (call != HAK_SYS_MAP && call != HAK_SYS_REMAP)) return false;
    if (bytes > weather.left_bytes) return true;
    weather.left_bytes -= bytes;
    return false;
}

static bool is_bad(enum hak_sys_call call, size_t bytes) {
    if (over_limit(call, bytes)) return true;
    if ((weather.calls >> call & 1) == 0 || bytes < weather.from_bytes) return false;
    if (weather.good > 0) {
        weather.good--;
        return false;
    }
    if (weather.lasts) return true;
    if (weather.bad == 0) return false;
    weather.bad--;
    return true;
}

static int fail(enum hak_sys_call call, size_t bytes) {
    bool bad = is_bad(call, bytes);
    if (bad && call == HAK_SYS_PROTECT) guard_stuck = true;
    return bad ? ENOMEM : 0;
}

static bool change_weather(struct fuzz_op op) {
    weather = (struct weather){.calls = op.slot & 63,
                               .good = op.size & 63,
                               .bad = op.size >> 6 & 15,
                               .lasts = (op.size >> 6 & 15) == 0,
                               .from_bytes = (((size_t)1 << (op.size >> 10) % 12) - 1) * HAK_GRANULE,
                               .limited = (op.slot & LIMIT_BIT) != 0,
                               .left_bytes = op.size * HAK_GRANULE};
    if (weather.limited) weather.calls = 0;
    return true;
}

static bool control(struct fuzz_run *run, const struct fuzz_at *at, struct fuzz_op op) {
    if (op.kind == FUZZ_FORK) return fuzz_fork_and_check(run, at);
    return op.kind == FUZZ_FAULT && change_weather(op);
}

/* After the faults, what was refused is met. */
static void try_again(struct fuzz_run *run) {
    struct fuzz_at at = {.input = run->input, .index = run->input->count};
    weather = (struct weather){.calls = 0};
    hak_sys_set_fault_for_test(NULL);
    fuzz_free_all(run, &at);
    fuzz_profile_reset();
    size_t bytes = run->refused_bytes;
    if (run->refused == 0) return;
    void *ptr = hak_malloc(bytes);
    if (ptr == NULL) fuzz_fail(&at, "%zu bytes were refused and still are, though the system has recovered", bytes);
    hak_free(ptr);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct fuzz_model *model;
    struct fuzz_input input;
    if (!fuzz_decode(&input, data, bytes)) return 0;
    struct fuzz_run run = {.single = true, .may_fail = true, .control = control, .model = model};
    fuzz_run_begin(&run, &input);
    model = run.model;
    guard_stuck = false;
    hak_sys_set_fault_for_test(fail);
    struct fuzz_at at = {.input = &input};
    for (; at.index < input.count; at.index++) fuzz_apply(&run, &at);
    try_again(&run);
    run.may_lose = HAK_CHECKED && guard_stuck;
    fuzz_run_end(&run);
    return 0;
}
