/* The longer annotations (annotate.h). */
#include "base/annotate.h"

#include "base/sync.h"
#include "base/sys.h"

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
/* A mapping of metadata as one word: page number and number of pages; 0: none. */
#define PAGE_SHIFT 12
#define PAGES_BITS 24
#define TABLE_MAPPINGS 4095
/* Where one is full, another follows; none ever goes. */
struct table {
    _Atomic uint64_t mapping[TABLE_MAPPINGS];
    struct table *_Atomic next;
};
static struct table first_table;

/* The table behind a full one; NULL: there is none, and no memory for it. */
static struct table *further_table(struct table *table) {
    struct table *next = hak_load_acq(&table->next); /* pairs with the swap below: its zeroes are visible */
    if (next != NULL) return next;
    struct table *fresh = hak_sys_map(sizeof *fresh);
    if (fresh == NULL || hak_cas_acqrel(&table->next, &next, fresh)) return fresh;
    hak_sys_unmap(fresh, sizeof *fresh);
    return next;
}

/* Puts `to` in the place of a word that is `from`. False: there is none in this table. */
static bool replace(struct table *table, uint64_t from, uint64_t to) {
    for (size_t i = 0; i < TABLE_MAPPINGS; i++) {
        uint64_t expected = from;
        if (hak_load_rlx(&table->mapping[i]) == from && hak_cas_acqrel(&table->mapping[i], &expected, to)) return true;
    }
    return false;
}

void hak_annotate_metadata(const void *ptr, size_t bytes, bool mapped) {
    const uint64_t entry = (uint64_t)(uintptr_t)ptr >> PAGE_SHIFT << PAGES_BITS | bytes >> PAGE_SHIFT;
    struct table *table = &first_table;
    while (table != NULL && !replace(table, mapped ? 0 : entry, mapped ? entry : 0))
        table = mapped ? further_table(table) : hak_load_acq(&table->next); /* pairs with the swap there */
}

void hak_annotate_each_metadata(void (*visit)(void *ptr, size_t bytes)) {
    const uint64_t pages_mask = ((uint64_t)1 << PAGES_BITS) - 1;
    for (struct table *table = &first_table; table != NULL; table = hak_load_acq(&table->next)) /* as above */
        for (size_t i = 0; i < TABLE_MAPPINGS; i++) {
            uint64_t entry = hak_load_acq(&table->mapping[i]);
            if (entry == 0) continue;
            visit((void *)(uintptr_t)(entry >> PAGES_BITS << PAGE_SHIFT), (entry & pages_mask) << PAGE_SHIFT);
        }
}
#endif
