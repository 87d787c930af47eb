/* What tests and fuzz targets share that knows neither cmocka nor the allocator: expectations of models, random
 * figures, content. */
#ifndef TESTS_SUPPORT_EXPECT_H
#define TESTS_SUPPORT_EXPECT_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNUSED __attribute__((unused))
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A contradicted model says where, and ends the process by SIGABRT: a failed test for cmocka, a finding for a fuzzer.
 */
#define expect(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "# %s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                                  \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Of integers and pointers; says what the two are. */
#define expect_equal(a, b) expect_same((uint64_t)(a), (uint64_t)(b), #a " == " #b, __FILE__, __LINE__)

static UNUSED void expect_same(uint64_t a, uint64_t b, const char *text, const char *file, int line) {
    if (a == b) return;
    fprintf(stderr, "# %s:%d: failed: %s: %" PRIu64 ", %" PRIu64 " (0x%" PRIx64 ", 0x%" PRIx64 ")\n", file, line, text,
            a, b, a, b);
    abort();
}

/* Not the C library's: rand() has a lock, and with it an order that could hide a race. */
static UNUSED uint64_t next_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The same pointer, of which the compiler knows no size: what is used may be more than what was asked for. */
static UNUSED void *hidden(void *ptr) {
    __asm__ volatile("" : "+r"(ptr));
    return ptr;
}

/* The bytes as a text that ends where they do, or at the first NUL; the caller frees it. */
static UNUSED char *text_of(const void *bytes, size_t length) {
    char *text = malloc(length + 1);
    expect(text != NULL);
    memcpy(text, bytes, length);
    text[length] = '\0';
    return text;
}

static UNUSED bool is_zero(const void *ptr, size_t bytes) {
    const char *at = hidden((void *)(uintptr_t)ptr);
    return bytes == 0 || (at[0] == 0 && memcmp(at, at + 1, bytes - 1) == 0);
}

#endif
