/* libFuzzer's counters of a forked child. What a child executes counts for nothing unless it is handed over: the child
 * saves its counters to memory that it shares with the parent, and the parent loads them before it returns to
 * libFuzzer. Without coverage in the build there are none, and both do nothing. */
#ifndef FUZZ_COUNTERS_H
#define FUZZ_COUNTERS_H

#include <stddef.h>
#include <stdint.h>

#define FUZZ_COUNTER_ROOM 65536

struct fuzz_counters {
    size_t used;
    uint8_t bytes[FUZZ_COUNTER_ROOM];
};

void fuzz_counters_save(struct fuzz_counters *shared);
void fuzz_counters_load(const struct fuzz_counters *shared);

#endif
