/* Small concurrent programs over the allocator, each for one race that matters. */
#ifndef FUZZ_SCHED_KERNELS_H
#define FUZZ_SCHED_KERNELS_H

#include "sched.h"

struct kernel {
    const char *name, *what;
    void (*setup)(void); /* before the run, by the caller */
    struct sched_program program;
    void (*check)(void); /* after it, besides what holds for all */
};
extern const struct kernel kernels[];
extern const size_t kernel_count;

/* One run of a kernel, from the beginning of the world to the last check. */
void kernel_run(const struct kernel *kernel, const struct sched_config *config);

#endif
