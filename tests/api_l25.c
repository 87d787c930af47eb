/* The L2.5 pool in a process of its own: under load its shards double, its real log says so line by line, blocks from
 * before, during and after an expansion stay what they are and can be freed by any thread, and in the end no memory is
 * left. The process is this program, run again with options in its environment, under the same memory tool. */
#include "support/prefixed.h"

#define INTERVAL_MS "100"
enum { WORKERS = 4, SLOTS = 48 };
static _Atomic(char *) slots[SLOTS];
static atomic_bool enough;

/* Of the L2.5 pool, with room for what exact builds add. */
static char *make(uint64_t *random) {
    const size_t bytes = 32 * KIB + 1 + next_random(random) % (MIB - 33 * KIB);
    char *ptr = hak_malloc(bytes);
    must(ptr != NULL && hak_malloc_usable_size(ptr) >= bytes);
    memcpy(ptr, &bytes, sizeof bytes);
    fill(ptr + sizeof bytes, bytes - sizeof bytes, (uintptr_t)ptr);
    return ptr;
}

static void drop(char *ptr) {
    size_t bytes;
    if (ptr == NULL) return;
    memcpy(&bytes, ptr, sizeof bytes);
    must(is_filled(ptr + sizeof bytes, bytes - sizeof bytes, (uintptr_t)ptr));
    hak_free(ptr);
}

/* Whoever finds a block in a slot frees it; the first slots keep what they got at first until the end. */
static void *exchange(void *argument) {
    uint64_t random = (uintptr_t)argument;
    while (!atomic_load(&enough)) {
        unsigned slot = WORKERS + (unsigned)(next_random(&random) % (SLOTS - WORKERS));
        drop(atomic_exchange(&slots[slot], NULL));
        drop(atomic_exchange(&slots[slot], make(&random)));
    }
    return NULL;
}

/* Until the table has that many shards, and for some intervals more. The exit status is 0 if all is well; every failed
 * check ends the process with a line on stderr. */
static int work_until(uint64_t shards) {
    pthread_t threads[WORKERS];
    uint64_t random = 4711;
    for (unsigned i = 0; i < WORKERS; i++) atomic_store(&slots[i], make(&random));
    for (uintptr_t i = 0; i < WORKERS; i++) start_thread(&threads[i], exchange, (void *)(i + 1));
    while (stats_now().l25_shards < shards) usleep(1000);
    usleep(4 * (unsigned)atoi(INTERVAL_MS) * 1000);
    for (uint64_t more = stats_now().l25_requests + 4 * shards; stats_now().l25_requests < more;) usleep(1000);
    atomic_store(&enough, true);
    for (unsigned i = 0; i < WORKERS; i++) must(pthread_join(threads[i], NULL) == 0);
    for (unsigned i = 0; i < SLOTS; i++) drop(atomic_exchange(&slots[i], NULL));
    hak_purge();
    struct hak_stats stats = stats_now();
    must(stats.layer[HAK_LAYER_L25].live_blocks == 0 && stats.layer[HAK_LAYER_L25].live_bytes == 0);
    must(stats.layer[HAK_LAYER_L25].mapped_bytes == 0);
    return 0;
}

/* ---- the process, and what it logs ------------------------------------------------------------------------------ */

static char program[4096];

static void run_again(void *shards) {
    setenv("HAKMEM_LOG", "1", 1);
    setenv("HAKMEM_L25_LOAD", "1", 1);
    setenv("HAKMEM_L25_CONTENTION", "100", 1);
    setenv("HAKMEM_L25_CHECK_MS", INTERVAL_MS, 1);
    setenv("HAKMEM_L25_SHARDS_MAX", shards, 1);
    if (HAK_VALGRIND)
        execlp("valgrind", "valgrind", "-q", "--error-exitcode=99", "--leak-check=full", program, shards, (char *)NULL);
    else execl(program, program, shards, (char *)NULL);
    _exit(127);
}

/* Whether the text begins with the two lines of one expansion; it then stands behind them. */
static bool passes_expansion(const char **text, unsigned shards) {
    char line[80];
    unsigned load;
    int length = 0;
    if (sscanf(*text, "[L2.5_POOL] High load detected (avg=%u), expanding shards\n%n", &load, &length) != 1 ||
        length == 0 || load <= 1)
        return false;
    *text += length;
    snprintf(line, sizeof line, "[L2.5_POOL] Expanded shards: %u → %u\n", shards, 2 * shards);
    if (strncmp(*text, line, strlen(line)) != 0) return false;
    *text += strlen(line);
    return true;
}

static void under_load_the_shards_double_up_to_the_limit_and_the_log_says_so(void **state) {
    (void)state;
    struct ended ended = run_heard(run_again, "256");
    const char *rest = ended.text;
    if (ended.status != 0 || !passes_expansion(&rest, 64) || !passes_expansion(&rest, 128) || *rest != '\0')
        fail_msg("wait status 0x%x, stderr:\n%s", (unsigned)ended.status, ended.text);
}

static void with_as_many_shards_as_the_limit_nothing_is_said(void **state) {
    (void)state;
    struct ended ended = run_heard(run_again, "64");
    assert_string_equal(ended.text, "");
    assert_int_equal(ended.status, 0);
}

int main(int argc, char **argv) {
    if (argc == 2) return work_until(strtoul(argv[1], NULL, 10));
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    must(length > 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(under_load_the_shards_double_up_to_the_limit_and_the_log_says_so),
        cmocka_unit_test(with_as_many_shards_as_the_limit_nothing_is_said),
    };
    alarm(HANG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
