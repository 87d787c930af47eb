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
#include "pages/meta.h"
#include "pages/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

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

/* Which calls have failed in this input, as bits. */
static unsigned failed;

/* The checked build gives up the address space of a block whose guard page cannot be made accessible again. */
static bool guard_stuck(void) { return HAK_CHECKED && (failed >> HAK_SYS_PROTECT & 1) != 0; }

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
    if (bad) failed |= 1U << call;
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

/* ---- address space ----------------------------------------------------------------------------------------------- */

/* The tools map and unmap for themselves. */
#define EXACT_ADDRESS_SPACE (!HAK_ASAN && !HAK_TSAN && !HAK_MSAN && !HAK_VALGRIND)
#define OTHERS_BYTES ((int64_t)1 << 20) /* of the C library */

/* What the process has mapped, and hakmem does not know of. */
static int64_t unaccounted_bytes(void) {
    char text[64] = "";
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (n <= 0) return 0;
    struct hak_pages_stats pages = hak_pages_stats();
    return (int64_t)strtoll(text, NULL, 10) * (int64_t)hak_sys_page_bytes() -
           (int64_t)(pages.mapped_bytes + pages.retained_bytes + hak_meta_mapped_bytes());
}

/* What munmap refuses is remembered, unless there is no memory for that; a refused move loses its target. */
static void check_address_space(const struct fuzz_run *run, int64_t before) {
    unsigned may_lose = 1U << HAK_SYS_MAP | 1U << HAK_SYS_REMAP | (HAK_CHECKED ? 1U << HAK_SYS_PROTECT : 0);
    if (!EXACT_ADDRESS_SPACE || (failed & may_lose) != 0) return;
    int64_t lost = unaccounted_bytes() - before;
    if (lost > OTHERS_BYTES)
        fuzz_fail(&(struct fuzz_at){.input = run->input, .index = run->input->count},
                  "%lld bytes of address space are lost", (long long)lost);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct fuzz_model *model;
    struct fuzz_input input;
    if (!fuzz_decode(&input, data, bytes)) return 0;
    struct fuzz_run run = {.single = true, .may_fail = true, .control = control, .model = model};
    fuzz_run_begin(&run, &input);
    model = run.model;
    failed = 0;
    int64_t before = unaccounted_bytes();
    hak_sys_set_fault_for_test(fail);
    struct fuzz_at at = {.input = &input};
    for (; at.index < input.count; at.index++) fuzz_apply(&run, &at);
    try_again(&run);
    run.may_lose = guard_stuck();
    fuzz_run_end(&run);
    check_address_space(&run, before);
    return 0;
}
