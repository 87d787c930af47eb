/* build: -pthread */
/* A sandbox that allows, after a warm-up, only mmap, munmap, mremap, mprotect, madvise, futex, write and exit. */
#include "support/life.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { CHURNERS = 2 };

static struct life_table table;

#define ALLOW(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* A forbidden call is named on stderr before the process ends: without that a failure tells nothing. */
static void on_forbidden(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    char text[] = "# forbidden system call 000\n";
    for (size_t i = 0, number = (size_t)info->si_syscall; i < 3; ++i, number /= 10) {
        text[sizeof(text) - 3 - i] = (char)('0' + number % 10);
    }
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0) {
        _exit(98);
    }
    _exit(99);
}

/* With `madvise_result` 0 madvise is allowed, otherwise it fails with that errno. For all threads of the process. */
static int enter_sandbox(unsigned madvise_result) {
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(mmap),
        ALLOW(munmap),
        ALLOW(mremap),
        ALLOW(mprotect),
        ALLOW(futex),
        ALLOW(write),
        ALLOW(exit),
        ALLOW(exit_group),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, madvise_result == 0 ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | madvise_result),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog program = {.len = sizeof(rules) / sizeof(rules[0]), .filter = rules};
    struct sigaction action = {.sa_sigaction = on_forbidden, .sa_flags = SA_SIGINFO};
    if (sigaction(SIGSYS, &action, NULL) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return -1;
    }
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}

/* The start of a thread takes more system calls, so it must be over. */
static pthread_barrier_t started;

static void *churn_body(void *arg) {
    pthread_barrier_wait(&started);
    return life_table_churn(arg);
}

static int sandboxed(unsigned madvise_result) {
    pthread_t threads[CHURNERS];
    uint64_t random = 1;
    life_table_open(&table, 2000, 4 * LIFE_MIB);
    pthread_barrier_init(&started, NULL, CHURNERS + 1);
    life_start(threads, CHURNERS, churn_body, &table);
    pthread_barrier_wait(&started);
    for (int i = 0; i < 1000; ++i) {
        life_table_step(&table, &random);
    }
    if (enter_sandbox(madvise_result) != 0) {
        return 97;
    }
    /* Enough rounds for each way to get, grow, give back and adapt. */
    for (int round = 0; round < 8; ++round) {
        for (int i = 0; i < 3000; ++i) {
            life_table_step(&table, &random);
        }
        if (life_full_mix() != 0 || life_table_empty(&table) != 0) {
            return 1;
        }
    }
    return 0;
}

static int sandboxed_body(void *arg) {
    int result = sandboxed(*(unsigned *)arg);
    syscall(SYS_exit_group, result); /* the threads stay as they are */
    return result;
}

static void few_system_calls_suffice(void **state) {
    (void)state;
    unsigned allowed = 0;
    assert_int_equal(life_in_child(sandboxed_body, &allowed), 0);
}

static void refused_madvise_does_no_harm(void **state) {
    (void)state;
    unsigned refusals[] = {EPERM, EINVAL, ENOSYS};
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); ++i) {
        assert_int_equal(life_in_child(sandboxed_body, &refusals[i]), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_system_calls_suffice),
        cmocka_unit_test(refused_madvise_does_no_harm),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
