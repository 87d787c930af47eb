/* The longer annotations (annotate.h). */
#include "base/annotate.h"

#include "base/sync.h"

#if HAK_ASAN
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>

/* Sets shadow bytes. The shadow has no shadow of its own: no instrumentation here, and no call of memset, which is
 * instrumented, and into which a compiler would turn the loops. */
HAK_NO_ASAN static void set_shadow(uintptr_t start, uintptr_t end, unsigned char value) {
    uintptr_t at = start;
    for (; at < end && at % sizeof(uint64_t) != 0; at++) {
        *(unsigned char *)at = value;
        hak_forget_memory();
    }
    for (; end - at >= sizeof(uint64_t); at += sizeof(uint64_t)) {
        *(uint64_t *)at = value * UINT64_C(0x0101010101010101);
        hak_forget_memory();
    }
    for (; at < end; at++) {
        *(unsigned char *)at = value;
        hak_forget_memory();
    }
}

/* The partial granule at each end is left to ASan. */
void hak_annotate_shade(const void *ptr, size_t bytes, enum hak_shade shade) {
    size_t scale, offset;
    __asan_poison_memory_region(ptr, bytes);
    __asan_get_shadow_mapping(&scale, &offset);
    uintptr_t granule = (uintptr_t)1 << scale;
    uintptr_t start = ((uintptr_t)ptr + granule - 1) >> scale, end = ((uintptr_t)ptr + bytes) >> scale;
    if (start < end) set_shadow(start + offset, end + offset, (unsigned char)shade);
}

void hak_annotate_symbolize(uintptr_t pc, const char *format, char *text, size_t bytes) {
    __sanitizer_symbolize_pc((void *)pc, format, text, bytes);
}

static void (*explain)(const void *ptr); /* constant after start */

static void on_report(const char *text) {
    (void)text;
    if (__asan_report_present()) explain(__asan_get_report_address());
}

void hak_annotate_on_report(void (*report)(const void *ptr)) {
    explain = report;
    __asan_set_error_report_callback(on_report);
}

void hak_annotate_root(const void *ptr, size_t bytes) { __lsan_register_root_region(ptr, bytes); }
#endif

#if HAK_VALGRIND
/* Page number and number of pages of each mapping of metadata, 0: no mapping. What does not fit is not known: pointers
 * in it then hide leaks. */
#define MAPPINGS_MAX 4096
#define PAGES_BITS 24
static _Atomic uint64_t mappings[MAPPINGS_MAX];

void hak_annotate_metadata(const void *ptr, size_t bytes, bool mapped) {
    uint64_t entry = (uint64_t)(uintptr_t)ptr >> 12 << PAGES_BITS | bytes >> 12;
    for (size_t i = 0; i < MAPPINGS_MAX; i++) {
        uint64_t expected = mapped ? 0 : entry;
        if (hak_load_rlx(&mappings[i]) == expected && hak_cas_acqrel(&mappings[i], &expected, mapped ? entry : 0))
            return;
    }
}

void hak_annotate_each_metadata(void (*visit)(void *ptr, size_t bytes)) {
    for (size_t i = 0; i < MAPPINGS_MAX; i++) {
        uint64_t entry = hak_load_acq(&mappings[i]);
        if (entry != 0)
            visit((void *)(uintptr_t)(entry >> PAGES_BITS << 12), (entry & (((uint64_t)1 << PAGES_BITS) - 1)) << 12);
    }
}
#endif
