/* Threads whose end cannot be watched, because no key for it can be had: the first thread keeps its heap, the others
 * share one. And keys that are not what hakmem left them to be; locks that a fork finds held by the forking thread.
 * Each test has a process of its own, in which hakmem has not been used before. */
#include "support/inside.h"
#include "support/prefixed.h"

#include <limits.h>
#include <sys/mman.h>

#include "front/fork.h"
#include "front/heap.h"
#include "front/tcache.h"
#include "pages/meta.h"
#include "pages/region.h"

#define CLASS_64 3
#define CLASS_1024 (HAK_TINY_CLASSES - 1)
#define PER_SLAB_1024 64

static void *take(unsigned c) {
    void *ptr = hak_tcache_alloc(c);
    must(ptr != NULL);
    return ptr;
}

static void give(void *ptr) { hak_tcache_free(ptr, "free"); }

static uint32_t owner_of(const void *ptr) { return hak_region_lookup(ptr).owner; }

static void use_up_keys(void) {
    pthread_key_t key;
    int error;
    while ((error = pthread_key_create(&key, NULL)) == 0) continue;
    must(error == EAGAIN);
}

/* ---- without a key ---- */

/* Fills a slab of the shared heap and begins another. */
static void *share(void *first) {
    static char *blocks[PER_SLAB_1024 + 1];
    for (unsigned i = 0; i <= PER_SLAB_1024; i++) {
        blocks[i] = take(CLASS_1024);
        must(hak_heap_peek() == NULL && owner_of(blocks[i]) == owner_of(blocks[0]));
        memset(blocks[i], (int)i, 1024);
    }
    for (unsigned i = 1; i <= PER_SLAB_1024; i++) {
        must(blocks[i][0] == (char)i && blocks[i][1023] == (char)i);
        give(blocks[i]);
    }
    *(void **)first = blocks[0];
    return NULL;
}

static void live_without_key(void *argument) {
    void *first = NULL, *second = NULL;
    (void)argument;
    use_up_keys();
    must(owner_of(take(CLASS_64)) == hak_heap_tag(hak_tls_heap)); /* it ends with the process */
    run_thread(share, &first);
    must(owner_of(first) != hak_heap_tag(hak_tls_heap));
    run_thread(share, &second); /* the first one's end took nothing away */
    must(owner_of(second) == owner_of(first) && second != first);
    give(first);
    give(second);
    hak_tcache_flush_all(hak_tls_heap);
    hak_heap_shared_flush();
    const struct hak_front_stats stats = stats_of_front();
    must(stats.live_blocks[0] == 1 && stats.threads == 1);
    must(owner_of(first) == 0); /* its slab went back */
}

static void without_a_key_all_threads_but_the_first_share_a_heap(void **state) {
    (void)state;
    succeeds(live_without_key);
}

/* ---- the shared heap's tag ---- */

static uint32_t *shared_tag; /* with the parent */

static void *tell_tag(void *argument) {
    *shared_tag = owner_of(take(CLASS_64));
    return argument;
}

static void find_shared_tag(void *argument) {
    (void)argument;
    use_up_keys();
    take(CLASS_64);
    run_thread(tell_tag, NULL);
}

/* The first heap is where a heap lies whose tag is that of the shared heap to come. */
static void have_the_tag_of_the_shared_heap(void *argument) {
    (void)argument;
    const size_t bytes = HAK_HEAP_LEAD + sizeof(struct hak_heap);
    const uint32_t tag = *shared_tag, start = tag - (uint32_t)HAK_HEAP_LEAD, page = start & 4095;
    must(tag != 0);
    for (uintptr_t window = 0x200000000000;; window += (uintptr_t)1 << 32) {
        void *at = (void *)(window + (start - page));
        char *ptr = mmap(at, hak_round_up(bytes, 4096) + 4096, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (ptr != at) continue;
        hak_meta_free(ptr + page, bytes);
        break;
    }
    use_up_keys();
    take(CLASS_64);
    must(hak_heap_tag(hak_tls_heap) == tag);
    run_thread(tell_tag, NULL);
    must(*shared_tag != tag && *shared_tag != 0);
    run_thread(tell_tag, NULL);
}

static void the_shared_heap_gives_way_to_one_with_its_tag(void **state) {
    (void)state;
    if (HAK_TSAN || HAK_MSAN) return; /* they know only certain addresses */
    succeeds(find_shared_tag);
    succeeds(have_the_tag_of_the_shared_heap);
}

/* ---- keys and pointers that others have set ---- */

/* hakmem's key: the one whose value is the heap. */
static pthread_key_t own_key(void) {
    for (pthread_key_t key = 0; key < PTHREAD_KEYS_MAX; key++)
        if (pthread_getspecific(key) == hak_tls_heap) return key;
    must(!"no key");
    return 0;
}

static void *set_a_key_by_hand(void *other_heap) {
    take(CLASS_64);
    must(pthread_setspecific(own_key(), other_heap) == 0);
    return NULL;
}

static void end_with_a_wrong_value(void *argument) {
    (void)argument;
    give(take(CLASS_64));
    run_thread(set_a_key_by_hand, hak_tls_heap); /* the end of that thread must not park our heap */
    const struct hak_front_stats stats = stats_of_front();
    must(stats.threads == 2 && stats.heaps_parked == 0);
    give(take(CLASS_64));
    must(hak_heap_check());
}

/* The linker sets thread-local storage to its initial content once more (early.c). */
static void *begin_twice(void *argument) {
    give(take(CLASS_64));
    struct hak_heap *heap = hak_tls_heap;
    hak_tls_heap = hak_heap_initial();
    give(take(CLASS_64));
    must(hak_tls_heap == heap);
    return argument;
}

static void a_thread_that_begins_twice_has_one_heap(void **state) {
    (void)state;
    succeeds(end_with_a_wrong_value);
    assert_null(begin_twice(NULL));
}

/* ---- forks under a lock ---- */

static bool in_child;

static void fork_here(const struct hak_heap *heap, void *forks) {
    (void)heap;
    if ((*(int *)forks)-- != 1) return;
    in_child = fork() == 0;
    if (in_child) hak_fork_check(); /* what a signal handler's malloc does first: the lock is ours to release */
}

static void fork_inside_the_registry(void *argument) {
    int status = -1, forks = 1;
    (void)argument;
    void *ptr = take(CLASS_64);
    hak_heap_each(fork_here, &forks);
    if (in_child) alarm(30);
    give(ptr);
    for (unsigned i = 0; i < 1000; i++) ptr = take(CLASS_1024);
    must(hak_heap_check());
    pthread_t thread;
    start_thread(&thread, begin_twice, NULL);
    must(pthread_join(thread, NULL) == 0);
    if (in_child) _exit(17);
    must(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 17);
}

static void a_child_forked_inside_the_registry_goes_on(void **state) {
    (void)state;
    succeeds(fork_inside_the_registry);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_key_all_threads_but_the_first_share_a_heap),
        cmocka_unit_test(the_shared_heap_gives_way_to_one_with_its_tag),
        cmocka_unit_test(a_child_forked_inside_the_registry_goes_on),
        cmocka_unit_test(a_thread_that_begins_twice_has_one_heap), /* last: in this process */
    };
    shared_tag = mmap(NULL, sizeof *shared_tag, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared_tag != MAP_FAILED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
