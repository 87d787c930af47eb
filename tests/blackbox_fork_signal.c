/* build: -pthread */
/* fork() in a signal handler that interrupted malloc or free: the child goes on inside the interrupted call, with
 * whatever the thread held, and without the threads that held the rest. */
#include "support/life.h"

static struct life_table table;
static pthread_t main_thread;
static volatile sig_atomic_t forks;
static volatile sig_atomic_t bad_status;
static volatile sig_atomic_t is_child;

/* Every other child leaves at once; the rest return into the interrupted call. */
static void on_poke(int signal) {
    (void)signal;
    int saved = errno;
    pid_t pid = fork();
    if (pid == 0) {
        alarm(LIFE_HANG_SECONDS);
        if (forks % 2 == 0) {
            _exit(0);
        }
        is_child = 1;
    } else {
        int status = pid < 0 ? -1001 : life_wait(pid);
        forks = forks + 1;
        bad_status = bad_status != 0 ? bad_status : status;
    }
    errno = saved;
}

static void *poke_body(void *arg) {
    uint64_t random = 1;
    (void)arg;
    while (!atomic_load(&table.stop)) {
        struct timespec wait = {.tv_sec = 0, .tv_nsec = (long)(life_random(&random) % 1000000)};
        nanosleep(&wait, NULL);
        pthread_kill(main_thread, SIGUSR1);
    }
    return NULL;
}

static int child_rest(uint64_t *random) {
    for (int i = 0; i < 500; ++i) {
        life_table_step(&table, random);
    }
    if (life_full_mix() != 0) {
        return 1;
    }
    return life_table_empty(&table) == 0 ? 0 : 2;
}

static void assert_handler_may_fork(size_t churners) {
    struct sigaction action = {.sa_handler = on_poke, .sa_flags = SA_RESTART};
    sigset_t poke;
    sigemptyset(&poke);
    sigaddset(&poke, SIGUSR1);
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    forks = 0;
    bad_status = 0;
    main_thread = pthread_self();
    life_table_open(&table, 512, 2 * LIFE_MIB);
    pthread_t threads[3];
    pthread_sigmask(SIG_BLOCK, &poke, NULL);
    life_start(threads, 1, poke_body, NULL);
    life_start(threads + 1, churners, life_table_churn, &table);
    pthread_sigmask(SIG_UNBLOCK, &poke, NULL);
    uint64_t random = 3;
    double end = life_seconds() + (double)life_scale(2, 20);
    while (bad_status == 0 && (life_seconds() < end || forks < 100)) {
        life_table_step(&table, &random);
        if (is_child) {
            _exit(child_rest(&random));
        }
    }
    pthread_sigmask(SIG_BLOCK, &poke, NULL);
    if (is_child) {
        _exit(0);
    }
    atomic_store(&table.stop, true);
    life_join(threads, 1 + churners);
    signal(SIGUSR1, SIG_IGN);
    pthread_sigmask(SIG_UNBLOCK, &poke, NULL);
    assert_int_equal(bad_status, 0);
    assert_int_equal(life_table_close(&table), 0);
}

static void handler_forks_in_a_program_with_two_threads(void **state) {
    (void)state;
    assert_handler_may_fork(0);
}

static void handler_forks_while_other_threads_churn(void **state) {
    (void)state;
    assert_handler_may_fork(2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handler_forks_in_a_program_with_two_threads),
        cmocka_unit_test(handler_forks_while_other_threads_churn),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
