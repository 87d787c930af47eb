/* The depot of stacks, of builds for AddressSanitizer: each stack has a number of its own, and keeps it. */
#include "support/prefixed.h"

#include "api/trace.h"
#include "base/log.h"

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

/* A block whose stacks found no room is told of all the same, and no other in its place. */
static void free_twice_when_the_depot_is_full(void *argument) {
    const unsigned depth = 18; /* as many ways as there is room for */
    (void)argument;
    hak_free(hak_malloc(100));
    uint32_t last = 0;
    for (unsigned way = 0; way < 1U << depth; way++) {
        uint32_t number = number_by(way, depth);
        must(number != last || way > STACKS);
        last = number;
    }
    must(last == number_by(0, 7)); /* neither has one of its own */
    char *blocks[3];
    for (unsigned i = 0; i < 3; i++) must((blocks[i] = hak_malloc(100)) != NULL);
    dprintf(2, "%p\n", (void *)blocks[1]);
    hak_free(blocks[1]);
    hak_free(blocks[1]);
}

static void a_full_depot_is_said_to_be_one(void **state) {
    (void)state;
    struct ended ended = run_heard(free_twice_when_the_depot_is_full, NULL);
    char expected[1024];
    const char *block = strtok(ended.text, "\n"), *rest = strtok(NULL, "");
    assert_non_null(rest);
    const char *kept = "    (not kept: there is no room for more stacks)";
    snprintf(expected, sizeof expected,
             "hakmem[%d unit_trace]: free(%s): double free\n"
             "found here:\n%s\n"
             "hakmem[%d unit_trace]: %s is 0 bytes inside a freed block of 100 bytes at %s\n"
             "freed here:\n%s\n"
             "previously allocated here:\n%s\n",
             (int)ended.pid, block, kept, (int)ended.pid, block, block, kept, kept);
    assert_string_equal(rest, expected);
    assert_true(WIFSIGNALED(ended.status) && WTERMSIG(ended.status) == SIGABRT);
}

/* In memory that no block ever lay in, the nearest one before it is named, if it is no further than that. */
static void tell_of_what_lies_behind(void *blocks) {
    char *block = hak_malloc(100);
    size_t distance = *(unsigned *)blocks * (size_t)128;
    must(((uintptr_t)block & (HAK_GRANULE - 1)) == 0); /* the first of a slab, and the only one */
    hak_misuse_explain(block + distance);
}

static void a_block_is_looked_for_so_far_and_no_further(void **state) {
    (void)state;
    unsigned near = 64, far = 65;
    struct ended ended = run_heard(tell_of_what_lies_behind, &near);
    assert_non_null(strstr(ended.text, " is 8092 bytes after a block of 100 bytes at "));
    assert_int_equal(ended.status, 0);
    ended = run_heard(tell_of_what_lies_behind, &far);
    assert_non_null(strstr(ended.text, "found here:\n"));
    assert_null(strstr(ended.text, " bytes after "));
    assert_int_equal(ended.status, 0);
}

/* A function with a name of 1,024 letters. */
#define JOIN_AS_THEY_ARE(a, b) a##b
#define JOIN(a, b) JOIN_AS_THEY_ARE(a, b)
#define FOUR(a) JOIN(JOIN(a, a), JOIN(a, a))
static __attribute__((noinline)) uint32_t FOUR(FOUR(FOUR(sixteen_letters_)))(void) {
    uint32_t number = hak_trace_here();
    __asm__ volatile("" : "+r"(number));
    return number;
}

static void print_a_long_name(void *argument) {
    (void)argument;
    hak_trace_print(FOUR(FOUR(FOUR(sixteen_letters_)))());
}

static void a_frame_with_a_long_name_is_one_line(void **state) {
    (void)state;
    struct ended ended = run_heard(print_a_long_name, NULL);
    const size_t first = strcspn(ended.text, "\n");
    assert_memory_equal(ended.text, "    #0 ", 7);
    assert_in_range(first, 400, HAK_TEXT_BYTES);
    assert_memory_equal(ended.text + first, "\n    #1 ", 8);
    assert_non_null(strstr(ended.text, " in sixteen_letters_sixteen_letters_"));
    assert_int_equal(ended.status, 0);
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
#if HAK_TRACE
        cmocka_unit_test(each_stack_has_a_number_and_keeps_it),
        cmocka_unit_test(a_deep_stack_is_cut),
        cmocka_unit_test(no_stack_is_printed_for_a_number_that_is_none),
        cmocka_unit_test(a_full_depot_is_said_to_be_one),
        cmocka_unit_test(a_frame_with_a_long_name_is_one_line),
        cmocka_unit_test(a_block_is_looked_for_so_far_and_no_further),
#endif
        {.name = NULL},
    };
    return _cmocka_run_group_tests("stacks", tests, COUNT(tests) - 1, NULL, NULL);
}
