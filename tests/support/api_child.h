/* Runs one piece of a test in a forked child and hands back how it ended, what it wrote to stderr, and how far it
 * came. For what ends the process (misuse), and for what may not last (limits, locked memory, system call filters).
 */
#ifndef API_CHILD_H
#define API_CHILD_H

#include "api_blackbox.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* Shared with the child. */
struct api_trace {
    int step;      /* 0 before the misuse, 1 at it, 2 once it has returned */
    void *pointer; /* what was passed */
    long value;    /* whatever else the child wants to say */
};

struct api_child {
    pid_t pid;
    int status;
    struct api_trace trace;
    char text[8192]; /* all that it wrote to stderr */
};

/* volatile: what the child notes must be there when it dies at the next instruction. */
static volatile struct api_trace *api_trace;

/* A child that finds a fault itself says which and ends with status 1. */
#define api_child_check(condition)                                                                                     \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            dprintf(2, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                                         \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

static inline void api_child_main(void (*body)(void *), void *argument, int write_end) {
    static const int caught_by_cmocka[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGSYS, SIGABRT};
    for (size_t i = 0; i < API_COUNT(caught_by_cmocka); i++) {
        signal(caught_by_cmocka[i], SIG_DFL);
    }
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(write_end, 2);
    close(write_end);
    alarm(120); /* only a hang takes that long */
    body(argument);
    _exit(0);
}

static inline void api_child_read(int read_end, char *text, size_t room) {
    size_t length = 0;
    ssize_t got;
    while ((got = read(read_end, text + length, room - 1 - length)) > 0) {
        length += (size_t)got;
    }
    text[length] = '\0';
    close(read_end);
}

static inline struct api_child api_run_child(void (*body)(void *), void *argument) {
    struct api_child child = {.pid = -1};
    int ends[2];
    if (!api_trace) {
        api_trace = mmap(NULL, sizeof *api_trace, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_true(api_trace != MAP_FAILED);
    }
    api_trace->step = 0;
    api_trace->pointer = NULL;
    api_trace->value = 0;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    child.pid = fork();
    assert_true(child.pid >= 0);
    if (child.pid == 0) {
        close(ends[0]);
        api_child_main(body, argument, ends[1]);
    }
    close(ends[1]);
    api_child_read(ends[0], child.text, sizeof child.text);
    assert_int_equal(waitpid(child.pid, &child.status, 0), child.pid);
    child.trace = (struct api_trace){api_trace->step, api_trace->pointer, api_trace->value};
    return child;
}

/* The child must have come to its end in peace, and said nothing. */
static inline void api_child_succeeds(void (*body)(void *), void *argument, const char *what) {
    struct api_child child = api_run_child(body, argument);
    if (child.status != 0 || child.text[0]) {
        fail_msg("%s: wait status 0x%x, stderr \"%s\"", what, (unsigned)child.status, child.text);
    }
}

/* The child's stderr must be one line about api_trace->pointer, and nothing else. */
static inline bool api_child_said(const struct api_child *child, const char *function, const char *kind) {
    char line[512];
    snprintf(line, sizeof line, "hakmem[%d %s]: %s(%p): %s\n", (int)child->pid, program_invocation_short_name, function,
             child->trace.pointer, kind);
    return strcmp(child->text, line) == 0;
}

#endif
