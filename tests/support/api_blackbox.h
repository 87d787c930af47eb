/* What every black-box test of the interface shares: the functions under test, and the facts of the run.
 *
 * The functions are looked up by name at run time, so that no compiler can see through a call and drop or fold
 * it. There are two sets: the libc names and the same with hak_ before them. A test that is cheap runs on both
 * (api_each), the others on the libc names. HAK_EXPECT (default, checked) says which library must be serving;
 * without it the tests run on whatever malloc there is, which shows that the tests themselves are right.
 */
#ifndef API_BLACKBOX_H
#define API_BLACKBOX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/* cmocka.h needs the first four before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hakmem.h"

#define API_FUNCTIONS(X)                                                                                               \
    X(void *, malloc, (size_t))                                                                                        \
    X(void *, calloc, (size_t, size_t))                                                                                \
    X(void *, realloc, (void *, size_t))                                                                               \
    X(void *, reallocarray, (void *, size_t, size_t))                                                                  \
    X(void, free, (void *))                                                                                            \
    X(void, cfree, (void *))                                                                                           \
    X(void, free_sized, (void *, size_t))                                                                              \
    X(void, free_aligned_sized, (void *, size_t, size_t))                                                              \
    X(void *, aligned_alloc, (size_t, size_t))                                                                         \
    X(int, posix_memalign, (void **, size_t, size_t))                                                                  \
    X(void *, memalign, (size_t, size_t))                                                                              \
    X(void *, valloc, (size_t))                                                                                        \
    X(void *, pvalloc, (size_t))                                                                                       \
    X(size_t, malloc_usable_size, (void *))                                                                            \
    X(int, malloc_trim, (size_t))                                                                                      \
    X(int, mallopt, (int, int))

#define API_EXTRAS(X)                                                                                                  \
    X(size_t, good_size, (size_t))                                                                                     \
    X(struct hak_sized_ptr, malloc_at_least, (size_t))                                                                 \
    X(void *, rezalloc, (void *, size_t))                                                                              \
    X(int, is_owned, (const void *))                                                                                   \
    X(void, thread_flush, (void))                                                                                      \
    X(size_t, purge, (void))                                                                                           \
    X(const char *, version, (void))

#define API_FIELD(type, name, args) type(*name) args;
struct api {
    const char *prefix;
    API_FUNCTIONS(API_FIELD)
};
struct api_extras {
    API_EXTRAS(API_FIELD)
};
#undef API_FIELD

enum api_build { API_ANY, API_DEFAULT, API_CHECKED };

static struct api api;           /* the libc names */
static struct api api_prefixed;  /* hak_malloc ... */
static struct api_extras hak;    /* what only hakmem has; null on another malloc */
static enum api_build api_build; /* which library HAK_EXPECT promised */
static bool api_soak;            /* long forms wanted */

/* for (each set of functions there is) */
#define api_each(it) for (const struct api *it = &api; it; it = (it == &api && hak.version) ? &api_prefixed : NULL)

#define API_COUNT(array) (sizeof(array) / sizeof((array)[0]))

static inline void api_bail(const char *why, const char *what) {
    printf("Bail out! %s%s\n", why, what);
    exit(1);
}

static inline void api_bind(void *slot, const char *prefix, const char *name, bool required) {
    char symbol[64];
    snprintf(symbol, sizeof symbol, "%s%s", prefix, name);
    void *function = dlsym(RTLD_DEFAULT, symbol);
    if (!function && required) {
        api_bail("not exported: ", symbol);
    }
    memcpy(slot, &function, sizeof function);
}

static inline void api_bind_all(bool required) {
#define API_LIBC(type, name, args) api_bind(&api.name, "", #name, required);
#define API_HAK(type, name, args) api_bind(&api_prefixed.name, "hak_", #name, required);
#define API_EXTRA(type, name, args) api_bind(&hak.name, "hak_", #name, required);
    api.prefix = "";
    api_prefixed.prefix = "hak_";
    API_FUNCTIONS(API_LIBC)
    API_FUNCTIONS(API_HAK)
    API_EXTRAS(API_EXTRA)
#undef API_LIBC
#undef API_HAK
#undef API_EXTRA
}

/* Call first in main(). Ends the program if the library that HAK_EXPECT names is not the one that serves. */
static inline void api_start(void) {
    const char *expect = getenv("HAK_EXPECT");
    api_soak = getenv("HAK_SOAK") != NULL;
    setvbuf(stdout, NULL, _IOLBF, 4096);
    api_bind_all(expect != NULL);
    if (expect) {
        api_build = strcmp(expect, "checked") == 0 ? API_CHECKED : API_DEFAULT;
        bool checked = strstr(hak.version(), "-checked") != NULL;
        if (checked != (api_build == API_CHECKED)) {
            api_bail("wrong library: ", hak.version());
        }
        void *block = api.malloc(100);
        if (!hak.is_owned(block) || hak.is_owned(&block)) {
            api_bail("malloc is not hakmem's", "");
        }
        api.free(block);
    }
    cmocka_set_message_output(CM_OUTPUT_TAP);
}

/* Leaves a test that has no meaning here: outside hakmem, or in the other build. (cmocka's skip() prints "not ok".) */
#define api_need(condition)                                                                                            \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("# %s does not apply: it needs %s\n", __func__, #condition);                                        \
            return;                                                                                                    \
        }                                                                                                              \
    } while (0)

static inline void api_flush(void) {
    if (hak.thread_flush) {
        hak.thread_flush();
    }
}

static inline void api_purge(void) {
    if (hak.purge) {
        hak.purge();
    }
}

static inline bool api_aligned(const void *pointer, size_t alignment) {
    return ((uintptr_t)pointer & (alignment - 1)) == 0;
}

/* The process's own numbers, read without stdio so that reading them allocates nothing. */
#include <fcntl.h>
static inline size_t api_statm(int field) {
    char text[128] = "";
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    char *at = text;
    for (int i = 0; length > 0 && i < field; i++) {
        at = strchr(at, ' ') + 1;
    }
    return strtoul(at, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

static inline size_t api_address_space(void) { return api_statm(0); }

static inline size_t api_rss(void) { return api_statm(1); }

/* Zeroed memory for a test's own books, from the system. */
#include <sys/mman.h>
static inline void *api_books(size_t bytes) {
    void *books = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (books == MAP_FAILED) {
        api_bail("no memory for the test's books", "");
    }
    memset(books, 0, bytes);
    return books;
}

#endif
