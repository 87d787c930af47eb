/* build: -shared -fPIC */
/* Records the calls that a program makes to malloc and its kin, for trace_replay:
 *   HAK_TRACE=FILE LD_PRELOAD=build/release/bench/trace_record PROGRAM...
 * Only the first process records: FILE must not exist before. The C library serves the program; which thread called is
 * not kept. What is recorded waits in mappings of this library, reserved at the first call, and is written at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "trace.h"

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *ptr, size_t bytes);
extern void *__libc_memalign(size_t alignment, size_t bytes);
extern void __libc_free(void *ptr);

#define STREAM_BYTES ((size_t)1 << 31)
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* over all below, and over each call with its record */
static struct trace_header header = {.magic = TRACE_MAGIC};
static unsigned char *streams[TRACE_STREAMS];
static bool stopped;
static int output = -1;
static pid_t recorded;

static void *reserve(size_t bytes) {
    void *ptr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return ptr == MAP_FAILED ? NULL : ptr;
}

static void put_byte(enum trace_stream stream, unsigned byte) {
    if (streams[stream] == NULL) streams[stream] = reserve(STREAM_BYTES);
    if (streams[stream] == NULL || header.bytes[stream] == STREAM_BYTES) {
        stopped = true;
        return;
    }
    streams[stream][header.bytes[stream]++] = (unsigned char)byte;
}
static void put_number(enum trace_stream stream, size_t number) {
    for (; number >= 128; number >>= 7) put_byte(stream, 128 | (number & 127));
    put_byte(stream, (unsigned)number);
}

/* ---- the number of each live block, by its address: numbers begin with 1 --------------------------------------------
 */

#define BLOCK_BITS 4 /* the least alignment of a block */
#define LEAF_BITS 32
static uint32_t *leaves[1 << (47 - LEAF_BITS)];

static uint32_t *number_of(const void *ptr) {
    uint32_t **leaf = &leaves[(uintptr_t)ptr >> LEAF_BITS];
    if (*leaf == NULL) *leaf = reserve(sizeof **leaf << (LEAF_BITS - BLOCK_BITS));
    static uint32_t none;
    if (*leaf != NULL) return &(*leaf)[((uintptr_t)ptr & (((uintptr_t)1 << LEAF_BITS) - 1)) >> BLOCK_BITS];
    stopped = true;
    return &none;
}

/* ---- recording
 * ---------------------------------------------------------------------------------------------------------- */

static void record_new(enum trace_kind kind, size_t alignment, void *ptr, size_t bytes) {
    if (ptr == NULL || stopped) return;
    unsigned shift = alignment == 0 ? 0 : (unsigned)__builtin_ctzll(alignment);
    put_byte(TRACE_CALLS, kind | shift << TRACE_KIND_BITS);
    put_number(TRACE_SIZES, bytes);
    *number_of(ptr) = ++header.blocks;
    header.calls++;
}
static void record_old(enum trace_kind kind, uint32_t number) {
    if (number == 0 || stopped) return;
    put_byte(TRACE_CALLS, kind);
    put_number(TRACE_AGES, header.blocks - number);
    header.calls++;
}

static void *allocate(enum trace_kind kind, size_t alignment, size_t bytes) {
    pthread_mutex_lock(&mutex);
    void *ptr = kind == TRACE_ALIGNED  ? __libc_memalign(alignment, bytes)
                : kind == TRACE_CALLOC ? __libc_calloc(1, bytes)
                                       : __libc_malloc(bytes);
    record_new(kind, alignment, ptr, bytes);
    pthread_mutex_unlock(&mutex);
    return ptr;
}

void *malloc(size_t bytes) { return allocate(TRACE_MALLOC, 0, bytes); }

void *calloc(size_t count, size_t bytes) {
    size_t all;
    if (!__builtin_mul_overflow(count, bytes, &all)) return allocate(TRACE_CALLOC, 0, all);
    errno = ENOMEM;
    return NULL;
}

void free(void *ptr) {
    if (ptr == NULL) return;
    pthread_mutex_lock(&mutex);
    uint32_t *number = number_of(ptr);
    record_old(TRACE_FREE, *number);
    *number = 0;
    __libc_free(ptr);
    pthread_mutex_unlock(&mutex);
}

/* A block that is resized keeps its number. */
void *realloc(void *ptr, size_t bytes) {
    if (ptr == NULL) return malloc(bytes);
    if (bytes == 0) return free(ptr), NULL;
    pthread_mutex_lock(&mutex);
    uint32_t number = *number_of(ptr);
    void *moved = __libc_realloc(ptr, bytes);
    if (moved != NULL) {
        *number_of(ptr) = 0;
        *number_of(moved) = number;
        record_old(TRACE_REALLOC, number);
        if (number != 0 && !stopped) put_number(TRACE_SIZES, bytes);
    }
    pthread_mutex_unlock(&mutex);
    return moved;
}
void *reallocarray(void *ptr, size_t count, size_t bytes) {
    size_t all;
    if (!__builtin_mul_overflow(count, bytes, &all)) return realloc(ptr, all);
    errno = ENOMEM;
    return NULL;
}

void *memalign(size_t alignment, size_t bytes) { return allocate(TRACE_ALIGNED, alignment, bytes); }
void *aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void **ptr, size_t alignment, size_t bytes) {
    *ptr = memalign(alignment, bytes);
    return *ptr == NULL ? ENOMEM : 0;
}
void *valloc(size_t bytes) { return memalign((size_t)sysconf(_SC_PAGESIZE), bytes); }

/* ---- beginning and end
 * ---------------------------------------------------------------------------------------------------- */

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("HAK_TRACE");
    if (path != NULL) output = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    recorded = getpid();
    stopped |= output < 0;
}

static bool put_all(const void *from, size_t bytes) {
    for (const char *at = from; bytes > 0;) {
        ssize_t put = write(output, at, bytes);
        if (put <= 0) return false;
        at += put;
        bytes -= (size_t)put;
    }
    return true;
}
__attribute__((destructor)) static void end(void) {
    if (output < 0 || getpid() != recorded) return;
    bool failed = stopped;
    stopped = true;
    failed |= !put_all(&header, sizeof header);
    for (unsigned i = 0; i < TRACE_STREAMS; i++) failed |= !put_all(streams[i], header.bytes[i]);
    static const char message[] = "trace_record: the trace is not complete\n";
    if (failed && write(STDERR_FILENO, message, sizeof message - 1) < 0) _exit(1);
}
