/* What the tests of the prefixed interface share: content that tells whose it is, how much work the configuration
 * allows, and pieces of a test that run in a process of their own. They know only hakmem.h, not the allocator. */
#ifndef TESTS_SUPPORT_PREFIXED_H
#define TESTS_SUPPORT_PREFIXED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hakmem.h"
#include "support/child.h"
#include "support/expect.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* These builds remember the requested size: it is the usable size, and there are so many bytes behind it at least. */
#define EXACT (HAK_CHECKED || HAK_ASAN || HAK_MSAN || HAK_VALGRIND)
#define SLACK ((size_t)(HAK_ASAN ? 16 : EXACT))

/* `quick` rounds of work, `times` as many in the long form, a tenth under Valgrind. */
static UNUSED unsigned rounds(unsigned quick, unsigned times) {
    if (getenv("HAK_SOAK") != NULL) return quick * times;
    return HAK_VALGRIND ? (quick + 9) / 10 : quick;
}

/* A size up to 2 MiB, of every layer, small ones most. */
static UNUSED size_t random_size(uint64_t *state) {
    uint64_t bits = next_random(state);
    static const unsigned char shift[16] = {3, 4, 4, 5, 5, 6, 6, 7, 8, 9, 10, 11, 12, 14, 16, 19};
    size_t base = (size_t)2 << shift[bits & 15];
    return (bits >> 8 & 255) == 0 ? MIB + (bits >> 16) % MIB : base + (bits >> 16) % base;
}

/* ---- content: every byte of a small block, of a large one the ends and a byte per page ---- */

static UNUSED unsigned char content_at(uint64_t seed, size_t at) {
    return (unsigned char)((seed + at) * 0x9e3779b97f4a7c15u >> 56);
}

static size_t content_next(size_t at, size_t bytes) {
    if (at < 256 || at + 257 > bytes) return at + 1;
    return at + 4096 < bytes - 256 ? at + 4096 : bytes - 256;
}

static UNUSED void fill(void *ptr, size_t bytes, uint64_t seed) {
    unsigned char *p = hidden(ptr);
    for (size_t at = 0; at < bytes; at = content_next(at, bytes)) p[at] = content_at(seed, at);
}

/* Whether the first `kept` bytes of a block that was filled at `bytes` bytes are still as they were. */
static UNUSED bool keeps(const void *ptr, size_t kept, size_t bytes, uint64_t seed) {
    const unsigned char *p = hidden((void *)(uintptr_t)ptr);
    for (size_t at = 0; at < bytes && at < kept; at = content_next(at, bytes))
        if (p[at] != content_at(seed, at)) return false;
    return true;
}

static UNUSED bool is_filled(const void *ptr, size_t bytes, uint64_t seed) { return keeps(ptr, bytes, bytes, seed); }

static UNUSED bool is_aligned(const void *ptr, size_t alignment) { return ((uintptr_t)ptr & (alignment - 1)) == 0; }

static UNUSED struct hak_stats stats_now(void) {
    struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof stats};
    assert_int_equal(hak_stats_get(&stats), 0);
    return stats;
}

/* ---- processes and threads ---- */

/* A piece of a test that runs in a process of its own: it comes to its end in peace, and says nothing. */
static UNUSED void succeeds_with(void (*body)(void *), void *argument) {
    struct ended ended = run_heard(body, argument);
    assert_string_equal(ended.text, "");
    assert_int_equal(ended.status, 0);
}
static UNUSED void succeeds(void (*body)(void *)) { succeeds_with(body, NULL); }

static UNUSED void start_thread(pthread_t *thread, void *(*body)(void *), void *argument) {
    must(pthread_create(thread, NULL, body, argument) == 0);
}

static UNUSED void run_thread(void *(*body)(void *), void *argument) {
    pthread_t thread;
    start_thread(&thread, body, argument);
    must(pthread_join(thread, NULL) == 0);
}

#endif
