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

/* As env(1) and timeout(1) have it: what hakrun itself reports lies above what programs use. But where hakrun was
 * called wrongly nothing is started whose status it could be taken for. */
enum { EXIT_USAGE = 2, EXIT_REFUSED = 125, EXIT_CANNOT_RUN = 126, EXIT_NOT_FOUND = 127 };

/* One line on stderr, with "hakrun: " before it. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* say(), then exit with `status`. */
_Noreturn void fail(int status, const char *what, const char *why);

const char *base_name(const char *path);

/* Looks `name` up as execvp() does. Returns 0, EXIT_NOT_FOUND or EXIT_CANNOT_RUN. */
int program_find(const char *name, char path[PATH_MAX]);

/* Why `path` cannot be the library that is preloaded, or NULL: it can. */
const char *library_fault(const char *path);

/* Says what hinders or limits hakmem in the program at `path` (a script: in what runs it; `path` then names that).
 * Returns false if preloading `library` into it cannot work. */
bool program_examine(char path[PATH_MAX], const char *library);

/* The same for the C library's malloc: false, and said why, if the program brings a malloc that comes before it. */
bool program_examine_for_libc(char path[PATH_MAX]);

/* What the process tree used, by wait4(2) and the clock. */
struct usage {
    double wall, user, system; /* seconds */
    uint64_t peak_rss;         /* bytes, of the largest process */
    bool still_running;        /* processes of the tree have outlived the program */
};

/* The statistics of the processes. */
struct statistics {
    const char *lines; /* the file that they were appended to; NULL: run without hakmem */
    const char *copy;  /* the user's own HAKMEM_STATS_FILE, which gets the lines too; NULL: none */
    bool copy_starts;  /* and wants those of HAKMEM_STATS_START */
};

/* Prints the summary of the statistics and of `usage`. */
void summary_print(FILE *out, bool json, const char *program, const struct statistics *statistics,
                   const struct usage *usage);

#endif
