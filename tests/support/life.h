/* What the life-cycle, thread and operating-system black-box tests share: stamped blocks, a table through which
 * threads exchange them, exact memory figures, children with a bound on hangs.
 *
 * The tests know only the C interface and call it through volatile pointers, because a compiler may remove what
 * is tested. They run with the library preloaded; HAK_EXPECT (default or checked) says which one must be there.
 * HAK_SOAK=1 runs the long figures. Nothing here allocates through malloc behind a test's back. */
#ifndef TESTS_SUPPORT_LIFE_H
#define TESTS_SUPPORT_LIFE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#ifndef LIFE_HANG_SECONDS
#define LIFE_HANG_SECONDS 120 /* a bound on hangs, not a speed limit */
#endif
#define LIFE_MIB ((size_t)1 << 20)
#define LIFE_UNUSED __attribute__((unused))

static void *(*volatile v_malloc)(size_t)LIFE_UNUSED = malloc;
static void *(*volatile v_calloc)(size_t, size_t)LIFE_UNUSED = calloc;
static void *(*volatile v_realloc)(void *, size_t)LIFE_UNUSED = realloc;
static int (*volatile v_posix_memalign)(void **, size_t, size_t) LIFE_UNUSED = posix_memalign;
static void (*volatile v_free)(void *) LIFE_UNUSED = free;

/* ---- which library, which length ---- */

/* What `make test` says about the library: "default" or "checked"; NULL when the program runs on anything else. */
static inline const char *life_expectation(void) { return getenv("HAK_EXPECT"); }

static inline bool life_checked(void) {
    const char *expect = life_expectation();
    return expect != NULL && strcmp(expect, "checked") == 0;
}

/* `quick` in `make test`, `full` (the figure of the acceptance table) with HAK_SOAK=1. */
static inline size_t life_scale(size_t quick, size_t full) {
    const char *soak = getenv("HAK_SOAK");
    return soak != NULL && strcmp(soak, "1") == 0 ? full : quick;
}

/* Group set-up: bounds hangs of the whole program, and makes sure that it runs on the library that HAK_EXPECT
 * names, or every result is void. */
static inline int life_setup(void **state) {
    (void)state;
    alarm((unsigned)life_scale(3 * LIFE_HANG_SECONDS, 120 * LIFE_HANG_SECONDS));
    if (life_expectation() == NULL) {
        return 0;
    }
    const char *(*version)(void) = NULL;
    *(void **)&version = dlsym(RTLD_DEFAULT, "hak_version");
    Dl_info ours;
    Dl_info used;
    if (version == NULL || dladdr(*(void **)&version, &ours) == 0 ||
        dladdr(dlsym(RTLD_DEFAULT, "malloc"), &used) == 0 || ours.dli_fbase != used.dli_fbase) {
        print_error("malloc is not hakmem's\n");
        return 1;
    }
    if ((strstr(version(), "-checked") != NULL) != life_checked()) {
        print_error("HAK_EXPECT is %s, the library is %s\n", life_expectation(), version());
        return 1;
    }
    return 0;
}

/* ---- figures of this process ---- */

/* Calls `line` for every line of a /proc file; reads through a buffer on the stack. */
static inline void life_each_line(const char *path, void (*line)(const char *text, void *arg), void *arg) {
    char buffer[4096];
    size_t used = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        abort();
    }
    for (;;) {
        ssize_t got = read(fd, buffer + used, sizeof(buffer) - 1 - used);
        if (got <= 0) {
            break;
        }
        used += (size_t)got;
        buffer[used] = '\0';
        char *start = buffer;
        for (char *end; (end = strchr(start, '\n')) != NULL; start = end + 1) {
            *end = '\0';
            line(start, arg);
        }
        used -= (size_t)(start - buffer);
        memmove(buffer, start, used);
    }
    close(fd);
}

struct life_field {
    const char *name;
    size_t kib;
};

static inline void life_field_line(const char *text, void *arg) {
    struct life_field *field = arg;
    size_t length = strlen(field->name);
    if (strncmp(text, field->name, length) == 0 && text[length] == ':') {
        field->kib = strtoul(text + length + 1, NULL, 10);
    }
}

static inline size_t life_proc_bytes(const char *path, const char *name) {
    struct life_field field = {.name = name, .kib = 0};
    life_each_line(path, life_field_line, &field);
    return field.kib * 1024;
}

/* Resident bytes, exact (statm and status lag behind by up to some hundred KiB). */
static inline size_t life_rss(void) { return life_proc_bytes("/proc/self/smaps_rollup", "Rss"); }

static inline void life_count_line(const char *text, void *arg) {
    (void)text;
    ++*(size_t *)arg;
}

static inline size_t life_mappings(void) {
    size_t lines = 0;
    life_each_line("/proc/self/maps", life_count_line, &lines);
    return lines;
}

static inline size_t life_growth(size_t before, size_t after) { return after > before ? after - before : 0; }

static inline void life_sleep_ms(long ms) {
    struct timespec wait = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&wait, &wait) != 0 && errno == EINTR) {
    }
}

static inline double life_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- random figures ---- */

static inline uint64_t life_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Mostly small, now and then out of every layer, at most `max`. */
static inline size_t life_random_size(uint64_t *state, size_t max) {
    uint64_t pick = life_random(state) % 1000;
    size_t limit = pick < 700   ? 512
                   : pick < 930 ? (size_t)8 << 10
                   : pick < 980 ? (size_t)64 << 10
                   : pick < 998 ? LIFE_MIB
                                : 4 * LIFE_MIB;
    return 16 + life_random(state) % ((limit < max ? limit : max) - 15);
}

/* ---- stamped blocks ---- */

/* A block says its own size at its head and carries marks that depend on its address at head, middle and tail:
 * an overlap, a lost write or a block handed out twice shows when it is dropped. */
static inline uint64_t life_mark(const void *block, size_t at) {
    return ((uintptr_t)block ^ 0x5bd1e995a5a5f00du) + at * 0x9e3779b97f4a7c15u;
}

static inline void life_stamp(void *block, size_t size) {
    uint64_t words[2] = {size, life_mark(block, 0)};
    memcpy(block, words, sizeof(words));
    for (size_t part = 1; size >= 48 && part <= 2; ++part) {
        size_t at = part == 1 ? size / 2 : size - 8;
        uint64_t mark = life_mark(block, at);
        memcpy((char *)block + at, &mark, sizeof(mark));
    }
}

static inline bool life_intact(const void *block) {
    uint64_t words[2];
    memcpy(words, block, sizeof(words));
    if (words[1] != life_mark(block, 0)) {
        return false;
    }
    for (size_t part = 1; words[0] >= 48 && part <= 2; ++part) {
        size_t at = part == 1 ? words[0] / 2 : words[0] - 8;
        uint64_t mark;
        memcpy(&mark, (const char *)block + at, sizeof(mark));
        if (mark != life_mark(block, at)) {
            return false;
        }
    }
    return true;
}

static inline size_t life_size_of(const void *block) {
    uint64_t size;
    memcpy(&size, block, sizeof(size));
    return (size_t)size;
}

/* A stamped block of at least 16 bytes, or NULL. */
static inline void *life_make(size_t size) {
    size = size < 16 ? 16 : size;
    void *block = v_malloc(size);
    if (block != NULL) {
        life_stamp(block, size);
    }
    return block;
}

/* Frees `block` (NULL: nothing); false if it was damaged. The mark is wiped, so that a second drop shows. */
static inline bool life_drop(void *block) {
    if (block == NULL) {
        return true;
    }
    bool intact = life_intact(block);
    memset(block, 0, 16);
    v_free(block);
    return intact;
}

/* One block of each layer and of each way to get one, and all of it back: 0, or the number of the step that
 * failed. */
static inline int life_full_mix(void) {
    static const size_t sizes[] = {16, 100, 1000, 5000, 30000, 70000, 700000, 1500000, 5000000};
    enum { COUNT = sizeof(sizes) / sizeof(sizes[0]) };
    for (int i = 0; i < COUNT; ++i) {
        void *made = life_make(sizes[i]);
        unsigned char *zero = v_calloc(1, sizes[i]);
        void *grown = v_malloc(sizes[i] / 2 + 16);
        void *aligned = NULL;
        if (made == NULL || zero == NULL || grown == NULL || v_posix_memalign(&aligned, 4096, sizes[i]) != 0) {
            return 10 * i + 1;
        }
        if (zero[0] != 0 || zero[sizes[i] / 2] != 0 || zero[sizes[i] - 1] != 0) {
            return 10 * i + 2;
        }
        memset(zero, 0xee, sizes[i] < 100000 ? sizes[i] : 100000);
        memset(grown, 0x33, 16);
        unsigned char *moved = v_realloc(grown, sizes[i] + 1000);
        if (moved == NULL || moved[0] != 0x33 || moved[15] != 0x33 || (uintptr_t)aligned % 4096 != 0) {
            return 10 * i + 3;
        }
        life_stamp(moved, sizes[i]);
        life_stamp(aligned, sizes[i]);
        v_free(zero);
        if (!life_drop(moved) || !life_drop(aligned) || !life_drop(made)) {
            return 10 * i + 4;
        }
    }
    return 0;
}

/* ---- blocks exchanged between threads ---- */

struct life_table {
    _Atomic(void *) *slot;
    size_t slots;
    size_t max_size;
    atomic_size_t failures; /* blocks that were damaged or refused */
    atomic_bool stop;
};

/* The slots lie in a mapping of their own, so that they do not count among what the allocator holds. */
static inline void life_table_open(struct life_table *table, size_t slots, size_t max_size) {
    void *place = mmap(NULL, slots * sizeof(void *), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) {
        abort();
    }
    table->slot = place;
    table->slots = slots;
    table->max_size = max_size;
    atomic_store(&table->failures, 0);
    atomic_store(&table->stop, false);
}

/* Puts a new block in a random slot and frees what was there, whoever made it. */
static inline void life_table_step(struct life_table *table, uint64_t *random) {
    void *block = life_make(life_random_size(random, table->max_size));
    if (block == NULL) {
        atomic_fetch_add(&table->failures, 1);
    }
    void *old = atomic_exchange(&table->slot[life_random(random) % table->slots], block);
    if (!life_drop(old)) {
        atomic_fetch_add(&table->failures, 1);
    }
}

/* Frees what is left; returns the failures of the table's whole life. */
static inline size_t life_table_empty(struct life_table *table) {
    for (size_t i = 0; i < table->slots; ++i) {
        if (!life_drop(atomic_exchange(&table->slot[i], NULL))) {
            atomic_fetch_add(&table->failures, 1);
        }
    }
    return atomic_load(&table->failures);
}

static inline size_t life_table_close(struct life_table *table) {
    size_t failures = life_table_empty(table);
    munmap(table->slot, table->slots * sizeof(void *));
    return failures;
}

/* A thread that steps until the table says stop. */
static inline void *life_table_churn(void *arg) {
    struct life_table *table = arg;
    uint64_t random = (uintptr_t)&random ^ (uint64_t)(uintptr_t)pthread_self();
    while (!atomic_load_explicit(&table->stop, memory_order_relaxed)) {
        life_table_step(table, &random);
    }
    return NULL;
}

static inline void life_start(pthread_t *threads, size_t count, void *(*body)(void *), void *arg) {
    for (size_t i = 0; i < count; ++i) {
        if (pthread_create(&threads[i], NULL, body, arg) != 0) {
            abort();
        }
    }
}

static inline void life_join(const pthread_t *threads, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        pthread_join(threads[i], NULL);
    }
}

/* ---- children ---- */

/* The exit status of `pid`, or minus the signal that killed it (-SIGALRM: it hung). */
static inline int life_wait(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) != pid) {
        if (errno != EINTR) {
            return -1000;
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Runs `body` in a forked child and returns as life_wait() does. */
static inline int life_in_child(int (*body)(void *), void *arg) {
    pid_t pid = fork();
    if (pid == 0) {
        alarm(LIFE_HANG_SECONDS);
        _exit(body(arg));
    }
    return pid < 0 ? -1001 : life_wait(pid);
}

/* Runs this very program afresh with the one argument `mode`, and returns as life_wait() does. The bound on hangs is
 * set by the program itself (life_rerun_mode). */
static inline int life_rerun(const char *mode) {
    extern char **environ;
    char path[] = "/proc/self/exe";
    char text[64];
    snprintf(text, sizeof(text), "%s", mode);
    char *argv[] = {path, text, NULL};
    pid_t pid;
    return posix_spawn(&pid, path, NULL, NULL, argv, environ) == 0 ? life_wait(pid) : -1001;
}

/* The mode that life_rerun() passed, or NULL in the test program proper. A fresh process proves anew that it runs on
 * the expected library: the loader only warns where it cannot preload it. */
static inline const char *life_rerun_mode(int argc, char **argv) {
    if (argc <= 1) {
        return NULL;
    }
    if (life_setup(NULL) != 0) {
        _exit(96);
    }
    alarm(LIFE_HANG_SECONDS);
    return argv[1];
}

/* The directory of support programs and libraries, which lies beside the test programs. */
static inline void life_support_path(char *path, size_t size, const char *name) {
    ssize_t length = readlink("/proc/self/exe", path, size - 1);
    if (length <= 0) {
        abort();
    }
    path[length] = '\0';
    char *slash = strrchr(path, '/') + 1;
    snprintf(slash, size - (size_t)(slash - path), "support/%s", name);
}

#endif
