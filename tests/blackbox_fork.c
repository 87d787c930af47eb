/* build: -pthread */
/* fork() while other threads allocate: the child works, whatever the others were in the middle of. */
#include "support/life.h"

#include <semaphore.h>
#include <sys/syscall.h>

enum { CHURNERS = 4 };

static struct life_table table;

static void *steps_body(void *arg) {
    uint64_t random = 7;
    (void)arg;
    for (int i = 0; i < 200; ++i) {
        life_table_step(&table, &random);
    }
    return NULL;
}

/* What a child does: every layer, a thread of its own, and the blocks of threads that do not exist here. */
static int child_body(bool may_start_thread) {
    alarm(LIFE_HANG_SECONDS);
    if (life_full_mix() != 0) {
        return 1;
    }
    pthread_t thread;
    if (may_start_thread) {
        if (pthread_create(&thread, NULL, steps_body, NULL) != 0) {
            return 2;
        }
        pthread_join(thread, NULL);
    }
    return life_table_empty(&table) == 0 ? 0 : 3;
}

static void assert_children_work(size_t children, pid_t (*fork_way)(void), bool may_start_thread) {
    pthread_t threads[CHURNERS];
    life_table_open(&table, 512, 2 * LIFE_MIB);
    life_start(threads, CHURNERS, life_table_churn, &table);
    int status = 0;
    for (size_t i = 0; i < children && status == 0; ++i) {
        pid_t pid = fork_way();
        if (pid == 0) {
            _exit(child_body(may_start_thread));
        }
        status = life_wait(pid);
    }
    atomic_store(&table.stop, true);
    life_join(threads, CHURNERS);
    assert_int_equal(status, 0);
    assert_int_equal(life_table_close(&table), 0);
}

static void child_of_churning_parent_allocates_and_frees(void **state) {
    (void)state;
    assert_children_work(life_scale(300, 2000), fork, true);
}

/* No handler of pthread_atfork() runs here, so the library must notice the new process by itself. */
static void child_made_without_fork_handlers_allocates_and_frees(void **state) {
    (void)state;
    assert_children_work(life_scale(50, 1000), _Fork, false);
}

static pid_t clone_bare(void) { return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL); }

static void child_made_by_bare_clone_allocates_and_frees(void **state) {
    (void)state;
    assert_children_work(life_scale(50, 1000), clone_bare, false);
}

/* ---- a chain of generations, each with threads that do not survive the next fork ---- */

enum { GENERATIONS = 30, SETTLED = 4 };

static size_t *rss_of_generation; /* shared with all generations */

static int generation_body(size_t number) {
    alarm(LIFE_HANG_SECONDS);
    if (life_table_empty(&table) != 0) {
        return 1;
    }
    rss_of_generation[number] = life_rss();
    if (number + 1 == GENERATIONS) {
        return 0;
    }
    pthread_t threads[CHURNERS];
    life_start(threads, CHURNERS, life_table_churn, &table);
    life_sleep_ms(5);
    pid_t pid = fork();
    if (pid == 0) {
        _exit(generation_body(number + 1));
    }
    atomic_store(&table.stop, true);
    life_join(threads, CHURNERS);
    return life_table_empty(&table) == 0 ? life_wait(pid) : 2;
}

static void memory_of_threads_lost_by_fork_is_used_again(void **state) {
    (void)state;
    size_t bytes = GENERATIONS * sizeof(size_t);
    rss_of_generation = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(rss_of_generation, MAP_FAILED);
    life_table_open(&table, 256, 8192);
    pid_t pid = fork();
    if (pid == 0) {
        _exit(generation_body(0));
    }
    assert_int_equal(life_wait(pid), 0);
    size_t growth = life_growth(rss_of_generation[SETTLED], rss_of_generation[GENERATIONS - 1]);
    print_message("# rss: generation %d %zu KiB, generation %d %zu KiB\n", SETTLED, rss_of_generation[SETTLED] >> 10,
                  GENERATIONS - 1, rss_of_generation[GENERATIONS - 1] >> 10);
    assert_true(growth <= 16 * LIFE_MIB);
    life_table_close(&table);
    munmap(rss_of_generation, bytes);
}

/* Address space that is only reserved must not count against the system when the process is copied. */
static void fork_works_after_a_block_of_most_of_memory(void **state) {
    (void)state;
    size_t pages = (size_t)sysconf(_SC_PHYS_PAGES);
    size_t bytes = pages / 10 * 6 * (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *block = v_malloc(bytes);
    assert_non_null(block);
    block[0] = 1;
    block[bytes - 1] = 1;
    v_free(block);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(LIFE_HANG_SECONDS);
        _exit(life_full_mix());
    }
    assert_true(pid > 0);
    assert_int_equal(life_wait(pid), 0);
}

/* ---- threads that hold each other's blocks ----
 * Each has freed a block of the next one. What the child does with the blocks of one it must not do, deeper and deeper,
 * with those of all. */

enum { CHAINED = 400, CHAIN_SIZE = 100, MANY_BLOCKS = 60000 };

static struct link {
    pthread_t thread;
    sem_t may_go;
    void *block;
} chain[CHAINED];
static sem_t link_is_done;

static void *hold_block_of_next(void *arg) {
    struct link *self = arg;
    void *first = malloc(CHAIN_SIZE);
    self->block = malloc(CHAIN_SIZE);
    free(first);
    sem_post(&link_is_done);
    sem_wait(&self->may_go);
    if (self + 1 < chain + CHAINED) {
        free(self[1].block);
    }
    sem_post(&link_is_done);
    sem_wait(&self->may_go);
    return NULL;
}

static void *take_and_free_many(void *arg) {
    static void *blocks[MANY_BLOCKS];
    for (size_t i = 0; i < MANY_BLOCKS; ++i) {
        blocks[i] = malloc(CHAIN_SIZE);
    }
    for (size_t i = 0; i < MANY_BLOCKS; ++i) {
        free(blocks[i]);
    }
    return arg;
}

static int run_in_little_stack(void *(*body)(void *)) {
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 32 * 1024);
    return pthread_create(&thread, &attributes, body, NULL) != 0 || pthread_join(thread, NULL) != 0;
}

static void child_finds_a_long_chain_of_lost_threads(void **state) {
    (void)state;
    sem_init(&link_is_done, 0, 0);
    for (size_t i = 0; i < CHAINED; ++i) {
        sem_init(&chain[i].may_go, 0, 0);
        assert_int_equal(pthread_create(&chain[i].thread, NULL, hold_block_of_next, &chain[i]), 0);
        sem_wait(&link_is_done);
    }
    for (size_t i = 0; i < CHAINED; ++i) {
        sem_post(&chain[i].may_go);
        sem_wait(&link_is_done);
    }
    pid_t pid = fork();
    if (pid == 0) {
        _exit(run_in_little_stack(take_and_free_many));
    }
    assert_int_equal(life_wait(pid), 0);
    for (size_t i = 0; i < CHAINED; ++i) {
        sem_post(&chain[i].may_go);
        pthread_join(chain[i].thread, NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(child_of_churning_parent_allocates_and_frees),
        cmocka_unit_test(child_made_without_fork_handlers_allocates_and_frees),
        cmocka_unit_test(child_made_by_bare_clone_allocates_and_frees),
        cmocka_unit_test(memory_of_threads_lost_by_fork_is_used_again),
        cmocka_unit_test(fork_works_after_a_block_of_most_of_memory),
        cmocka_unit_test(child_finds_a_long_chain_of_lost_threads),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
