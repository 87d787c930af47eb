/* hakrun: what its three files share.
 *
 * main.c     options, finding the library, starting the program, signals, waiting for the process tree
 * program.c  looks at a program file before it starts: can hakmem be preloaded, has it an allocator of its own
 * summary.c  adds up the statistics lines of the processes and prints the sum
 */
#ifndef HAK_RUNNER_H
#define HAK_RUNNER_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* As env(1) and timeout(1) have it: what hakrun itself reports lies above what programs use. */
enum { EXIT_REFUSED = 125, EXIT_CANNOT_RUN = 126, EXIT_NOT_FOUND = 127 };

/* One line on stderr, with "hakrun: " before it. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* say(), then exit with `status`. */
_Noreturn void fail(int status, const char *what, const char *why);

const char *base_name(const char *path);

/* Looks `name` up as execvp() does. Returns 0, EXIT_NOT_FOUND or EXIT_CANNOT_RUN. */
int program_find(const char *name, char path[PATH_MAX]);

/* Says what hinders or limits hakmem in the program at `path` (a script: in what runs it; `path` then names that).
 * Returns false if preloading `library` into it cannot work. Ends hakrun if `library` is no library. */
bool program_examine(char path[PATH_MAX], const char *library);

/* What the process tree used, by wait4(2) and the clock. */
struct usage {
    double wall, user, system; /* seconds */
    uint64_t peak_rss;         /* bytes, of the largest process */
    bool still_running;        /* processes of the tree have outlived the program */
};

/* Prints the summary of the statistics file `lines` (NULL: run without hakmem) and of `usage`. */
void summary_print(FILE *out, bool json, const char *program, const char *lines, const struct usage *usage);

#endif
