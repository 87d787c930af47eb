/* Records what a real program asks of malloc, as an input of the targets that drive the interface:
 *   HAK_RECORD=FILE LD_PRELOAD=build/release/fuzz/record.so PROGRAM...
 *   HAK_RECORD_FROM=N     the first N calls are left out
 *   HAK_RECORD_OPS=N      so many operations at most (2,000)
 * The C library serves the program. Of more than 256 blocks at a time the oldest is freed early, and what later happens
 * to it is left out, so that a recording is always a correct program. Threads keep their numbers up to 8. Written at
 * exit, and only by the process that was started. */
#include "ops.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

static void *(*next_malloc)(size_t);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static void *(*next_memalign)(size_t, size_t);
static void (*next_free)(void *);

/* ---- the recording: all under one lock ------------------------------------------------------------------------ */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *path;
static pid_t recorder;
static size_t from, most = 2000, calls, count;
static void *slots[FUZZ_SLOTS];
static unsigned last_slot, threads;
static uint8_t file[FUZZ_HEADER_BYTES + FUZZ_OPS_MAX * FUZZ_OP_BYTES];
static __thread unsigned own_number; /* plus one; 0: none yet */

static int slot_of(const void *ptr) {
    for (int i = 0; i < FUZZ_SLOTS; i++)
        if (slots[i] == ptr) return i;
    return -1;
}

static uint8_t thread_number(void) {
    if (own_number == 0) own_number = threads++ % FUZZ_THREADS + 1;
    return (uint8_t)(own_number - 1);
}

static void add(enum fuzz_kind kind, int slot, uint16_t size) {
    struct fuzz_op op = {.tid = thread_number(), .kind = (uint8_t)kind, .slot = (uint8_t)slot, .size = size};
    fuzz_encode_op(&file[FUZZ_HEADER_BYTES + count++ * FUZZ_OP_BYTES], op);
}

/* The next free slot, not the last freed: slots stay apart as addresses do. If there is none, the block that took its
 * slot longest ago is freed early. */
static int free_slot(void) {
    unsigned slot = last_slot;
    do slot = (slot + 1) % FUZZ_SLOTS;
    while (slots[slot] != NULL && slot != last_slot);
    if (slots[slot] != NULL) {
        slot = (slot + 1) % FUZZ_SLOTS;
        add(FUZZ_FREE, (int)slot, 0);
    }
    last_slot = slot;
    return (int)slot;
}

/* True, and the lock is taken, if this call is to be recorded. */
static bool begin(void) {
    if (path == NULL || getpid() != recorder) return false;
    pthread_mutex_lock(&lock);
    if (calls++ >= from && count < most) return true;
    pthread_mutex_unlock(&lock);
    return false;
}

static void end(void) { pthread_mutex_unlock(&lock); }

static void record_new(enum fuzz_kind kind, void *ptr, uint16_t size) {
    if (ptr == NULL || !begin()) return;
    int slot = free_slot();
    slots[slot] = ptr;
    add(kind, slot, size);
    end();
}

static void record_free(void *ptr) {
    if (ptr == NULL || !begin()) return;
    int slot = slot_of(ptr);
    if (slot >= 0) {
        add(FUZZ_FREE, slot, 0);
        slots[slot] = NULL;
    }
    end();
}

/* ---- start and end -------------------------------------------------------------------------------------------- */

/* dlsym allocates: until it is done, blocks come from here and are never freed. */
static char early[65536];
static size_t early_used;

static void *early_alloc(size_t bytes) {
    size_t at = early_used;
    early_used += (bytes + 15) & ~(size_t)15;
    return early_used <= sizeof early ? early + at : NULL;
}

static bool is_early(const void *ptr) { return (const char *)ptr >= early && (const char *)ptr < early + sizeof early; }

static void find(void *function, const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL) abort();
    memcpy(function, &found, sizeof found);
}

/* malloc comes last: until it is set, none of the others is used. */
static void find_functions(void) {
    find(&next_calloc, "calloc");
    find(&next_realloc, "realloc");
    find(&next_memalign, "memalign");
    find(&next_free, "free");
    find(&next_malloc, "malloc");
}

static size_t number_of(const char *name, size_t otherwise) {
    const char *text = getenv(name);
    return text == NULL ? otherwise : strtoul(text, NULL, 10);
}

__attribute__((constructor)) static void start(void) {
    if (next_malloc == NULL) find_functions();
    from = number_of("HAK_RECORD_FROM", 0);
    most = number_of("HAK_RECORD_OPS", most);
    if (most > FUZZ_OPS_MAX - 1) most = FUZZ_OPS_MAX - 1; /* one call may make two operations */
    recorder = getpid();
    path = getenv("HAK_RECORD");
    unsetenv("HAK_RECORD"); /* children keep nothing */
}

__attribute__((destructor)) static void finish(void) {
    if (path == NULL || getpid() != recorder) return;
    pthread_mutex_lock(&lock);
    unsigned numbered = threads < FUZZ_THREADS ? threads : FUZZ_THREADS;
    fuzz_encode_header(file, &(struct fuzz_config){.threads = (uint8_t)(numbered > 0 ? numbered : 1)}, 0);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    size_t bytes = FUZZ_HEADER_BYTES + count * FUZZ_OP_BYTES;
    if (fd < 0 || write(fd, file, bytes) != (ssize_t)bytes) abort();
    close(fd);
    path = NULL;
    pthread_mutex_unlock(&lock);
}

/* ---- the functions -------------------------------------------------------------------------------------------- */

PUBLIC void *malloc(size_t bytes) {
    if (next_malloc == NULL) return early_alloc(bytes);
    void *ptr = next_malloc(bytes);
    record_new(FUZZ_MALLOC, ptr, fuzz_size_code(bytes));
    return ptr;
}

/* Only the product is kept, and that to a few bytes; a code that ends in 31 would mean an array of none. */
PUBLIC void *calloc(size_t elements, size_t bytes) {
    if (next_malloc == NULL) return early_alloc(elements * bytes);
    void *ptr = next_calloc(elements, bytes);
    uint16_t code = fuzz_size_code(elements * bytes); /* of a block that exists: no overflow */
    record_new(FUZZ_CALLOC, ptr, code % 32 == 31 ? code + 1 : code);
    return ptr;
}

PUBLIC void free(void *ptr) {
    if (is_early(ptr)) return;
    record_free(ptr); /* before: afterwards the address may be another thread's */
    next_free(ptr);
}

PUBLIC void *realloc(void *ptr, size_t bytes) {
    if (ptr == NULL) return malloc(bytes);
    if (is_early(ptr)) return NULL;
    if (bytes == 0) {
        free(ptr);
        return NULL;
    }
    bool recorded = begin(); /* around it all: the old address may be another thread's at once */
    int slot = recorded ? slot_of(ptr) : -1;
    void *moved = next_realloc(ptr, bytes);
    if (slot >= 0 && moved != NULL) {
        add(FUZZ_REALLOC, slot, fuzz_size_code(bytes));
        slots[slot] = moved;
    }
    if (recorded) end();
    return moved;
}

PUBLIC void *memalign(size_t align, size_t bytes) {
    void *ptr = next_memalign(align, bytes);
    record_new(FUZZ_MEMALIGN, ptr, fuzz_aligned_code((unsigned)__builtin_ctzl(align) % 28, bytes));
    return ptr;
}

PUBLIC void *aligned_alloc(size_t align, size_t bytes) { return memalign(align, bytes); }

PUBLIC int posix_memalign(void **memptr, size_t align, size_t bytes) {
    void *ptr = memalign(align, bytes);
    if (ptr == NULL) return 12; /* ENOMEM */
    *memptr = ptr;
    return 0;
}
