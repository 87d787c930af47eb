/* What white-box tests and fuzz targets share: options, failing system calls, blocks that tell whose they are. */
#ifndef TESTS_SUPPORT_WHITEBOX_H
#define TESTS_SUPPORT_WHITEBOX_H

#include "support/expect.h"
#include "support/inside.h"

#include "base/sys.h"
#include "pages/region.h"

/* ---- failing system calls ---- */

/* The call that fails, counted from 1 (0: none), then the ones behind it too where `fault_lasts`; how many did. */
static unsigned fault_at, fault_calls, faults_seen;
static bool fault_lasts;
/* Only calls of this kind count; -1: all. */
static int fault_kind = -1;

static UNUSED int fault_hook(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    if (fault_kind >= 0 && (int)call != fault_kind) {
        return 0;
    }
    fault_calls++;
    if (fault_calls != fault_at && !(fault_lasts && fault_calls > fault_at)) return 0;
    faults_seen++;
    return 12;
}

static UNUSED void set_faults(unsigned at, bool lasts, int kind) {
    fault_at = at;
    fault_calls = faults_seen = 0;
    fault_lasts = lasts;
    fault_kind = kind;
    hak_sys_set_fault_for_test(at == 0 ? NULL : fault_hook);
}

/* ---- content ---- */

/* A block that carries its own address: whoever finds it knows whether it is what it was. */
static UNUSED void stamp(void *ptr) {
    uintptr_t word = (uintptr_t)ptr;
    memcpy(ptr, &word, sizeof word);
}

static UNUSED bool is_stamped(const void *ptr) {
    uintptr_t word;
    memcpy(&word, ptr, sizeof word);
    return word == (uintptr_t)ptr;
}

/* Writes to the first and last word of each page, so that the pages are dirty and marked. */
static UNUSED void mark(void *ptr, size_t bytes, uint64_t seed) {
    for (size_t at = 0; at < bytes; at += 4096) {
        uint64_t word = seed + at;
        memcpy((char *)ptr + at, &word, sizeof word);
        memcpy((char *)ptr + at + 4096 - sizeof word, &word, sizeof word);
    }
}

static UNUSED bool is_marked(const void *ptr, size_t bytes, uint64_t seed) {
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

static UNUSED void *descriptor_of(const void *ptr) { return hak_region_lookup(ptr).descriptor; }

#endif
