/* hakrun: runs a program on hakmem.
 *
 * Without --stats it becomes the program (exec), so that nothing stands between the program and its caller. With
 * --stats it stays as the parent: forwards signals, waits for the process tree, prints the summary and ends the
 * way the program did, by the same status or the same signal. */
#define _GNU_SOURCE
#include "runner.h"

#include <errno.h>
#include <getopt.h>
#include <gnu/lib-names.h>
#include <libgen.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* How long processes that outlive the program are waited for. */
static const double grace_seconds = 1;

struct options {
    bool stats, json, checked, log, force, libc;
    const char *library; /* --library, or NULL: found beside hakrun */
    const char *output;  /* --output, or NULL: stderr */
};

static const char help[] =
    "usage: hakrun [options] program [arguments]\n"
    "\n"
    "Runs a program on hakmem by preloading libhakmem.so into it and into the processes that it starts.\n"
    "\n"
    "  --stats[=json]   at the end, print one summary for the whole process tree: time, peak RSS, and per layer\n"
    "                   the bytes and blocks that hakmem served (as text, or as one JSON object)\n"
    "  --output FILE    write that summary to FILE, not to stderr\n"
    "  --checked        preload libhakmem-checked.so, which finds every misuse at once\n"
    "  --log            let hakmem log what it does (HAKMEM_LOG=1)\n"
    "  --libc           run on the C library's malloc, also a program linked with the library of another one: with\n"
    "                   --stats, time and peak RSS to compare with. Not with --checked, --log or --library\n"
    "  --library FILE   preload this build of hakmem; otherwise the one beside hakrun in the build, or in ../lib\n"
    "  --force          start the program also where hakmem cannot be preloaded into it\n"
    "  --help           print this\n"
    "\n"
    "Says so and does not start a program that nothing can be preloaded into: statically linked, set-user-ID,\n"
    "built with a sanitizer or for another architecture or C library. Names an allocator that the program brings\n"
    "along, and starts it. For a script, what runs the script is looked at.\n"
    "\n"
    "A process tells its statistics when it ends by exit() or by returning from main(). One that ends otherwise\n"
    "(_exit(), a signal) has none in the summary, which says how many these were.\n"
    "\n"
    "Exit status: that of the program; if a signal ends it, the same signal ends hakrun. 2 if hakrun is called\n"
    "wrongly, 125 if it fails or refuses, 126 if the program cannot be executed, 127 if it is not found.\n";

static void say_args(const char *format, va_list args, const char *end) {
    fputs("hakrun: ", stderr);
    vfprintf(stderr, format, args);
    fputs(end, stderr);
}

void say(const char *format, ...) {
    va_list args;
    va_start(args, format);
    say_args(format, args, "\n");
    va_end(args);
}

_Noreturn void fail(int status, const char *what, const char *why) {
    say("%s: %s", what, why);
    exit(status);
}

const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ---- before the start ------------------------------------------------------------------------------------ */

__attribute__((format(printf, 1, 2))) static _Noreturn void refuse_usage(const char *format, ...) {
    va_list args;
    va_start(args, format);
    say_args(format, args, " (see hakrun --help)\n");
    va_end(args);
    exit(EXIT_USAGE);
}

/* Options that make no sense together are no slip to pass over: the user would compare what is not there. */
static void check_options(const struct options *o) {
    if (o->output && !o->stats) refuse_usage("--output is for the summary of --stats, which is missing");
    if (o->libc && (o->checked || o->log || o->library))
        refuse_usage("--libc runs without hakmem: %s cannot be had with it", o->checked ? "--checked"
                                                                             : o->log   ? "--log"
                                                                                        : "--library");
    if (o->checked && o->library) refuse_usage("--checked and --library both name the library");
}

/* What getopt_long() refused. */
static _Noreturn void refuse_option(int result, const char *option) {
    if (result == ':') refuse_usage("%s needs a file name", option);
    if (optopt == 0) refuse_usage("%s is not an option, or short for several", option);
    if (optopt >= ' ') refuse_usage("-%c is not an option", optopt);
    refuse_usage("%.*s takes no value", (int)strcspn(option, "="), option);
}

static void parse_options(struct options *o, int argc, char **argv) {
    enum { STATS = 1, OUTPUT, CHECKED, LOG, LIBC, LIBRARY, FORCE, HELP };
    static const struct option table[] = {
        {"stats", optional_argument, NULL, STATS},
        {"output", required_argument, NULL, OUTPUT},
        {"checked", no_argument, NULL, CHECKED},
        {"log", no_argument, NULL, LOG},
        {"libc", no_argument, NULL, LIBC},
        {"library", required_argument, NULL, LIBRARY},
        {"force", no_argument, NULL, FORCE},
        {"help", no_argument, NULL, HELP},
        {0},
    };
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, "+:", table, NULL)) != -1;) {
        switch (c) {
        case STATS:
            if (optarg && strcmp(optarg, "json") != 0 && strcmp(optarg, "text") != 0)
                refuse_usage("--stats=%s: it can be text or json", optarg);
            o->stats = true;
            o->json = optarg && strcmp(optarg, "json") == 0;
            break;
        case OUTPUT:
            o->output = optarg;
            break;
        case CHECKED:
            o->checked = true;
            break;
        case LOG:
            o->log = true;
            break;
        case LIBC:
            o->libc = true;
            break;
        case LIBRARY:
            o->library = optarg;
            break;
        case FORCE:
            o->force = true;
            break;
        case HELP:
            fputs(help, stdout);
            exit(0);
        default:
            refuse_option(c, argv[optind - 1]);
        }
    }
    check_options(o);
    if (optind == argc) refuse_usage("no program is named");
}

/* The library that --library names, or the one in the build that hakrun is part of (it is in tools/ there), or
 * the installed one (hakrun is in bin/ then). */
static void find_library(const struct options *o, char path[PATH_MAX]) {
    static const char *const places[] = {"..", "../lib", "../lib64", "."};
    const char *name = o->checked ? "libhakmem-checked.so" : "libhakmem.so";
    char self[PATH_MAX] = "", tried[PATH_MAX];
    if (o->library) {
        const char *fault = realpath(o->library, path) ? library_fault(path) : strerror(errno);
        if (fault) refuse_usage("--library %s: %s", o->library, fault);
        return;
    }
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        fail(EXIT_REFUSED, "/proc/self/exe", "cannot be read: name the library with --library");
    const char *here = dirname(self);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (snprintf(tried, sizeof tried, "%s/%s/%s", here, places[i], name) < PATH_MAX && realpath(tried, path)) {
            const char *fault = library_fault(path);
            if (fault) fail(EXIT_REFUSED, path, fault);
            return;
        }
    say("%s is missing (looked in .., ../lib, ../lib64 and . of %s): build it with make, or name it with --library",
        name, here);
    exit(EXIT_REFUSED);
}

/* Puts the library before what LD_PRELOAD holds. */
static void preload(const char *library) {
    const char *old = getenv("LD_PRELOAD");
    char *value;
    if (strpbrk(library, " \t\n:"))
        fail(EXIT_REFUSED, library, "LD_PRELOAD cannot hold a path with a space or a colon: link or copy it elsewhere");
    if (asprintf(&value, "%s%s%s", library, old && *old ? ":" : "", old ? old : "") < 0)
        fail(EXIT_REFUSED, "LD_PRELOAD", strerror(errno));
    setenv("LD_PRELOAD", value, 1);
    free(value);
}

static void start_or_refuse(const struct options *o, const char *name, bool fine) {
    if (fine) return;
    if (o->force) {
        say("%s is started nevertheless", name);
        return;
    }
    say("%s is not started (--force starts it without)", name);
    exit(EXIT_REFUSED);
}

/* Looks at the program and sets the environment. */
static void prepare(const struct options *o, const char *name) {
    char library[PATH_MAX], path[PATH_MAX];
    int found = program_find(name, path);
    if (found == EXIT_NOT_FOUND) fail(found, name, "not found");
    if (found != 0) fail(found, name, "not an executable file");
    if (o->libc) {
        start_or_refuse(o, name, program_examine_for_libc(path));
        /* Loaded anyway, but now searched before an allocator that the program is linked with. */
        preload(LIBC_SO);
        return;
    }
    find_library(o, library);
    start_or_refuse(o, name, program_examine(path, library));
    preload(library);
    if (o->log) setenv("HAKMEM_LOG", "1", 1);
}

static _Noreturn void become(char **argv) {
    execvp(argv[0], argv);
    int error = errno;
    say("%s: %s", argv[0], strerror(error));
    _exit(error == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN);
}

/* ---- with --stats: the parent ---------------------------------------------------------------------------- */

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

/* Stops with the program when the user suspends it, so that the shell gets its terminal back. */
static void stop_too(void) { kill(getpid(), SIGSTOP); }

/* Collects what has ended or stopped. True once the program (`child`) has ended; its status is in `*status`. */
static bool reap(pid_t child, int *status) {
    int s;
    bool ended = false;
    for (pid_t pid; (pid = waitpid(-1, &s, WNOHANG | WUNTRACED)) > 0;) {
        if (pid != child) continue;
        if (WIFSTOPPED(s)) {
            stop_too();
            continue;
        }
        *status = s;
        ended = true;
    }
    return ended;
}

/* Waits for the program; hands on every signal that was sent to hakrun alone. One that the terminal sends
 * (SI_KERNEL) has gone to the whole group already. */
static int wait_program(pid_t child, const sigset_t *all) {
    int status = 0;
    for (;;) {
        siginfo_t info;
        int signal = sigwaitinfo(all, &info);
        if (signal == SIGCHLD && reap(child, &status)) return status;
        if (signal > 0 && signal != SIGCHLD && info.si_code != SI_KERNEL && info.si_pid != child) kill(child, signal);
    }
}

/* Gives processes that outlive the program (they became children of hakrun) a moment to end. True: some run on. */
static bool wait_rest(const sigset_t *all) {
    double end = seconds_now() + grace_seconds;
    for (;;) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if (pid < 0) return false;
        if (pid == 0 && seconds_now() >= end) return true;
        struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
        if (pid == 0) sigtimedwait(all, NULL, &pause);
    }
}

static pid_t start(char **argv, const sigset_t *all) {
    sigset_t before;
    sigprocmask(SIG_BLOCK, all, &before);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t child = fork();
    if (child < 0) fail(EXIT_REFUSED, argv[0], strerror(errno));
    if (child == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        become(argv);
    }
    return child;
}

static bool is_set(const char *option) { return option && *option && strcmp(option, "0") != 0; }

/* A file for the statistics lines, named in HAKMEM_STATS_FILE. What the user has there is taken along: the lines are
 * copied to it at the end. */
static void make_lines_file(char path[PATH_MAX], struct statistics *statistics) {
    const char *dir = getenv("TMPDIR"), *copy = getenv("HAKMEM_STATS_FILE"), *starts = getenv("HAKMEM_STATS_START");
    if (is_set(copy) && !(statistics->copy = strdup(copy))) fail(EXIT_REFUSED, copy, strerror(errno));
    statistics->copy_starts = is_set(starts);
    statistics->lines = path;
    snprintf(path, PATH_MAX, "%s/hakrun-XXXXXX", dir && *dir == '/' && strlen(dir) < PATH_MAX / 2 ? dir : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0) fail(EXIT_REFUSED, path, strerror(errno));
    close(fd);
    setenv("HAKMEM_STATS_FILE", path, 1);
    setenv("HAKMEM_STATS_START", "1", 1);
}

/* Ends as the program did; without a core file of its own. */
static _Noreturn void end_like(int status, const sigset_t *all) {
    if (!WIFSIGNALED(status)) exit(WEXITSTATUS(status));
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    signal(WTERMSIG(status), SIG_DFL);
    sigprocmask(SIG_UNBLOCK, all, NULL);
    raise(WTERMSIG(status));
    exit(128 + WTERMSIG(status));
}

static _Noreturn void run_with_stats(const struct options *o, char **argv) {
    char lines[PATH_MAX];
    struct statistics statistics = {0};
    sigset_t all;
    struct rusage r;
    FILE *out = o->output ? fopen(o->output, "we") : stderr;
    if (!out) fail(EXIT_REFUSED, o->output, strerror(errno));
    if (!o->libc) make_lines_file(lines, &statistics);
    sigfillset(&all);
    double begin = seconds_now();
    int status = wait_program(start(argv, &all), &all);
    struct usage usage = {.wall = seconds_now() - begin, .still_running = wait_rest(&all)};
    getrusage(RUSAGE_CHILDREN, &r);
    usage.user = seconds(r.ru_utime);
    usage.system = seconds(r.ru_stime);
    usage.peak_rss = (uint64_t)r.ru_maxrss * 1024;
    summary_print(out, o->json, base_name(argv[0]), &statistics, &usage);
    if (!o->libc) unlink(lines);
    if (o->output && fclose(out) != 0) say("%s: %s", o->output, strerror(errno));
    end_like(status, &all);
}

int main(int argc, char **argv) {
    struct options options = {0};
    parse_options(&options, argc, argv);
    prepare(&options, argv[optind]);
    if (options.stats) run_with_stats(&options, argv + optind);
    become(argv + optind);
}
