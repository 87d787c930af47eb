/* What the memory tools say of a user's mistake on a hakmem block. The program runs itself again with the name of the
 * mistake, under the same tool, and reads the report: kind of mistake, and that it says nothing where there is none. */
#include "support/prefixed.h"

#include <sys/mman.h>

/* ---- the mistakes ------------------------------------------------------------------------------------------- */

/* volatile: no compiler may know better than the tool at run time. */
static volatile unsigned char sink;
static unsigned char *volatile shared;

static unsigned char *block_of(size_t bytes) {
    unsigned char *ptr = hidden(hak_malloc(bytes));
    must(ptr != NULL);
    memset(ptr, 1, bytes);
    return ptr;
}

static void write_past_the_end(size_t bytes) { ((volatile unsigned char *)block_of(bytes))[bytes] = 1; }

/* Into a block of the same slab that was never served. */
static void write_far_past_the_end(size_t bytes) { ((volatile unsigned char *)block_of(bytes))[2 * bytes + 40] = 1; }

static void write_past_the_end_of_a_recycled_block(size_t bytes) {
    hak_free(block_of(bytes + bytes / 16)); /* of the same class, but longer */
    write_past_the_end(bytes);
}

static void read_before_the_start(size_t bytes) {
    unsigned char *first = block_of(bytes), *second = block_of(bytes);
    sink = (first < second ? second : first)[-1];
}

static void read_after_free(size_t bytes) {
    unsigned char *ptr = block_of(bytes);
    hak_free(ptr);
    sink = *(volatile unsigned char *)ptr;
}

/* The quarantine keeps the block from its next owner. */
static void read_long_after_free(size_t bytes) {
    unsigned char *ptr = block_of(bytes);
    hak_free(ptr);
    for (int i = 0; i < 3; i++) {
        unsigned char *other = block_of(bytes);
        must(other != ptr);
        hak_free(other);
    }
    sink = *(volatile unsigned char *)ptr;
}

static void write_after_free(size_t bytes) {
    unsigned char *ptr = block_of(bytes);
    hak_free(ptr);
    *(volatile unsigned char *)(ptr + bytes / 2) = 1;
}

static void read_after_realloc(size_t bytes) {
    unsigned char *ptr = block_of(bytes), *moved = hidden(hak_realloc(ptr, 2 * bytes));
    must(moved != NULL && moved != ptr);
    sink = *(volatile unsigned char *)ptr;
}

static void decide_on(const unsigned char *ptr) {
    if (*(const volatile unsigned char *)ptr == 17) sink = 1;
}

static void read_a_fresh_block(size_t bytes) { decide_on(hidden(hak_malloc(bytes))); }

static void read_a_recycled_block(size_t bytes) {
    hak_free(block_of(bytes));
    read_a_fresh_block(bytes);
}

/* Zero once, and given back to the system meanwhile: that does not make it zero for the next owner. */
static void read_what_calloc_had(size_t bytes) {
    unsigned char *ptr = hidden(hak_calloc(1, bytes));
    must(ptr != NULL);
    hak_free(ptr);
    hak_purge();
    read_a_fresh_block(bytes);
}

static void decide_after_free(size_t bytes) {
    unsigned char *ptr = block_of(bytes);
    hak_free(ptr);
    decide_on(ptr + bytes / 2);
}

static void read_what_realloc_added_to_calloc(size_t bytes) {
    unsigned char *ptr = hidden(hak_realloc(hidden(hak_calloc(1, bytes)), 2 * bytes));
    must(ptr != NULL);
    decide_on(ptr + bytes - 1); /* this one is defined */
    decide_on(ptr + bytes);
}

static void read_what_realloc_added(size_t bytes) {
    unsigned char *ptr = hidden(hak_realloc(block_of(bytes), 2 * bytes));
    must(ptr != NULL);
    decide_on(ptr + bytes - 1); /* this one is defined */
    decide_on(ptr + 2 * bytes - 1);
}

static void *increment(void *argument) {
    for (int i = 0; i < 1000; i++) shared[(size_t)argument] ^= 1;
    return NULL;
}

static void race(size_t bytes) {
    pthread_t a, b;
    shared = block_of(bytes);
    start_thread(&a, increment, (void *)(bytes / 2));
    start_thread(&b, increment, (void *)(bytes / 2));
    pthread_join(a, NULL);
    pthread_join(b, NULL);
}

static _Atomic int freed;

static void *use_then_say(void *argument) {
    increment(argument);
    atomic_store_explicit(&freed, 1, memory_order_relaxed);
    return NULL;
}

static void race_with_free(size_t bytes) {
    pthread_t user;
    shared = block_of(bytes);
    start_thread(&user, use_then_say, (void *)0);
    while (atomic_load_explicit(&freed, memory_order_relaxed) == 0) usleep(100); /* late enough, but not ordered */
    shared[0] = 9;
    hak_free(shared);
    pthread_join(user, NULL);
}

/* One block is lost, of several that are alike, and of which some have been freed and served again. */
static void lose_blocks(size_t bytes) {
    enum { BLOCKS = 8 };
    static unsigned char *kept[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) kept[i] = block_of(bytes);
    for (int i = 1; i < BLOCKS; i += 2) hak_free(kept[i]);
    for (int i = 1; i < BLOCKS; i += 2) kept[i] = block_of(bytes);
    kept[bytes % 2] = NULL; /* at even sizes the first: at the start of its slab, chunk or mapping */
    shared = kept[2];
}

/* Two blocks that only they themselves point to. */
static void lose_a_ring(size_t bytes) {
    void **a = hidden(hak_malloc(bytes)), **b = hidden(hak_malloc(bytes));
    must(a != NULL && b != NULL);
    a[0] = b;
    b[0] = a;
}

static void *free_it(void *argument) {
    hak_free(argument);
    return NULL;
}

/* Blocks go from thread to thread through free and malloc, with no other order between their users: that is allowed. */
static void hand_over(size_t bytes) {
    enum { ROUNDS = 50 };
    for (int i = 0; i < ROUNDS; i++) {
        pthread_t a, b;
        start_thread(&a, free_it, block_of(bytes));
        start_thread(&b, free_it, block_of(bytes));
        hak_free(block_of(bytes));
        pthread_join(a, NULL);
        pthread_join(b, NULL);
    }
}

static void free_twice(size_t bytes) {
    unsigned char *ptr = block_of(bytes);
    hak_free(ptr);
    hak_free(ptr);
    hak_thread_flush();
}

/* A misaligned pointer may wait for the flush in the builds that keep no record of each block. */
static void free_inside(size_t bytes) {
    hak_free(block_of(bytes) + bytes / 2);
    hak_thread_flush();
}

/* The system gives others the addresses that hakmem gave back. */
static void others_use_what_was_given_back(void) {
    enum { MAPPINGS = 32 };
    unsigned char *foreign[MAPPINGS];
    for (int i = 0; i < MAPPINGS; i++) {
        foreign[i] = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(foreign[i] != MAP_FAILED);
        for (size_t at = 0; at < MIB; at += 64) decide_on(foreign[i] + at);
        memset(foreign[i], 2, MIB);
    }
    for (int i = 0; i < MAPPINGS; i++) munmap(foreign[i], MIB);
}

/* Everything that is allowed, in the ways of the mistakes above. */
static void no_mistake(size_t bytes) {
    unsigned char *ptr = block_of(bytes), *other = block_of(bytes);
    sink = ptr[bytes - 1];
    ptr = hidden(hak_realloc(ptr, 2 * bytes));
    must(ptr != NULL);
    decide_on(ptr + bytes - 1);
    hak_free(ptr);
    hak_purge();
    ptr = hidden(hak_calloc(1, bytes));
    must(ptr != NULL);
    for (size_t i = 0; i < bytes; i++) decide_on(ptr + i);
    hak_free(other);
    hak_free(ptr);
    hak_purge();
    others_use_what_was_given_back();
    for (int i = 0; i < 2; i++) {
        shared = block_of(bytes);
        run_thread(increment, (void *)0);
        hak_free(shared);
    }
}

static const struct mistake {
    const char *name;
    void (*make)(size_t bytes);
} mistakes[] = {
#define MISTAKE(function)                                                                                              \
    { #function, function }
    MISTAKE(write_past_the_end),
    MISTAKE(write_far_past_the_end),
    MISTAKE(write_past_the_end_of_a_recycled_block),
    MISTAKE(read_before_the_start),
    MISTAKE(read_after_free),
    MISTAKE(write_after_free),
    MISTAKE(read_after_realloc),
    MISTAKE(read_long_after_free),
    MISTAKE(read_a_fresh_block),
    MISTAKE(read_a_recycled_block),
    MISTAKE(read_what_calloc_had),
    MISTAKE(decide_after_free),
    MISTAKE(read_what_realloc_added),
    MISTAKE(read_what_realloc_added_to_calloc),
    MISTAKE(race),
    MISTAKE(race_with_free),
    MISTAKE(hand_over),
    MISTAKE(lose_blocks),
    MISTAKE(lose_a_ring),
    MISTAKE(free_twice),
    MISTAKE(free_inside),
    MISTAKE(no_mistake),
};

static int make(const char *name, size_t bytes) {
    alarm(HANG_SECONDS);
    for (size_t i = 0; i < COUNT(mistakes); i++)
        if (strcmp(mistakes[i].name, name) == 0) {
            mistakes[i].make(bytes);
            return 0;
        }
    return 2;
}

/* ---- the reports -------------------------------------------------------------------------------------------- */

static char program[4096];

/* Names of functions cost the tools most of their time. */
static bool names_wanted;

static void add_option(const char *variable, const char *option) {
    char options[1024];
    const char *given = getenv(variable);
    snprintf(options, sizeof options, "%s:%s", given == NULL ? "" : given, option);
    setenv(variable, options, 1);
}

static void run_again(const char *name, const char *bytes) {
    if (HAK_ASAN || HAK_VALGRIND) setenv("HAKMEM_QUARANTINE", "16M", 1);
    if (HAK_ASAN && !names_wanted) add_option("ASAN_OPTIONS", "symbolize=0");
    if (HAK_TSAN && !names_wanted) add_option("TSAN_OPTIONS", "symbolize=0");
    if (HAK_MSAN) add_option("MSAN_OPTIONS", names_wanted ? "poison_in_malloc=1" : "symbolize=0");
    if (HAK_VALGRIND)
        execlp("valgrind", "valgrind", "-q", "--error-exitcode=99", "--leak-check=full",
               "--errors-for-leak-kinds=definite", program, name, bytes, (char *)NULL);
    else execl(program, program, name, bytes, (char *)NULL);
    _exit(127);
}

struct run {
    const char *name;
    size_t bytes;
};

static void run_again_with(void *argument) {
    const struct run *run = argument;
    char number[24];
    snprintf(number, sizeof number, "%zu", run->bytes);
    run_again(run->name, number);
}

static struct ended run_mistake(const char *name, size_t bytes) {
    return run_heard(run_again_with, &(struct run){name, bytes});
}

/* The run fails, and its report has all the words. */
static void is_reported_so(const char *name, size_t bytes, const char *const *words) {
    struct ended ended = run_mistake(name, bytes);
    for (; *words != NULL; words++)
        if (ended.status == 0 || strstr(ended.text, *words) == NULL)
            fail_msg("%s of %zu bytes: wait status 0x%x, report without \"%s\":\n%s", name, bytes,
                     (unsigned)ended.status, *words, ended.text);
}

static void at_each_size_so(const char *name, const char *const *words) {
    static const size_t sizes[] = {24, 1000, 5000, 40 * KIB, 100001, 3 * MIB};
    for (size_t i = 0; i < COUNT(sizes); i += HAK_VALGRIND ? 4 : 1) is_reported_so(name, sizes[i], words);
}

#define is_reported(name, bytes, ...) is_reported_so(name, bytes, (const char *const[]){__VA_ARGS__, NULL})
#define at_each_size(name, ...) at_each_size_so(name, (const char *const[]){__VA_ARGS__, NULL})

/* Leaves a test that asks for another tool. (cmocka's skip() prints "not ok".) */
#define need(tool)                                                                                                     \
    do {                                                                                                               \
        (void)state;                                                                                                   \
        if (!(tool)) {                                                                                                 \
            print_message("# %s does not apply: it needs %s\n", __func__, #tool);                                      \
            return;                                                                                                    \
        }                                                                                                              \
    } while (0)

static void a_correct_program_is_not_reported(void **state) {
    (void)state;
    static const size_t sizes[] = {24, 1000, 5000, 40 * KIB, 100001, 3 * MIB};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct ended ended = run_mistake("no_mistake", sizes[i]);
        assert_string_equal(ended.text, "");
        assert_int_equal(ended.status, 0);
    }
}

static void misuse_of_free_ends_every_build_with_its_line(void **state) {
    (void)state;
    at_each_size("free_twice", "): double free");
    at_each_size("free_inside", "): invalid pointer: not the start of a block");
}

static void asan_reports_accesses_outside_a_block(void **state) {
    need(HAK_ASAN);
    const char *kind = "AddressSanitizer: heap-buffer-overflow on address";
    for (size_t bytes = 1; bytes <= 33; bytes++) is_reported("write_past_the_end", bytes, kind, "WRITE of size 1 at");
    at_each_size("write_past_the_end", kind, " is 0 bytes after a block of ");
    at_each_size("write_past_the_end_of_a_recycled_block", kind);
    is_reported("write_far_past_the_end", 24, kind, " bytes after a block of 24 bytes");
    is_reported("write_far_past_the_end", 1000, kind);
    is_reported("write_far_past_the_end", 5000, kind);
    is_reported("read_before_the_start", 24, kind, " is 1 bytes before a block of 24 bytes");
    is_reported("read_before_the_start", 5000, kind, " is 1 bytes before a block of 5000 bytes");
}

static void asan_reports_accesses_after_free(void **state) {
    need(HAK_ASAN);
    const char *kind = "AddressSanitizer: heap-use-after-free on address";
    at_each_size("read_after_free", kind, " is 0 bytes inside a freed block of ");
    at_each_size("read_long_after_free", kind);
    at_each_size("write_after_free", kind);
    at_each_size("read_after_realloc", kind);
}

static void asan_reports_tell_where_a_block_was_allocated_and_freed(void **state) {
    static const char *const names[] = {"read_after_free", "free_twice"};
    static const size_t sizes[] = {24, 100001, 3 * MIB};
    need(HAK_ASAN);
    names_wanted = true;
    for (size_t i = 0; i < COUNT(names) * COUNT(sizes); i++)
        is_reported(names[i % COUNT(names)], sizes[i / COUNT(names)], "bytes inside a freed block of ",
                    "\nfreed here:\n    #0 ", " in hak_free ", "\npreviously allocated here:\n    #0 ",
                    " in hak_malloc ", " in block_of ");
    names_wanted = false;
}

static void msan_reports_decisions_on_what_nobody_wrote(void **state) {
    need(HAK_MSAN);
    at_each_size("read_a_fresh_block", "MemorySanitizer: use-of-uninitialized-value");
    at_each_size("read_a_recycled_block", "MemorySanitizer: use-of-uninitialized-value");
    at_each_size("read_what_calloc_had", "MemorySanitizer: use-of-uninitialized-value");
    at_each_size("decide_after_free", "MemorySanitizer: use-of-uninitialized-value");
    at_each_size("read_what_realloc_added", "MemorySanitizer: use-of-uninitialized-value");
    at_each_size("read_what_realloc_added_to_calloc", "MemorySanitizer: use-of-uninitialized-value");
}

static void msan_reports_tell_where_the_block_came_from(void **state) {
    need(HAK_MSAN);
    names_wanted = true;
    is_reported("read_a_recycled_block", 24, "MemorySanitizer: use-of-uninitialized-value",
                "Memory was marked as uninitialized", " in hak_malloc ");
    names_wanted = false;
}

static void tsan_reports_races_on_a_block(void **state) {
    need(HAK_TSAN);
    at_each_size("race", "ThreadSanitizer: data race");
    at_each_size("race_with_free", "ThreadSanitizer: data race");
}

static void tsan_takes_free_and_malloc_for_a_hand_over(void **state) {
    need(HAK_TSAN);
    struct ended ended = run_mistake("hand_over", 24);
    assert_string_equal(ended.text, "");
    ended = run_mistake("hand_over", 100001);
    assert_string_equal(ended.text, "");
    assert_int_equal(ended.status, 0);
}

static void valgrind_reports_what_it_reports_of_malloc(void **state) {
    need(HAK_VALGRIND);
    at_each_size("write_past_the_end", "Invalid write of size 1", " is 0 bytes after a block of size ");
    at_each_size("write_past_the_end_of_a_recycled_block", "Invalid write of size 1", " is 0 bytes after a ");
    at_each_size("read_after_free", "Invalid read of size 1", " is 0 bytes inside a block of size ", " free'd\n",
                 "Block was alloc'd at");
    at_each_size("read_long_after_free", " is 0 bytes inside a block of size ", " free'd\n");
    at_each_size("read_after_realloc", " is 0 bytes inside a block of size ", " free'd\n");
    at_each_size("read_a_recycled_block", "Conditional jump or move depends on uninitialised value(s)");
    at_each_size("read_what_realloc_added", "Conditional jump or move depends on uninitialised value(s)");
}

static void valgrind_finds_lost_blocks(void **state) {
    need(HAK_VALGRIND);
    is_reported("lose_blocks", 24, "24 bytes in 1 blocks are definitely lost in loss record ", "hak_malloc");
    is_reported("lose_blocks", 1000, "1,000 bytes in 1 blocks are definitely lost in loss record ");
    is_reported("lose_blocks", 5000, "5,000 bytes in 1 blocks are definitely lost in loss record ");
    is_reported("lose_blocks", 100001, "100,001 bytes in 1 blocks are definitely lost in loss record ");
    is_reported("lose_blocks", 3 * MIB, "3,145,728 bytes in 1 blocks are definitely lost in loss record ");
    is_reported("lose_a_ring", 24, "48 (24 direct, 24 indirect) bytes in 1 blocks are definitely lost in loss record ");
    is_reported("lose_a_ring", 100001,
                "200,002 (100,001 direct, 100,001 indirect) bytes in 1 blocks are definitely lost in loss record ");
}

int main(int argc, char **argv) {
    if (argc == 3) return make(argv[1], strtoul(argv[2], NULL, 10));
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    must(length > 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_correct_program_is_not_reported),
        cmocka_unit_test(misuse_of_free_ends_every_build_with_its_line),
        cmocka_unit_test(asan_reports_accesses_outside_a_block),
        cmocka_unit_test(asan_reports_accesses_after_free),
        cmocka_unit_test(asan_reports_tell_where_a_block_was_allocated_and_freed),
        cmocka_unit_test(msan_reports_decisions_on_what_nobody_wrote),
        cmocka_unit_test(msan_reports_tell_where_the_block_came_from),
        cmocka_unit_test(tsan_reports_races_on_a_block),
        cmocka_unit_test(tsan_takes_free_and_malloc_for_a_hand_over),
        cmocka_unit_test(valgrind_reports_what_it_reports_of_malloc),
        cmocka_unit_test(valgrind_finds_lost_blocks),
    };
    alarm(HANG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
