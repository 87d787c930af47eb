/* Scheduling points. In a build for controlled schedules (HAK_SCHED) every atomic operation, every system call and
 * every reading of the clock calls the scheduler first, which may let another thread run there; everywhere else a point
 * is nothing. The scheduler is fuzz/sched/; hakmem only declares it. */
#ifndef HAK_BASE_POINT_H
#define HAK_BASE_POINT_H

#include "base/config.h"

/* A place in the source with a point. */
struct hak_point {
    const char *operation, *file;
    uint32_t line;
    bool reads_only;
    bool contended; /* kept by the scheduler: two threads have met here, and one of them wrote */
};

/* The scheduler's. Nobody else calls it or has it. */
void hak_point_reached(struct hak_point *point, const volatile void *object);

#if HAK_SCHED
/* Not in .data: what the scheduler has learned outlives the state of the allocator. */
#define HAK_POINT(name, reads, object)                                                                                 \
    (__extension__({                                                                                                   \
        static struct hak_point hak_here __attribute__((section("hak_points"), used)) = {                              \
            .operation = name, .file = __FILE__, .line = __LINE__, .reads_only = reads};                               \
        hak_point_reached(&hak_here, object);                                                                          \
    }))
/* A point behind the computation of `value`, which may have points of its own; gives the value. */
#define HAK_POINT_THEN(name, reads, object, value)                                                                     \
    (__extension__({                                                                                                   \
        __typeof__(value) hak_value = (value);                                                                         \
        HAK_POINT(name, reads, object);                                                                                \
        hak_value;                                                                                                     \
    }))
#else
#define HAK_POINT(name, reads, object) ((void)0)
#define HAK_POINT_THEN(name, reads, object, value) (value)
#endif

#endif
