/* The mutator (mutate.c) as AFL++ loads it: a shared library, AFL_CUSTOM_MUTATOR_LIBRARY. */
#include "ops.h"

#include <stdlib.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default")))

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t room, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *one, size_t one_bytes, const uint8_t *other, size_t other_bytes,
                                 uint8_t *out, size_t room, unsigned seed);

PUBLIC void *afl_custom_init(void *afl, unsigned seed);
PUBLIC size_t afl_custom_fuzz(void *data, uint8_t *input, size_t bytes, uint8_t **out, uint8_t *other,
                              size_t other_bytes, size_t room);
PUBLIC void afl_custom_deinit(void *data);

struct mutator {
    unsigned seed;
    uint8_t out[FUZZ_HEADER_BYTES + FUZZ_OPS_MAX * FUZZ_OP_BYTES + FUZZ_SCHEDULE_MAX];
};

void *afl_custom_init(void *afl, unsigned seed) {
    struct mutator *mutator = calloc(1, sizeof *mutator);
    (void)afl;
    if (mutator != NULL) mutator->seed = seed;
    return mutator;
}

/* Every eighth time two inputs are spliced. */
size_t afl_custom_fuzz(void *data, uint8_t *input, size_t bytes, uint8_t **out, uint8_t *other, size_t other_bytes,
                       size_t room) {
    struct mutator *mutator = data;
    unsigned seed = mutator->seed++ * 2654435761U;
    if (room > sizeof mutator->out) room = sizeof mutator->out;
    *out = mutator->out;
    if (other != NULL && mutator->seed % 8 == 0)
        return LLVMFuzzerCustomCrossOver(input, bytes, other, other_bytes, mutator->out, room, seed);
    if (bytes > room) bytes = room;
    memcpy(mutator->out, input, bytes);
    return LLVMFuzzerCustomMutator(mutator->out, bytes, room, seed);
}

void afl_custom_deinit(void *data) { free(data); }
