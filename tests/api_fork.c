/* Fork while other threads allocate. The child has only one thread, and heaps, locks and lists that others were just
 * changing: it must be able to do all that its parent could. */
#include "support/prefixed.h"

#if HAK_VALGRIND
#include <valgrind/valgrind.h>
/* What the parent's other threads held in their hands is lost in the child, and no mistake: a process that becomes
 * another program is not searched for leaks. */
static void end_with_leaks(void) {
    must(VALGRIND_COUNT_ERRORS == 0);
    execl("/bin/true", "true", (char *)NULL);
    must(false);
}
#else
static void end_with_leaks(void) {}
#endif

#define CHURNERS 4
#define KEPT 100
#define ADOPTED 500

struct kept {
    unsigned char *ptr;
    size_t bytes;
};

static _Atomic bool stop;
static _Atomic unsigned churning;
/* Given away by the churners: a slot's block belongs to whoever takes it out. Blocks fill themselves with SHARED. */
static struct kept *_Atomic given[KEPT];
#define SHARED 0x5ead

static struct kept *new_given(uint64_t *random) {
    struct kept *given_away = hak_malloc(sizeof *given_away);
    must(given_away != NULL);
    given_away->bytes = random_size(random);
    given_away->ptr = hak_malloc(given_away->bytes);
    must(given_away->ptr != NULL);
    fill(given_away->ptr, given_away->bytes, SHARED);
    return given_away;
}

static void free_given(struct kept *taken) {
    if (taken == NULL) return;
    must(is_filled(taken->ptr, taken->bytes, SHARED));
    hak_free(taken->ptr);
    hak_free(taken);
}

static void free_all_given(void) {
    for (unsigned i = 0; i < KEPT; i++) free_given(atomic_exchange(&given[i], NULL));
}

static void *churn(void *argument) {
    uint64_t random = (uint64_t)(uintptr_t)argument;
    for (unsigned n = 1; !atomic_load(&stop); n++) {
        if (n == 1) atomic_fetch_add(&churning, 1);
        if (n % 16 == 0) usleep(500); /* the child wants a processor, too */
        free_given(atomic_exchange(&given[next_random(&random) % KEPT], new_given(&random)));
        if (next_random(&random) % 64 == 0) hak_thread_flush();
        if (next_random(&random) % 1024 == 0) hak_purge();
    }
    return NULL;
}

/* The parent's own blocks, which the child has too. */
static struct kept own[KEPT];

static void fill_own(uint64_t seed) {
    for (unsigned i = 0; i < KEPT; i++) {
        own[i].bytes = random_size(&seed);
        own[i].ptr = hak_malloc(own[i].bytes);
        must(own[i].ptr != NULL);
        fill(own[i].ptr, own[i].bytes, i);
    }
}

static void free_own(void) {
    for (unsigned i = 0; i < KEPT; i++) {
        must(is_filled(own[i].ptr, own[i].bytes, i));
        hak_free(own[i].ptr);
    }
}

static void use_every_layer(uint64_t seed) {
    static const size_t sizes[] = {1,     16,       100,       1000,      1024,    3000,
                                   30000, 40 * KIB, 300 * KIB, 700 * KIB, 1 * MIB, 2 * MIB};
    unsigned char *blocks[COUNT(sizes)];
    for (size_t i = 0; i < COUNT(sizes); i++) {
        blocks[i] = i % 2 ? hak_calloc(1, sizes[i]) : hak_aligned_alloc(64, sizes[i]);
        must(blocks[i] != NULL);
        must(i % 2 == 0 || is_zero(blocks[i], sizes[i]));
        fill(blocks[i], sizes[i], seed + i);
    }
    for (size_t i = 0; i < COUNT(sizes); i++) {
        blocks[i] = hak_realloc(blocks[i], sizes[i] * 2);
        must(blocks[i] != NULL && is_filled(blocks[i], sizes[i], seed + i));
        hak_free(blocks[i]);
    }
}

static void *work_in_a_thread(void *argument) {
    use_every_layer(3);
    for (unsigned i = 0; i < KEPT; i += 2) free_given(atomic_exchange(&given[i], NULL));
    return argument;
}

/* ThreadSanitizer ends a process that starts a thread after a fork with several. */
#define CHILD_STARTS_THREADS (!HAK_TSAN)

static void child(void *argument) {
    (void)argument;
    use_every_layer(1);
    free_own();
    if (CHILD_STARTS_THREADS) run_thread(work_in_a_thread, NULL);
    free_all_given();
    struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof stats};
    must(hak_stats_get(&stats) == 0);
    hak_thread_flush();
    hak_purge();
    fill_own(2);
    free_own();
    use_every_layer(2);
    end_with_leaks();
}

static void child_that_forks(void *argument) {
    (void)argument;
    use_every_layer(1);
    fill_own(7);
    must(run_forked(child, NULL) == 0);
    free_own();
    end_with_leaks();
}

/* ---- threads that are at rest ---- */

static _Atomic unsigned resting;

static void *rest(void *argument) {
    hak_free(hak_malloc(3000));
    atomic_fetch_add(&resting, 1);
    while (!atomic_load(&stop)) usleep(500);
    return argument;
}

/* Their heaps are nobody's in the child, and can be taken over. */
static void take_over(void *parked) {
    hak_free(hak_malloc(1));
    struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof stats};
    must(hak_stats_get(&stats) == 0);
    must(stats.threads == 1 && stats.heaps_parked == *(uint64_t *)parked + CHURNERS);
    if (!CHILD_STARTS_THREADS) return;
    run_thread(work_in_a_thread, NULL);
    must(hak_stats_get(&stats) == 0);
    must(stats.threads == 1 && stats.heaps_parked == *(uint64_t *)parked + CHURNERS); /* no heap was made for it */
}

static void heaps_of_threads_at_rest_are_taken_over_by_the_child(void **state) {
    (void)state;
    pthread_t thread[CHURNERS];
    atomic_store(&stop, false);
    hak_free(hak_malloc(1));
    for (unsigned i = 0; i < CHURNERS; i++) start_thread(&thread[i], rest, NULL);
    while (atomic_load(&resting) < CHURNERS) usleep(500);
    uint64_t parked = stats_now().heaps_parked;
    assert_int_equal(stats_now().threads, 1 + CHURNERS);
    assert_int_equal(run_forked(take_over, &parked), 0);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < CHURNERS; i++) must(pthread_join(thread[i], NULL) == 0);
}

/* Slabs of theirs are adopted: what lay in a bin there is at rest then, and only once. */
static void adopt(void *ptrs) {
    hak_free(hak_malloc(1));
    for (unsigned i = 0; i < ADOPTED; i++) {
        unsigned char *ptr = ((void **)ptrs)[i] = hak_malloc(3000);
        must(ptr != NULL);
        fill(ptr, 3000, i);
    }
    struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof stats};
    must(hak_stats_get(&stats) == 0 && stats.adopted_slabs != 0);
    for (unsigned i = 0; i < ADOPTED; i++) must(is_filled(((void **)ptrs)[i], 3000, i));
    for (unsigned i = 0; i < ADOPTED; i++) hak_free(((void **)ptrs)[i]);
    hak_thread_flush();
}

static void *kept; /* not on the stack of a thread that the child does not have: it would count as lost there */
static void *rest_with_a_block(void *argument) {
    kept = hak_malloc(3000);
    rest(argument);
    hak_free(kept);
    return argument;
}

static void slabs_of_threads_at_rest_are_adopted_by_the_child(void **state) {
    (void)state;
    static void *ptrs[ADOPTED];
    pthread_t thread;
    atomic_store(&stop, false);
    atomic_store(&resting, 0);
    start_thread(&thread, rest_with_a_block, NULL);
    while (atomic_load(&resting) < 1) usleep(500);
    assert_int_equal(run_forked(adopt, ptrs), 0);
    atomic_store(&stop, true);
    must(pthread_join(thread, NULL) == 0);
}

/* ---- threads that churn ---- */

static void start_churners(pthread_t *churners) {
    atomic_store(&stop, false);
    atomic_store(&churning, 0);
    for (uintptr_t i = 0; i < CHURNERS; i++) start_thread(&churners[i], churn, (void *)i);
    /* A thread that is just starting may hold a lock of the sanitizer's own malloc, which the child would meet. */
    while (atomic_load(&churning) < CHURNERS) usleep(100);
}

static void stop_churners(pthread_t *churners) {
    atomic_store(&stop, true);
    for (unsigned i = 0; i < CHURNERS; i++) must(pthread_join(churners[i], NULL) == 0);
    free_all_given();
}

static void a_child_of_a_churning_process_uses_every_layer(void **state) {
    (void)state;
    pthread_t churners[CHURNERS];
    if (!CHILD_STARTS_THREADS) print_message("# the child starts no thread: ThreadSanitizer does not allow it\n");
    start_churners(churners);
    for (unsigned i = 0; i < rounds(12, 100); i++) {
        fill_own(i);
        assert_int_equal(run_forked(child, NULL), 0);
        free_own(); /* the child's frees are its own affair */
    }
    stop_churners(churners);
}

static void a_grandchild_does_as_well(void **state) {
    (void)state;
    pthread_t churners[CHURNERS];
    start_churners(churners);
    for (unsigned i = 0; i < rounds(4, 100); i++) assert_int_equal(run_forked(child_that_forks, NULL), 0);
    stop_churners(churners);
}

/* The parent is none the wiser: every figure is as if the children had never been. */
static void the_parent_keeps_its_books(void **state) {
    (void)state;
    uint64_t live[HAK_LAYER_COUNT];
    hak_thread_flush();
    struct hak_stats before = stats_now();
    for (int i = 0; i < HAK_LAYER_COUNT; i++) live[i] = before.layer[i].live_blocks;
    fill_own(5);
    for (unsigned i = 0; i < 5; i++) assert_int_equal(run_forked(child, NULL), 0);
    free_own();
    hak_thread_flush();
    struct hak_stats after = stats_now();
    for (int i = 0; i < HAK_LAYER_COUNT; i++) assert_int_equal(after.layer[i].live_blocks, live[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heaps_of_threads_at_rest_are_taken_over_by_the_child),
        cmocka_unit_test(slabs_of_threads_at_rest_are_adopted_by_the_child),
        cmocka_unit_test(a_child_of_a_churning_process_uses_every_layer),
        cmocka_unit_test(a_grandchild_does_as_well),
        cmocka_unit_test(the_parent_keeps_its_books),
    };
    alarm(getenv("HAK_SOAK") ? 0 : HANG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
