/* Misuse of the interface: a child does it, and must end by SIGABRT after exactly one line that names the function,
 * the pointer and the kind.
 *
 * The checked build must say so within the call itself. The default build may accept a misuse of a small block at
 * first; it must then be found when the thread's cache is flushed, and the line says that it was found only then.
 */
#ifndef API_MISUSE_H
#define API_MISUSE_H

#include "api_child.h"

#include <pthread.h>

#define API_FOUND_LATE " (found when the thread cache was flushed)"

enum api_when {
    AT_ONCE, /* in both builds */
    BY_FLUSH /* at once in the checked build, at the latest when caches are flushed in the default one */
};

/* Marks the call that is wrong: MISUSE(pointer, api.free(pointer)). */
#define MISUSE(wrong, call)                                                                                            \
    do {                                                                                                               \
        api_trace->pointer = (void *)(wrong);                                                                          \
        api_trace->step = 1;                                                                                           \
        call;                                                                                                          \
        api_trace->step = 2;                                                                                           \
    } while (0)

static inline void *api_nothing(void *argument) { return argument; }

/* Runs `body` in another thread, to its end. */
static inline void api_in_thread(void *(*body)(void *), void *argument) {
    pthread_t thread;
    api_child_check(pthread_create(&thread, NULL, body, argument) == 0);
    pthread_join(thread, NULL);
}

/* What follows the misuse: whatever was put off must be found here. */
static inline void api_flush_everything(void) {
    api_flush();
    api_purge();
    api_in_thread(api_nothing, NULL);
    api_flush();
}

struct api_misuse {
    const char *name;
    void (*body)(void *);
    void *argument;
    const char *function;
    const char *kind;
    enum api_when when;
};

static void api_misuse_main(void *argument) {
    const struct api_misuse *misuse = argument;
    misuse->body(misuse->argument);
    api_flush_everything();
}

/* Returns what is wrong with how the child ended, or NULL. */
static inline const char *api_misuse_judge(const struct api_child *child, const char *function, const char *kind,
                                           enum api_when when) {
    char late[256];
    bool must_be_at_once = when == AT_ONCE || api_build == API_CHECKED;
    snprintf(late, sizeof late, "%s%s", kind, API_FOUND_LATE);
    if (!WIFSIGNALED(child->status) || WTERMSIG(child->status) != SIGABRT) {
        return child->trace.step == 2 ? "was not found" : "did not end by SIGABRT";
    }
    if (child->trace.step != 1 && must_be_at_once) {
        return "was found only after the call had returned";
    }
    if (api_child_said(child, function, kind)) {
        return child->trace.step == 1 ? NULL : "was found late, but the line does not say so";
    }
    if (!must_be_at_once && (api_child_said(child, function, late) || api_child_said(child, "free", late))) {
        return NULL;
    }
    return "was reported in other words";
}

/* The default build may name `or_function` instead, if not NULL: forms that share a path. Returns whether the misuse
 * was found at once. */
static inline bool api_assert_misuse_is_found_as(struct api_misuse misuse, const char *or_function) {
    struct api_child child = api_run_child(api_misuse_main, &misuse);
    const char *wrong = api_misuse_judge(&child, misuse.function, misuse.kind, misuse.when);
    if (wrong && or_function && api_build == API_DEFAULT) {
        wrong = api_misuse_judge(&child, or_function, misuse.kind, misuse.when);
    }
    if (wrong) {
        fail_msg("%s: %s(%p): \"%s\" %s; wait status 0x%x, step %d, stderr \"%s\"", misuse.name, misuse.function,
                 child.trace.pointer, misuse.kind, wrong, (unsigned)child.status, child.trace.step, child.text);
    }
    return child.trace.step == 1;
}

static inline bool api_assert_misuse_is_found(struct api_misuse misuse) {
    return api_assert_misuse_is_found_as(misuse, NULL);
}

/* One of several ways to the same misuse, and the function that its line names. */
struct api_way {
    const char *function;
    void (*body)(void *);
};

/* Each of the ways, with the same argument about a block of `size` bytes, is reported at once as `kind`. */
static inline void api_assert_each_way_is_found(const struct api_way *ways, size_t count, void *argument, size_t size,
                                                const char *kind) {
    for (size_t w = 0; w < count; w++) {
        char name[64];
        snprintf(name, sizeof name, "way %zu, %zu bytes", w, size);
        api_assert_misuse_is_found((struct api_misuse){name, ways[w].body, argument, ways[w].function, kind, AT_ONCE});
    }
}

#endif
