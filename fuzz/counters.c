/* The counters of the process (counters.h). This file must itself be built without coverage: the compiler would use
 * these two names in it. */
#include "counters.h"

/* Set by the linker around the section of the counters; NULL if there is none. */
extern uint8_t counters_begin[] __asm__("__start___sancov_cntrs") __attribute__((weak, visibility("hidden")));
extern uint8_t counters_end[] __asm__("__stop___sancov_cntrs") __attribute__((weak, visibility("hidden")));

__attribute__((no_sanitize("address"))) void fuzz_counters_save(struct fuzz_counters *shared) {
    size_t count = counters_begin == NULL ? 0 : (size_t)(counters_end - counters_begin);
    shared->used = count < FUZZ_COUNTER_ROOM ? count : FUZZ_COUNTER_ROOM;
    for (size_t i = 0; i < shared->used; i++) shared->bytes[i] = counters_begin[i];
}

__attribute__((no_sanitize("address"))) void fuzz_counters_load(const struct fuzz_counters *shared) {
    for (size_t i = 0; i < shared->used; i++) counters_begin[i] = shared->bytes[i];
}
