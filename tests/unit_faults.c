/* Every call to the system may fail. For n = 1, 2, 3 ... until there is no n-th call, a fresh process runs a scenario
 * in which the n-th call fails, or all from the n-th on. Each request is met or refused with ENOMEM; the structures
 * hold; the same scenario then succeeds in full, and nothing is left mapped. */
#include "support/scenario.h"

#include <sys/mman.h>

enum { ANY_CALL = -1 };

static struct plan {
    int kind;       /* enum hak_sys_call, or ANY_CALL */
    unsigned first; /* counted from 1 */
    bool lasts;
} plan;
static _Atomic unsigned calls;

static bool is_due(enum hak_sys_call call) {
    if (plan.kind != ANY_CALL && plan.kind != (int)call) return false;
    unsigned n = atomic_fetch_add(&calls, 1) + 1;
    return n == plan.first || (plan.lasts && n > plan.first);
}

/* What a child found; shared with it. */
static struct report {
    unsigned calls, refused;
    uint64_t unaccounted_bytes; /* mapped, but neither in use nor known as refused by munmap */
    uint64_t lost_bytes; /* targets of refused moves: the kernel may have unmapped them, so nobody may touch them */
} * report;

static int fail_when_due(enum hak_sys_call call, size_t bytes) {
    if (!is_due(call)) return 0;
    if (call == HAK_SYS_REMAP) report->lost_bytes += bytes;
    return ENOMEM;
}

static uint64_t address_space_bytes(void) {
    char text[64] = "";
    int fd = open("/proc/self/statm", O_RDONLY);
    must(read(fd, text, sizeof text - 1) > 0);
    close(fd);
    return strtoul(text, NULL, 10) * 4096;
}

static void run_plan(void *argument) {
    static struct scenario scenario;
    (void)argument;
    uint64_t before = address_space_bytes();
    hak_sys_set_fault_for_test(fail_when_due);
    scenario_run(&scenario);
    hak_sys_set_fault_for_test(NULL);
    report->calls = atomic_load(&calls);
    report->refused = scenario.refused;
    scenario_check();

    scenario_run(&scenario);
    must(scenario.refused == 0);
    scenario_nothing_left(&scenario);
    struct hak_pages_stats pages = hak_pages_stats();
    report->unaccounted_bytes = address_space_bytes() - before - pages.mapped_bytes - pages.retained_bytes -
                                hak_meta_mapped_bytes();
}

static struct report run(int kind, unsigned first, bool lasts) {
    plan = (struct plan){.kind = kind, .first = first, .lasts = lasts};
    atomic_store(&calls, 0);
    *report = (struct report){.calls = 0};
    int status = run_forked(run_plan, NULL);
    if (status != 0) fail_msg("kind %d, call %u, lasts %d: wait status 0x%x", kind, first, lasts, (unsigned)status);
    return *report;
}

/* The sanitizers map and unmap for themselves. */
#define EXACT_ADDRESS_SPACE (!HAK_ASAN && !HAK_TSAN && !HAK_MSAN)

static uint64_t usual_bytes; /* stacks and the like, where nothing fails */

/* Tries each n; returns how many there were, and in `*refused` how many of the runs refused a request. */
static unsigned try_each(int kind, bool lasts, unsigned step, unsigned *refused) {
    *refused = 0;
    for (unsigned n = 1;; n += step) {
        struct report found = run(kind, n, lasts);
        if (found.calls < n) return n - 1;
        *refused += found.refused != 0;
        /* Where munmap and the note about it fail together, address space may be lost; memory is not. */
        if (EXACT_ADDRESS_SPACE && !lasts && found.unaccounted_bytes > usual_bytes + found.lost_bytes + 16 * KIB)
            fail_msg("call %u: %lu bytes leaked", n, (unsigned long)(found.unaccounted_bytes - usual_bytes));
    }
}

static void without_faults_nothing_is_refused(void **state) {
    (void)state;
    struct report found = run(ANY_CALL, 0, false);
    assert_true(found.calls > 30); /* the scenario is worth its name */
    assert_int_equal(found.refused, 0);
    usual_bytes = found.unaccounted_bytes;
}

static unsigned step(void) { return getenv("HAK_SOAK") != NULL || EXACT_ADDRESS_SPACE ? 1 : 3; }

static void each_single_call_may_fail(void **state) {
    unsigned refused;
    (void)state;
    assert_true(try_each(ANY_CALL, false, step(), &refused) > 30);
}

static void all_calls_from_one_on_may_fail(void **state) {
    unsigned refused;
    (void)state;
    assert_true(try_each(ANY_CALL, true, step(), &refused) > 30);
    assert_true(refused > 10);
}

static void a_system_without_memory_refuses_but_nothing_breaks(void **state) {
    unsigned refused;
    (void)state;
    unsigned n = try_each(HAK_SYS_MAP, true, step(), &refused);
    assert_true(n > 20 && refused > 0);
}

static void munmap_may_fail(void **state) {
    unsigned refused;
    (void)state;
    assert_true(try_each(HAK_SYS_UNMAP, true, step(), &refused) > 5);
    assert_int_equal(refused, 0); /* what cannot be given back is no reason to refuse */
}

static void purges_remaps_and_the_rest_may_fail(void **state) {
    unsigned refused;
    (void)state;
    static const enum hak_sys_call advice[] = {HAK_SYS_PURGE, HAK_SYS_REMAP, HAK_SYS_WIPE, HAK_SYS_PROTECT,
                                               HAK_SYS_HUGE};
    for (size_t i = 0; i < COUNT(advice); i++) {
        try_each((int)advice[i], true, step(), &refused);
        assert_int_equal(refused, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_faults_nothing_is_refused),
        cmocka_unit_test(each_single_call_may_fail),
        cmocka_unit_test(all_calls_from_one_on_may_fail),
        cmocka_unit_test(a_system_without_memory_refuses_but_nothing_breaks),
        cmocka_unit_test(munmap_may_fail),
        cmocka_unit_test(purges_remaps_and_the_rest_may_fail),
    };
    report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(report != MAP_FAILED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
