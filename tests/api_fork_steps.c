/* Fork at each instruction of another thread's call. The thread runs step by step (x86's trap flag): a handler stops it
 * after each instruction, the main thread forks, and the child must be able to do all that its parent could, whatever
 * was half done. What a churning process meets once in a million forks is met here each time, at the same place. The
 * short form looks at every so many instructions; the long one at each. */
#include "support/prefixed.h"
#include "support/steps.h"

#include <semaphore.h>

#define BLOCKS 24
/* Only a hang takes that long. */
#define CHILD_SECONDS 20

struct block {
    unsigned char *ptr;
    size_t bytes;
};

static struct block new_block(size_t bytes, uint64_t seed) {
    struct block block = {.ptr = hak_malloc(bytes), .bytes = bytes};
    must(block.ptr != NULL);
    fill(block.ptr, bytes, seed);
    return block;
}

static void end_block(const struct block *block, uint64_t seed) {
    must(is_filled(block->ptr, block->bytes, seed));
    hak_free(block->ptr);
}

static void new_blocks(struct block *blocks, uint64_t seed) {
    static const size_t sizes[] = {48, 48, 48, 1000, 3000, 48, 20000, 100 * KIB};
    for (unsigned i = 0; i < BLOCKS; i++) blocks[i] = new_block(sizes[i % COUNT(sizes)], seed + i);
}

static void end_blocks(const struct block *blocks, uint64_t seed) {
    for (unsigned i = 0; i < BLOCKS; i++) end_block(&blocks[i], seed + i);
}

/* ---- what the child does ---------------------------------------------------------------------------------- */

/* The first two are whole while the child is forked; of the last nobody knows. */
static struct block of_main[BLOCKS], of_peer[BLOCKS], given[BLOCKS], given_late;

static void use_all(uint64_t seed) {
    struct block blocks[BLOCKS], big = new_block(2 * MIB, seed);
    new_blocks(blocks, seed);
    end_blocks(blocks, seed);
    end_block(&big, seed);
}

/* Takes the heap over that the stepped thread had, if it can be. */
static void *use_all_in_a_thread(void *argument) {
    struct block blocks[2][BLOCKS];
    new_blocks(blocks[0], 1);
    new_blocks(blocks[1], 2);
    end_blocks(of_peer, 200);
    end_blocks(blocks[0], 1);
    end_blocks(blocks[1], 2);
    return argument;
}

static void child(bool bare) {
    alarm(CHILD_SECONDS);
    use_all(3);
    if (!bare) run_thread(use_all_in_a_thread, NULL);
    end_blocks(of_main, 100);
    hak_thread_flush();
    hak_purge();
    use_all(4);
}

/* ---- steps ------------------------------------------------------------------------------------------------ */

static sem_t stopped, go;
static unsigned steps, stride;
static bool ended;

static void on_trap(int signal) {
    (void)signal;
    int saved = errno;
    if (++steps % stride == 0) {
        sem_post(&stopped);
        while (sem_wait(&go) != 0) continue;
    }
    errno = saved;
}

static void begin_steps(void) { set_trap_flag(); }
static void end_steps(void) { clear_trap_flag(); }

/* A call to be stepped through, and what is done before it. */
struct scene {
    const char *name;
    void (*prepare)(void);
    void (*act)(void);
    unsigned stride;                              /* of the short form */
    bool bare;                                    /* no handler of pthread_atfork() runs in the child */
    enum { IN_BODY, AT_EXIT, AFTER_EXIT } moment; /* of the thread */
};

static const struct scene *scene;
static pthread_key_t before_exit, after_exit;

/* Destructors run in the order in which the keys were made; ours are made before and after the allocator's. */
static void before_heap_goes(void *value) {
    (void)value;
    if (scene->moment == AT_EXIT) begin_steps();
}

static void after_heap_went(void *value) {
    (void)value;
    if (scene->moment == AFTER_EXIT) {
        begin_steps();
        scene->act();
    }
    end_steps();
}

static void *peer(void *argument) {
    must(pthread_setspecific(before_exit, &peer) == 0 && pthread_setspecific(after_exit, &peer) == 0);
    new_blocks(of_peer, 200);
    scene->prepare();
    if (scene->moment == IN_BODY) {
        begin_steps();
        scene->act();
        end_steps();
    }
    return argument;
}

static void *run_peer(void *argument) {
    run_thread(peer, NULL);
    ended = true;
    sem_post(&stopped);
    return argument;
}

static void fork_at_each_step(void *unused) {
    (void)unused;
    if (getenv("HAK_SOAK") != NULL) alarm(0);
    struct sigaction action = {.sa_handler = on_trap};
    must(sigaction(SIGTRAP, &action, NULL) == 0);
    must(sem_init(&stopped, 0, 0) == 0 && sem_init(&go, 0, 0) == 0);
    must(pthread_key_create(&before_exit, before_heap_goes) == 0);
    new_blocks(of_main, 100);
    new_blocks(given, 300);
    for (unsigned i = 0; i < 64; i++) given_late = new_block(48, 400); /* the last is of another word of a bitmap */
    must(pthread_key_create(&after_exit, after_heap_went) == 0);
    pthread_t waiter;
    start_thread(&waiter, run_peer, NULL);
    for (;;) {
        while (sem_wait(&stopped) != 0) continue;
        if (ended) break;
        int status = -1;
        pid_t pid = scene->bare ? _Fork() : fork();
        if (pid == 0) {
            child(scene->bare);
            _exit(0);
        }
        must(pid > 0 && waitpid(pid, &status, 0) == pid);
        if (status != 0) {
            dprintf(2, "forked at instruction %u of %s: status %#x\n", steps, scene->name, (unsigned)status);
            _exit(1);
        }
        sem_post(&go);
    }
    must(pthread_join(waiter, NULL) == 0);
    must(steps >= 50); /* else nothing was stepped through */
    if (getenv("HAK_STEPS") != NULL) dprintf(2, "%s: %u instructions\n", scene->name, steps);
}

/* ---- the calls -------------------------------------------------------------------------------------------- */

static void nothing(void) {}
static void remote_free(void) { hak_free(given[0].ptr); }
static void remote_free_late(void) { hak_free(given_late.ptr); }
static void some_remote_frees(void) {
    for (unsigned i = 0; i < BLOCKS; i += 4) hak_free(given[i].ptr);
}
static void tiny_block(void) { hak_free(hidden(hak_malloc(200))); }
static void mid_block(void) { hak_free(hidden(hak_malloc(5000))); }
static void run_of_slices(void) { hak_free(hidden(hak_malloc(300 * KIB))); }
static void big_block(void) { hak_free(hidden(hak_malloc(3 * MIB))); }
static void grow_big_block(void) { hak_free(hidden(hak_realloc(hak_malloc(3 * MIB), 5 * MIB))); }
static void purge(void) { hak_purge(); }

static void steps_through(const struct scene *of) {
    if (!CAN_STEP) return; /* (cmocka's skip() prints "not ok") */
    scene = of;
    stride = getenv("HAK_SOAK") != NULL ? 1 : of->stride;
    struct ended result = run_heard(fork_at_each_step, NULL);
    if (result.text[0] != '\0') print_message("# %s\n", result.text);
    assert_int_equal(result.status, 0);
}

#define SCENE(test, ...)                                                                                               \
    static void test(void **state) {                                                                                   \
        (void)state;                                                                                                   \
        static const struct scene of = {.name = #test, __VA_ARGS__};                                                   \
        steps_through(&of);                                                                                            \
    }

SCENE(a_remote_free, .prepare = nothing, .act = remote_free, .stride = 1)
SCENE(a_remote_free_after_others, .prepare = some_remote_frees, .act = remote_free_late, .stride = 1)
SCENE(a_flush, .prepare = some_remote_frees, .act = hak_thread_flush, .stride = 37)
SCENE(a_tiny_block, .prepare = nothing, .act = tiny_block, .stride = 13)
SCENE(a_tiny_block_and_a_bare_fork, .prepare = nothing, .act = tiny_block, .stride = 13, .bare = true)
SCENE(a_mid_block, .prepare = nothing, .act = mid_block, .stride = 17)
SCENE(a_run_of_slices, .prepare = nothing, .act = run_of_slices, .stride = 11)
SCENE(a_big_block, .prepare = nothing, .act = big_block, .stride = 17)
SCENE(a_big_block_that_grows, .prepare = nothing, .act = grow_big_block, .stride = 31)
SCENE(a_purge, .prepare = some_remote_frees, .act = purge, .stride = 61)
SCENE(the_end_of_a_thread, .prepare = some_remote_frees, .act = nothing, .stride = 61, .moment = AT_EXIT)
SCENE(a_block_after_the_end, .prepare = nothing, .act = tiny_block, .stride = 7, .moment = AFTER_EXIT)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_remote_free),
        cmocka_unit_test(a_remote_free_after_others),
        cmocka_unit_test(a_flush),
        cmocka_unit_test(a_tiny_block),
        cmocka_unit_test(a_tiny_block_and_a_bare_fork),
        cmocka_unit_test(a_mid_block),
        cmocka_unit_test(a_run_of_slices),
        cmocka_unit_test(a_big_block),
        cmocka_unit_test(a_big_block_that_grows),
        cmocka_unit_test(a_purge),
        cmocka_unit_test(the_end_of_a_thread),
        cmocka_unit_test(a_block_after_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
