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
    MISTAKE(write_past_the_end_of_a_recycled_block),
    MISTAKE(read_before_the_start),
    MISTAKE(read_after_free),
    MISTAKE(write_after_free),
    MISTAKE(read_after_realloc),
    MISTAKE(read_a_fresh_block),
    MISTAKE(read_a_recycled_block),
    MISTAKE(read_what_realloc_added),
    MISTAKE(race),
    MISTAKE(race_with_free),
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

struct result {
    int status;
    char report[16384];
};

static char program[4096];

static void run_again(const char *name, const char *bytes) {
    if (HAK_VALGRIND)
        execlp("valgrind", "valgrind", "-q", "--error-exitcode=99", "--leak-check=full",
               "--errors-for-leak-kinds=definite", program, name, bytes, (char *)NULL);
    else execl(program, program, name, bytes, (char *)NULL);
    _exit(127);
}

static void run_mistake(const char *name, size_t bytes, struct result *result) {
    int ends[2];
    char number[24];
    size_t used = 0;
    ssize_t n;
    snprintf(number, sizeof number, "%zu", bytes);
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        run_again(name, number);
    }
    close(ends[1]);
    while ((n = read(ends[0], result->report + used, sizeof result->report - 1 - used)) > 0) used += (size_t)n;
    result->report[used] = '\0';
    while (n > 0) n = read(ends[0], number, sizeof number); /* the rest of a very long report */
    close(ends[0]);
    assert_int_equal(waitpid(pid, &result->status, 0), pid);
}

/* The run fails, and its report has the words. */
static void is_reported(const char *name, size_t bytes, const char *words) {
    static struct result result;
    run_mistake(name, bytes, &result);
    if (result.status == 0 || strstr(result.report, words) == NULL)
        fail_msg("%s of %zu bytes: wait status 0x%x, report without \"%s\":\n%s", name, bytes, (unsigned)result.status,
                 words, result.report);
}

static void at_each_size(const char *name, const char *words) {
    static const size_t sizes[] = {24, 1000, 5000, 40 * KIB, 100001, 3 * MIB};
    for (size_t i = 0; i < COUNT(sizes); i += HAK_VALGRIND ? 4 : 1) is_reported(name, sizes[i], words);
}

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
    static struct result result;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        run_mistake("no_mistake", sizes[i], &result);
        assert_string_equal(result.report, "");
        assert_int_equal(result.status, 0);
    }
}

static void misuse_of_free_ends_every_build_with_its_line(void **state) {
    (void)state;
    at_each_size("free_twice", "): double free");
    at_each_size("free_inside", "): invalid pointer: not the start of a block");
}

static void asan_reports_accesses_outside_a_block(void **state) {
    need(HAK_ASAN);
    for (size_t bytes = 1; bytes <= 33; bytes++) is_reported("write_past_the_end", bytes, "WRITE of size 1 at");
    at_each_size("write_past_the_end", "AddressSanitizer: use-after-poison on address");
    at_each_size("write_past_the_end_of_a_recycled_block", "AddressSanitizer: use-after-poison on address");
    is_reported("read_before_the_start", 24, "AddressSanitizer: use-after-poison on address");
    is_reported("read_before_the_start", 5000, "AddressSanitizer: use-after-poison on address");
}

static void asan_reports_accesses_after_free(void **state) {
    need(HAK_ASAN);
    at_each_size("read_after_free", "AddressSanitizer: use-after-poison on address");
    at_each_size("write_after_free", "AddressSanitizer: use-after-poison on address");
    at_each_size("read_after_realloc", "AddressSanitizer: use-after-poison on address");
}

static void msan_reports_decisions_on_what_nobody_wrote(void **state) {
    need(HAK_MSAN);
    at_each_size("read_a_fresh_block", "MemorySanitizer: use-of-uninitialized-value");
    at_each_size("read_a_recycled_block", "MemorySanitizer: use-of-uninitialized-value");
    at_each_size("read_what_realloc_added", "MemorySanitizer: use-of-uninitialized-value");
}

static void tsan_reports_races_on_a_block(void **state) {
    need(HAK_TSAN);
    at_each_size("race", "ThreadSanitizer: data race");
    at_each_size("race_with_free", "ThreadSanitizer: data race");
}

static void valgrind_reports_what_it_reports_of_malloc(void **state) {
    need(HAK_VALGRIND);
    at_each_size("write_past_the_end", "is 0 bytes after a ");
    at_each_size("write_past_the_end_of_a_recycled_block", "is 0 bytes after a ");
    at_each_size("read_after_free", "is 0 bytes inside a block of size");
    at_each_size("read_after_realloc", "is 0 bytes inside a block of size");
    at_each_size("read_a_recycled_block", "depends on uninitialised value(s)");
    at_each_size("read_what_realloc_added", "depends on uninitialised value(s)");
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
        cmocka_unit_test(msan_reports_decisions_on_what_nobody_wrote),
        cmocka_unit_test(tsan_reports_races_on_a_block),
        cmocka_unit_test(valgrind_reports_what_it_reports_of_malloc),
    };
    alarm(HANG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
