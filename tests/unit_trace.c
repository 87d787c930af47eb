/* The depot of stacks, of builds for AddressSanitizer: each stack has a number of its own, and keeps it. */
#include "support/prefixed.h"

#include "api/trace.h"

#if HAK_TRACE

#define DEPTH 15
#define STACKS (1U << DEPTH)

/* Comes to hak_trace_here() by one of two calls per level: `way` has a bit for each. */
static __attribute__((noinline)) uint32_t number_by(unsigned way, unsigned depth) {
    uint32_t number;
    if (depth == 0) {
        number = hak_trace_here();
    } else if ((way & 1) != 0) {
        __asm__ volatile("nop" : "+r"(way)); /* so that the two calls stay two, */
        number = number_by(way >> 1, depth - 1);
        __asm__ volatile("nop" : "+r"(number));
    } else {
        number = number_by(way >> 1, depth - 1);
    }
    __asm__ volatile("" : "+r"(number)); /* and are no jumps */
    return number;
}

static uint32_t numbers[STACKS];

/* More stacks than the table has buckets. */
static void each_stack_has_a_number_and_keeps_it(void **state) {
    (void)state;
    static bool taken[4 * STACKS];
    for (unsigned i = 0; i < 2 * STACKS; i++) { /* all from one place: that belongs to the stack */
        unsigned way = i % STACKS;
        uint32_t number = number_by(way, DEPTH);
        if (i < STACKS) {
            assert_true(hak_trace_is_known(number) && number != 0 && number < COUNT(taken));
            assert_false(taken[number]);
            taken[number] = true;
            numbers[way] = number;
        }
        assert_int_equal(number, numbers[way]);
    }
}

/* Of a deep stack the innermost calls count. */
static void a_deep_stack_is_cut(void **state) {
    (void)state;
    uint32_t number = number_by(0, 40);
    assert_int_equal(number_by(0, 40), number);
    assert_int_equal(number_by(1, 40), number); /* they differ further out */
    assert_int_not_equal(number_by(1, 3), number_by(0, 3));
}

static void print_unknown(void *argument) {
    (void)argument;
    hak_trace_print(0);
    hak_trace_print(UINT32_MAX);
    hak_trace_print(STACKS * 7);
}

static void no_stack_is_printed_for_a_number_that_is_none(void **state) {
    (void)state;
    assert_false(hak_trace_is_known(UINT32_MAX) || hak_trace_is_known(STACKS * 7));
    struct ended ended = run_heard(print_unknown, NULL);
    assert_string_equal(ended.text, "");
    assert_int_equal(ended.status, 0);
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
#if HAK_TRACE
        cmocka_unit_test(each_stack_has_a_number_and_keeps_it),
        cmocka_unit_test(a_deep_stack_is_cut),
        cmocka_unit_test(no_stack_is_printed_for_a_number_that_is_none),
#endif
        {.name = NULL},
    };
    return _cmocka_run_group_tests("stacks", tests, COUNT(tests) - 1, NULL, NULL);
}
