/* Finds the block of an address and prints what is known of it (explain.h), at the end of each report of ASan and after
 * each line about misuse. */
#include "api/explain.h"

#if HAK_TRACE

#include "api/guard.h"
#include "api/trace.h"
#include "base/annotate.h"
#include "base/log.h"
#include "stores/slab.h"

#define STDERR 2
/* So many blocks are looked at for one that was served. */
#define NEIGHBOURS 64

/* As the last bytes of a block they are poisoned, so only functions without instrumentation may touch them. */
struct history {
    uint64_t size;
    uint32_t allocated, freed; /* stacks; freed: 0 while the block lives */
};
static_assert(sizeof(struct history) <= HAK_EXACT_SLACK, "fits behind every block");

static struct history *history_of(void *ptr, size_t given) {
    return (struct history *)(void *)((char *)ptr + given) - 1;
}

HAK_NO_ASAN void hak_explain_alloc(void *ptr, size_t size, size_t given) {
    struct history *history = history_of(ptr, given);
    history->size = size;
    history->allocated = hak_trace_here();
    history->freed = 0;
}

HAK_NO_ASAN void hak_explain_free(void *ptr, size_t given) { history_of(ptr, given)->freed = hak_trace_here(); }

HAK_NO_ASAN static struct history read_history(const struct history *history) {
    return (struct history){.size = history->size, .allocated = history->allocated, .freed = history->freed};
}

/* ---- which block --------------------------------------------------------------------------------------- */

/* A block of the larger layers starts in one of the granules before. */
static const char *start_of_large(const void *ptr, const struct hak_region *region) {
    const char *at = (const char *)((uintptr_t)ptr & ~(HAK_GRANULE - 1));
    while (hak_region_lookup(at).descriptor == region->descriptor) {
        size_t given = hak_guard_given(at);
        if (given != 0) return (const char *)ptr < at + given ? at : NULL;
        at -= HAK_GRANULE;
    }
    return NULL;
}

/* The start of the block whose memory `ptr` is in; NULL: none. */
static const char *start_of(const void *ptr) {
    struct hak_region region = hak_region_lookup(ptr);
    if (region.owner == 0) {
        bool large = region.kind == HAK_KIND_L25 || region.kind == HAK_KIND_BIG;
        return large ? start_of_large(ptr, &region) : NULL;
    }
    const struct hak_slab *slab = region.descriptor;
    size_t index = (size_t)((const char *)ptr - slab->base) / slab->block_bytes;
    return index < slab->blocks ? slab->base + index * slab->block_bytes : NULL;
}

/* ---- the text ------------------------------------------------------------------------------------------ */

static void where(struct hak_text *text, const char *ptr, const char *start, size_t size) {
    hak_text_hex(text, (uintptr_t)ptr);
    hak_text_str(text, " is ");
    if (ptr < start) {
        hak_text_u64(text, (size_t)(start - ptr));
        hak_text_str(text, " bytes before");
    } else {
        size_t at = (size_t)(ptr - start);
        hak_text_u64(text, at < size ? at : at - size);
        hak_text_str(text, at < size ? " bytes inside" : " bytes after");
    }
}

static void print_part(const char *title, uint32_t trace) {
    if (trace == 0) return;
    struct hak_text text = {.used = 0};
    hak_text_str(&text, title);
    hak_text_line(&text, STDERR);
    hak_trace_print(trace);
}

static void print_block(const char *ptr, const char *start, const struct history *history) {
    struct hak_text text = {.used = 0};
    hak_text_head(&text);
    where(&text, ptr, start, history->size);
    hak_text_str(&text, history->freed != 0 ? " a freed block of " : " a block of ");
    hak_text_u64(&text, history->size);
    hak_text_str(&text, " bytes at ");
    hak_text_hex(&text, (uintptr_t)start);
    hak_text_line(&text, STDERR);
    print_part("freed here:", history->freed);
    print_part(history->freed != 0 ? "previously allocated here:" : "allocated here:", history->allocated);
}

/* Reads the history of the block at `start`. False: it never had one. What is left there of an earlier block of another
 * size, or was purged, is no history of this one. */
static bool has_history(const char *start, struct history *history) {
    size_t given = hak_guard_given(start);
    if (given < HAK_EXACT_SLACK) return false;
    *history = read_history(history_of((void *)(uintptr_t)start, given));
    return history->allocated != 0 && hak_trace_is_known(history->allocated) && hak_trace_is_known(history->freed) &&
           history->size <= given - HAK_EXACT_SLACK;
}

/* Of an address in the slack between two blocks, the block that is nearer; in memory that was never served, a block
 * before it. */
static void explain(const void *ptr) {
    const char *at = ptr, *start = start_of(ptr);
    struct history history, behind;
    for (int i = 0; i < NEIGHBOURS && start != NULL && !has_history(start, &history); i++) start = start_of(start - 1);
    if (start == NULL || !has_history(start, &history)) return;
    const char *end = start + history.size, *next = start_of(start + hak_guard_given(start));
    if (next > at && at >= end && next - at <= at - end && has_history(next, &behind)) print_block(at, next, &behind);
    else print_block(at, start, &history);
}

/* After the line about a misuse, which names no place. */
static void explain_misuse(const void *ptr) {
    print_part("found here:", hak_trace_here());
    explain(ptr);
}

__attribute__((constructor(101))) static void start(void) {
    hak_annotate_on_report(explain);
    hak_misuse_explain = explain_misuse;
}

#endif
