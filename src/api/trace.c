/* The depot of stacks (trace.h): a hash table whose chains only grow, so that it needs no lock. */
#include "api/trace.h"

#if HAK_TRACE

#include "base/annotate.h"
#include "base/log.h"
#include "base/sync.h"
#include "pages/meta.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define FRAMES 20
#define BUCKETS 16384
#define CHUNK_TRACES 256
#define CHUNKS 1024
#define TRACES (CHUNKS * CHUNK_TRACES)
/* The number of every stack that found no room. */
#define NOT_KEPT (TRACES + 1)
/* hakmem's own frames are at most so many. */
#define OWN_FRAMES 8
#define STDERR 2

struct trace {
    uint32_t next; /* in the bucket */
    uint32_t frames;
    uintptr_t pc[FRAMES];
};

static struct trace *_Atomic chunks[CHUNKS]; /* of CHUNK_TRACES each */
static _Atomic uint32_t buckets[BUCKETS];    /* the number of the newest trace */
static _Atomic uint32_t count;               /* numbers given */

/* ---- the depot ----------------------------------------------------------------------------------------- */

/* The place of a number, or NULL if there is none. */
static struct trace *trace_at(uint32_t number) {
    struct trace *_Atomic *chunk = &chunks[(number - 1) / CHUNK_TRACES];
    struct trace *traces = hak_load_acq(chunk); /* pairs with the swap below */
    if (traces != NULL) return &traces[(number - 1) % CHUNK_TRACES];
    struct trace *fresh = hak_meta_alloc(CHUNK_TRACES * sizeof *fresh);
    if (fresh == NULL) return NULL;
    if (hak_cas_acqrel(chunk, &traces, fresh)) traces = fresh;
    else hak_meta_free(fresh, CHUNK_TRACES * sizeof *fresh);
    return &traces[(number - 1) % CHUNK_TRACES];
}

static uint32_t bucket_of(const struct trace *trace) {
    uint64_t hash = trace->frames;
    for (uint32_t i = 0; i < trace->frames; i++) hash = (hash ^ trace->pc[i]) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(hash >> 32) % BUCKETS;
}

static bool same(const struct trace *a, const struct trace *b) {
    return a->frames == b->frames && memcmp(a->pc, b->pc, a->frames * sizeof *a->pc) == 0;
}

static uint32_t number_of(const struct trace *trace) {
    _Atomic uint32_t *bucket = &buckets[bucket_of(trace)];
    uint32_t first = hak_load_acq(bucket); /* pairs with the swap below: the traces of the chain are complete */
    for (uint32_t n = first; n != 0; n = trace_at(n)->next)
        if (same(trace_at(n), trace)) return n;
    if (hak_load_rlx(&count) >= TRACES) return NOT_KEPT;
    uint32_t number = hak_add_rlx(&count, 1) + 1;
    struct trace *kept = number <= TRACES ? trace_at(number) : NULL;
    if (kept == NULL) return NOT_KEPT;
    *kept = *trace;
    do kept->next = first;
    while (!hak_cas_acqrel(bucket, &first, number));
    return number;
}

/* ---- stacks -------------------------------------------------------------------------------------------- */

/* Of the calling thread; a program may run on others, where a stack is only as long as hakmem's own part. */
static _Thread_local uintptr_t stack_low, stack_high;

static void find_stack(void) {
    pthread_attr_t attributes;
    void *low = NULL;
    size_t bytes = 0;
    int saved = errno;
    stack_high = 1; /* asked, whatever comes of it */
    if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
        pthread_attr_getstack(&attributes, &low, &bytes);
        pthread_attr_destroy(&attributes);
        stack_low = (uintptr_t)low;
        stack_high = stack_low + bytes;
    }
    errno = saved;
}

static bool is_frame(uintptr_t frame, uintptr_t above) {
    return frame > above && frame >= stack_low && frame + 2 * sizeof(uintptr_t) <= stack_high &&
           frame % sizeof(uintptr_t) == 0;
}

HAK_NOINLINE HAK_NO_ASAN uint32_t hak_trace_here(void) {
    struct trace trace = {.frames = 0};
    if (stack_high == 0) find_stack();
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0), above = 0;
    for (; trace.frames < FRAMES && is_frame(frame, above); frame = *(uintptr_t *)frame) {
        uintptr_t pc = ((uintptr_t *)frame)[1];
        if (pc == 0) break;
        trace.pc[trace.frames++] = pc - 1; /* the call, not what follows it */
        above = frame;
    }
    return number_of(&trace);
}

/* The frame of the public function that was called: the last of ours. */
static uint32_t first_frame(const struct trace *trace) {
    uint32_t first = 0;
    for (uint32_t i = 0; i < trace->frames && i < OWN_FRAMES; i++) {
        char name[64] = "";
        hak_annotate_symbolize(trace->pc[i], "%f", name, sizeof name);
        if (strncmp(name, "hak_", 4) == 0) first = i;
    }
    return first;
}

bool hak_trace_is_known(uint32_t number) {
    return number == NOT_KEPT || (number <= TRACES && number <= hak_load_rlx(&count));
}

static void print_line(const char *line) {
    struct hak_text text = {.used = 0};
    hak_text_str(&text, line);
    hak_text_line(&text, STDERR);
}

void hak_trace_print(uint32_t number) {
    if (number == 0 || !hak_trace_is_known(number)) return;
    if (number == NOT_KEPT) {
        print_line("    (not kept: there is no room for more stacks)");
        return;
    }
    const struct trace *trace = trace_at(number);
    uint32_t first = first_frame(trace);
    for (uint32_t i = first; i < trace->frames; i++) {
        struct hak_text text = {.used = 0};
        char frame[HAK_TEXT_BYTES - 16] = "";
        hak_annotate_symbolize(trace->pc[i], " %p %F %L", frame, sizeof frame);
        hak_text_str(&text, "    #");
        hak_text_u64(&text, i - first);
        hak_text_str(&text, frame);
        hak_text_line(&text, STDERR);
    }
}

#endif
