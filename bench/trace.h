/* A recorded trace: what bench/trace_record.c writes and bench/trace_replay.c reads. Three streams lie behind the
 * header, apart from each other because they compress better so: a byte per call (kind, and the logarithm of an
 * alignment), the sizes, and the ages of the blocks that are freed or resized. An age says how many blocks were
 * allocated since. Sizes and ages are numbers of seven bits per byte, the lowest first; a set top bit says that more
 * follow. */
#ifndef HAK_BENCH_TRACE_H
#define HAK_BENCH_TRACE_H

#include <stdint.h>

#define TRACE_MAGIC "hakmem trace 1\n"
enum trace_stream { TRACE_CALLS, TRACE_SIZES, TRACE_AGES, TRACE_STREAMS };
struct trace_header {
    char magic[16];
    uint32_t calls, blocks;
    uint32_t bytes[TRACE_STREAMS];
};
enum trace_kind { TRACE_MALLOC, TRACE_CALLOC, TRACE_ALIGNED, TRACE_REALLOC, TRACE_FREE };
#define TRACE_KIND_BITS 3

#endif
