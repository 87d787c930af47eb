/* What the tests of the L2.5 pool and of BigCache share: options, the lines that were logged, failing system calls,
 * random figures. */
#ifndef TESTS_SUPPORT_STORES_H
#define TESTS_SUPPORT_STORES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/options.h"
#include "base/sys.h"
#include "pages/region.h"

#define STORES_UNUSED __attribute__((unused))
#define set_option(name, value) hak_store_rlx(&hak_options.name, value)

static STORES_UNUSED uint64_t next_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* ---- what goes to stderr between these two ---- */

static int stderr_saved = -1, stderr_file;

static STORES_UNUSED void capture_stderr(void) {
    stderr_saved = dup(2);
    stderr_file = memfd_create("stderr", 0);
    assert_true(stderr_file >= 0 && dup2(stderr_file, 2) == 2);
}

static STORES_UNUSED void captured_stderr(char *text, size_t size) {
    ssize_t length = pread(stderr_file, text, size - 1, 0);
    text[length < 0 ? 0 : length] = '\0';
    dup2(stderr_saved, 2);
    close(stderr_saved);
    close(stderr_file);
    stderr_saved = -1;
}

/* For a teardown: a test that failed in between still gets to say why. */
static STORES_UNUSED void end_capture(void) {
    char text[4096];
    if (stderr_saved < 0) {
        return;
    }
    captured_stderr(text, sizeof text);
    fputs(text, stderr);
}

/* ---- failing system calls ---- */

/* The call that fails, counted from 1 (0: none), then the ones behind it too where `fault_lasts`. */
static unsigned fault_at, fault_calls;
static bool fault_lasts;
/* Only calls of this kind count; -1: all. */
static int fault_kind = -1;

static STORES_UNUSED int fault_hook(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    if (fault_kind >= 0 && (int)call != fault_kind) {
        return 0;
    }
    fault_calls++;
    return fault_at != 0 && (fault_calls == fault_at || (fault_lasts && fault_calls > fault_at)) ? 12 : 0;
}

static STORES_UNUSED void set_faults(unsigned at, bool lasts, int kind) {
    fault_at = at;
    fault_calls = 0;
    fault_lasts = lasts;
    fault_kind = kind;
    hak_sys_set_fault_for_test(at == 0 ? NULL : fault_hook);
}

/* ---- content ---- */

static STORES_UNUSED bool is_zero(const void *ptr, size_t bytes) {
    const char *at = ptr;
    return bytes == 0 || (at[0] == 0 && memcmp(at, at + 1, bytes - 1) == 0);
}

/* A block that carries its own address: whoever finds it knows whether it is what it was. */
static STORES_UNUSED void stamp(void *ptr) {
    uintptr_t word = (uintptr_t)ptr;
    memcpy(ptr, &word, sizeof word);
}

static STORES_UNUSED bool is_stamped(const void *ptr) {
    uintptr_t word;
    memcpy(&word, ptr, sizeof word);
    return word == (uintptr_t)ptr;
}

/* Writes to the first and last word of each page, so that the pages are dirty and marked. */
static STORES_UNUSED void mark(void *ptr, size_t bytes, uint64_t seed) {
    for (size_t at = 0; at < bytes; at += 4096) {
        uint64_t word = seed + at;
        memcpy((char *)ptr + at, &word, sizeof word);
        memcpy((char *)ptr + at + 4096 - sizeof word, &word, sizeof word);
    }
}

static STORES_UNUSED bool is_marked(const void *ptr, size_t bytes, uint64_t seed) {
    for (size_t at = 0; at < bytes; at += 4096) {
        uint64_t first, last;
        memcpy(&first, (const char *)ptr + at, sizeof first);
        memcpy(&last, (const char *)ptr + at + 4096 - sizeof last, sizeof last);
        if (first != seed + at || last != seed + at) {
            return false;
        }
    }
    return true;
}

static STORES_UNUSED void *descriptor_of(const void *ptr) { return hak_region_lookup(ptr).descriptor; }

#endif
