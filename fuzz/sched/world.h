/* The world that the allocator sees under the scheduler: its memory, its clock and its static state, put back to the
 * same beginning before every run, at the same addresses. */
#ifndef FUZZ_SCHED_WORLD_H
#define FUZZ_SCHED_WORLD_H

#include <stddef.h>
#include <stdint.h>

#include "sched.h"

/* Once, at the start of the program: the calling thread gets its heap, and all that there is becomes the beginning. */
void world_init(enum sched_backend backend);
/* Back to the beginning. */
void world_reset(void);
void world_advance_ms(uint64_t ms);
/* Bytes of the world's memory that are mapped now. */
size_t world_mapped_bytes(void);

#endif
