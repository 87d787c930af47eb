/* build: -shared -fPIC */
/* Records what a program does with blocks over 1 MiB, for bigcache_load to replay:
 *   HAK_RECORD=FILE LD_PRELOAD=build/release/bench/bigcache_record PROGRAM...
 * The C library serves the program. A line per operation: microseconds of processor time (so that what else the machine
 * does is not in it), `+` (new), `=` (resized) or `-` (freed), the number of the block, and but for `-` its bytes and
 * the number of the call site. A number is used again when its block is gone. Only the process that was started writes.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define SMALL_MAX ((size_t)1 << 20) /* what is larger is recorded */
#define BLOCKS_MAX 65536
#define SITES_MAX 1024

/* The C library's own functions: no search by name, which allocates. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *ptr, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);
void __libc_free(void *ptr);

/* ---- the recording: all under one lock ------------------------------------------------------------------------ */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int file = -1;
static pid_t recorder;
static const void *blocks[BLOCKS_MAX], *sites[SITES_MAX];

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Where `wanted` is, or else, with `add`, the first place that is free and now holds it; `most`: nowhere. */
static unsigned place_of(const void **places, unsigned most, const void *wanted, bool add) {
    unsigned i = 0;
    while (i < most && places[i] != wanted && !(add && places[i] == NULL)) i++;
    if (i < most) places[i] = wanted;
    return i;
}

static bool begin(void) {
    if (file < 0 || getpid() != recorder) return false;
    pthread_mutex_lock(&lock);
    return true;
}

static void end(void) { pthread_mutex_unlock(&lock); }

static void write_line(char operation, unsigned block, size_t bytes, const void *site) {
    if (operation == '-') dprintf(file, "%" PRIu64 " - %u\n", now_us(), block);
    else
        dprintf(file, "%" PRIu64 " %c %u %zu %u\n", now_us(), operation, block, bytes,
                place_of(sites, SITES_MAX, site, true));
}

/* Whether a block can be among the recorded ones, found without the lock. */
static bool is_large(void *ptr) { return ptr != NULL && malloc_usable_size(ptr) > SMALL_MAX; }

static void *record_new(void *ptr, size_t bytes, const void *site) {
    if (ptr == NULL || bytes <= SMALL_MAX || !begin()) return ptr;
    unsigned block = place_of(blocks, BLOCKS_MAX, ptr, true);
    if (block < BLOCKS_MAX) write_line('+', block, bytes, site);
    end();
    return ptr;
}

/* `bytes`: 0 if it is freed. */
static void record_change(unsigned block, const void *ptr, size_t bytes, const void *site) {
    if (block == BLOCKS_MAX) return;
    const bool stays = bytes > SMALL_MAX;
    write_line(stays ? '=' : '-', block, bytes, site);
    blocks[block] = stays ? ptr : NULL;
}

/* ---- start and the functions ------------------------------------------------------------------------------------ */

/* The first line says what was recorded: its arguments, of which the last ones may be cut. */
static void write_command(void) {
    char command[4096];
    int from = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t bytes = read(from, command, sizeof command);
    close(from);
    for (ssize_t i = 0; i < bytes - 1; i++)
        if (command[i] == '\0') command[i] = ' ';
    dprintf(file, "# %.*s\n", (int)(bytes - 1), command);
}

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("HAK_RECORD");
    if (path == NULL) return;
    recorder = getpid();
    file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0) abort();
    write_command();
    unsetenv("HAK_RECORD"); /* children keep nothing */
}

#define SITE __builtin_return_address(0)

void *malloc(size_t bytes) { return record_new(__libc_malloc(bytes), bytes, SITE); }

/* Of a block that exists the product did not overflow. */
void *calloc(size_t count, size_t bytes) { return record_new(__libc_calloc(count, bytes), count * bytes, SITE); }

void *memalign(size_t align, size_t bytes) { return record_new(__libc_memalign(align, bytes), bytes, SITE); }

void *aligned_alloc(size_t align, size_t bytes) { return record_new(__libc_memalign(align, bytes), bytes, SITE); }

int posix_memalign(void **memptr, size_t align, size_t bytes) {
    void *ptr = record_new(__libc_memalign(align, bytes), bytes, SITE);
    if (ptr == NULL) return ENOMEM;
    *memptr = ptr;
    return 0;
}

/* The lock is held around both: at once the old address may be another thread's. */
void *realloc(void *ptr, size_t bytes) {
    if (!is_large(ptr) || !begin()) return record_new(__libc_realloc(ptr, bytes), bytes, SITE);
    const unsigned block = place_of(blocks, BLOCKS_MAX, ptr, false);
    void *moved = __libc_realloc(ptr, bytes);
    if (moved != NULL || bytes == 0) record_change(block, moved, bytes, SITE);
    end();
    return block < BLOCKS_MAX ? moved : record_new(moved, bytes, SITE);
}

void free(void *ptr) {
    if (is_large(ptr) && begin()) {
        record_change(place_of(blocks, BLOCKS_MAX, ptr, false), NULL, 0, SITE);
        end();
    }
    __libc_free(ptr);
}
