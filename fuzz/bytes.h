/* A reader of input bytes for the targets of single units: a header of bytes that choose options, then operations of
 * eight bytes. Behind the end everything is zero. */
#ifndef FUZZ_BYTES_H
#define FUZZ_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FUZZ_UNIT_OPS 512 /* further ones are left out: an input takes milliseconds */

struct fuzz_bytes {
    const uint8_t *at, *end;
};

static inline uint8_t fuzz_byte(struct fuzz_bytes *in) { return in->at < in->end ? *in->at++ : 0; }

/* The choice that a byte makes among `count` values. */
static inline uint64_t fuzz_choose(struct fuzz_bytes *in, const uint64_t *values, size_t count) {
    return values[fuzz_byte(in) % count];
}
#define FUZZ_CHOOSE(in, ...)                                                                                           \
    fuzz_choose(in, (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

/* False at the end. */
static inline bool fuzz_word(struct fuzz_bytes *in, uint64_t *word) {
    if (in->at >= in->end) return false;
    *word = 0;
    for (unsigned shift = 0; shift < 64; shift += 8) *word |= (uint64_t)fuzz_byte(in) << shift;
    return true;
}

#endif
