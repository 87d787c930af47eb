/* Runs a piece of a white-box test in a forked child: for what ends the process, and for what a test may not leave
 * behind. */
#ifndef TESTS_SUPPORT_CHILD_H
#define TESTS_SUPPORT_CHILD_H

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/expect.h"

/* For code that runs in threads and children, where cmocka's assertions cannot: says what failed and ends. */
#define must(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            dprintf(2, "# %s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                                       \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

/* Only a hang takes that long. */
#define HANG_SECONDS 300

/* What a child wrote to stderr, and how it ended. */
struct ended {
    pid_t pid;
    int status;
    char text[16384]; /* its beginning, if it is longer */
};

static UNUSED struct ended run_heard(void (*body)(void *), void *argument) {
    static struct ended ended;
    int ends[2];
    size_t used = 0;
    ssize_t n;
    char rest[1024];
    must(pipe(ends) == 0);
    ended.pid = fork();
    if (ended.pid == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        signal(SIGABRT, SIG_DFL); /* cmocka's handler would go on with the next test */
        alarm(HANG_SECONDS);
        body(argument);
        _exit(0);
    }
    close(ends[1]);
    while ((n = read(ends[0], ended.text + used, sizeof ended.text - 1 - used)) > 0) used += (size_t)n;
    ended.text[used] = '\0';
    while (read(ends[0], rest, sizeof rest) > 0) continue; /* or the child would wait for its reader */
    close(ends[0]);
    must(ended.pid > 0 && waitpid(ended.pid, &ended.status, 0) == ended.pid);
    return ended;
}

/* Runs `body` in a forked child, and returns its wait status. */
static UNUSED int run_forked(void (*body)(void *), void *argument) {
    pid_t pid = fork();
    if (pid == 0) {
        alarm(HANG_SECONDS);
        body(argument);
        _exit(0);
    }
    int status = -1;
    must(pid > 0 && waitpid(pid, &status, 0) == pid);
    return status;
}

#endif
