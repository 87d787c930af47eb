/* build: -shared -fPIC */
/* The floor: what a program takes when malloc does next to nothing. Preloaded, this moves a pointer and never reuses
 * memory; only the newest block of a thread can be given back, or resized where it is. Huge pages keep the cost of
 * fresh memory low. 8 GiB are there in all: what needs more gets NULL. */
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define REGION ((size_t)8 << 30)
#define CHUNK ((size_t)16 << 10) /* what a thread takes at a time */
#define ROUND_UP(n, to) (((n) + (to)-1) & ~((to)-1))

static char *region;
static _Atomic size_t taken; /* of the region */
#define THREAD_OWN static __thread __attribute__((tls_model("initial-exec")))
THREAD_OWN char *top, *end; /* of the chunk */

__attribute__((constructor)) static void reserve(void) {
    if (region != NULL) return;
    region = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED) abort();
    madvise(region, REGION, MADV_HUGEPAGE);
}

/* Sees to it that `bytes` are there at `top`: more of the region behind the chunk if that is the last one, else
 * another. */
static __attribute__((noinline)) int need_more(size_t bytes) {
    reserve();
    if (bytes > REGION) return 0;
    size_t behind = (size_t)(end - region), more = ROUND_UP(bytes - (size_t)(end - top), CHUNK);
    if (end != NULL && more <= REGION - behind && atomic_compare_exchange_strong(&taken, &behind, behind + more)) {
        end += more;
        return 1;
    }
    more = ROUND_UP(bytes, CHUNK);
    size_t at = atomic_fetch_add(&taken, more);
    if (at > REGION || more > REGION - at) return 0;
    top = region + at;
    end = top + more;
    return 1;
}

static inline int need(size_t bytes) { return bytes <= (size_t)(end - top) || need_more(bytes); }

/* In front of each block lies its size. */
static size_t *size_of(void *ptr) { return (size_t *)ptr - 2; }
static int is_newest(void *ptr) { return (char *)ptr + *size_of(ptr) == top; }

static void *take(size_t alignment, size_t bytes) {
    if (bytes > REGION || alignment > REGION) return errno = ENOMEM, NULL;
    bytes = ROUND_UP(bytes, 16);
    if (!need(bytes + alignment + 16)) return errno = ENOMEM, NULL;
    char *ptr = (char *)ROUND_UP((uintptr_t)top + 16, alignment < 16 ? 16 : alignment);
    *size_of(ptr) = bytes;
    top = ptr + bytes;
    return ptr;
}
void *malloc(size_t bytes) { return take(16, bytes); }
void *memalign(size_t alignment, size_t bytes) { return take(alignment, bytes); }

void free(void *ptr) {
    if (ptr != NULL && is_newest(ptr)) top = (char *)size_of(ptr);
}

void *realloc(void *ptr, size_t bytes) {
    if (ptr == NULL) return malloc(bytes);
    size_t old = *size_of(ptr);
    if (bytes <= old) return ptr;
    if (is_newest(ptr) && bytes <= REGION && need(ROUND_UP(bytes, 16) - old) && is_newest(ptr)) {
        *size_of(ptr) = ROUND_UP(bytes, 16);
        top = (char *)ptr + *size_of(ptr);
        return ptr;
    }
    void *moved = malloc(bytes);
    return moved == NULL ? NULL : memcpy(moved, ptr, old);
}

/* A block that was given back and taken again is not zero. */
void *calloc(size_t count, size_t bytes) {
    size_t all;
    if (__builtin_mul_overflow(count, bytes, &all)) return errno = ENOMEM, NULL;
    void *ptr = malloc(all);
    return ptr == NULL ? NULL : memset(ptr, 0, all);
}
void *reallocarray(void *ptr, size_t count, size_t bytes) {
    size_t all;
    return __builtin_mul_overflow(count, bytes, &all) ? (errno = ENOMEM, NULL) : realloc(ptr, all);
}
void *aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void **ptr, size_t alignment, size_t bytes) {
    int saved = errno;
    void *got = memalign(alignment, bytes);
    errno = saved;
    if (got == NULL) return ENOMEM;
    *ptr = got;
    return 0;
}
void *valloc(size_t bytes) { return memalign(4096, bytes); }
void *pvalloc(size_t bytes) { return memalign(4096, bytes > REGION ? bytes : ROUND_UP(bytes, (size_t)4096)); }
size_t malloc_usable_size(void *ptr) { return ptr == NULL ? 0 : *size_of(ptr); }
