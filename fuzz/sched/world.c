/* Memory, futex, thread-specific data and static state of the allocator under the scheduler (world.h). The allocator's
 * objects are linked so that their calls of the C library come here instead (sched.mk: mmap becomes world_mmap, and so
 * on), and that their static variables lie in sections of their own, which can be saved and put back.
 * Not compiled with ThreadSanitizer; memory is mapped by raw system calls, which it does not see either. */
#include "world.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine.h"

#include "base/sync.h"
#include "base/sys.h"
#include "front/heap.h"
#include "hakmem.h"

#if HAK_ASAN
#include <sanitizer/asan_interface.h>
#endif

#define ARENA_BYTES (16UL << 30) /* one window of the region map */
#define PAGE 4096UL
#define RANGES_MAX 1024
#define BEGIN_MS 1000000

void *world_mmap(void *hint, size_t bytes, int protection, int flags, int fd, off_t offset);
int world_munmap(void *ptr, size_t bytes);
void *world_mremap(void *ptr, size_t old_bytes, size_t new_bytes, int flags, ...);
int world_madvise(void *ptr, size_t bytes, int advice);
int world_mprotect(void *ptr, size_t bytes, int protection);
long world_syscall(long number, ...);
unsigned long world_pthread_self(void);
int world_pthread_key_create(unsigned *key, void (*destructor)(void *));
int world_pthread_key_delete(unsigned key);
void *world_pthread_getspecific(unsigned key);
int world_pthread_setspecific(unsigned key, const void *value);
_Noreturn void world_abort(void);

/* ---- memory -------------------------------------------------------------------------------------------------- */

struct range {
    char *ptr;
    size_t bytes;
};
struct memory {
    size_t used;   /* bytes of the arena that were ever mapped */
    size_t mapped; /* of these now */
    unsigned free_count;
    struct range free[RANGES_MAX]; /* mapped once, not now; the last one is taken first, as a kernel might */
};
static char *arena;
static struct memory memory, memory_at_begin;
static bool reuse; /* addresses: not with system threads, for ThreadSanitizer does not see that they were unmapped */

static void map_fixed(char *ptr, size_t bytes, int protection) {
    long result = syscall(SYS_mmap, ptr, bytes, protection,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (ptr == NULL ? 0 : MAP_FIXED), -1, 0L);
    if (result == -1) sched_finding("no address space for the world");
    if (ptr == NULL) arena = (char *)result;
}

static char *take_free(size_t bytes) {
    for (unsigned i = memory.free_count; i-- > 0;) {
        struct range *range = &memory.free[i];
        if (range->bytes < bytes) continue;
        char *ptr = range->ptr;
        range->ptr += bytes;
        range->bytes -= bytes;
        if (range->bytes == 0) *range = memory.free[--memory.free_count];
        return ptr;
    }
    return NULL;
}

void *world_mmap(void *hint, size_t bytes, int protection, int flags, int fd, off_t offset) {
    (void)hint, (void)flags, (void)fd, (void)offset;
    bytes = (bytes + PAGE - 1) & ~(PAGE - 1);
    char *ptr = reuse ? take_free(bytes) : NULL;
    if (ptr != NULL) {
        map_fixed(ptr, bytes, protection);
    } else {
        if (bytes > ARENA_BYTES - memory.used) {
            errno = ENOMEM;
            return MAP_FAILED;
        }
        ptr = arena + memory.used;
        memory.used += bytes;
    }
    memory.mapped += bytes;
    return ptr;
}

/* From here on the range is nobody's: who still touches it gets a signal. */
static void leave_range(char *ptr, size_t bytes) {
    map_fixed(ptr, bytes, PROT_NONE);
    memory.mapped -= bytes;
    if (memory.free_count < RANGES_MAX) memory.free[memory.free_count++] = (struct range){ptr, bytes};
}

int world_munmap(void *ptr, size_t bytes) {
    leave_range(ptr, bytes);
    return 0;
}

static void *resize_here(char *ptr, size_t old_bytes, size_t new_bytes) {
    if (new_bytes < old_bytes) leave_range(ptr + new_bytes, old_bytes - new_bytes);
    else if (ptr + old_bytes == arena + memory.used && new_bytes - old_bytes <= ARENA_BYTES - memory.used) {
        memory.used += new_bytes - old_bytes;
        memory.mapped += new_bytes - old_bytes;
    } else {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return ptr;
}

void *world_mremap(void *ptr, size_t old_bytes, size_t new_bytes, int flags, ...) {
    if ((flags & MREMAP_FIXED) == 0) return resize_here(ptr, old_bytes, new_bytes);
    va_list arguments;
    va_start(arguments, flags);
    void *target = va_arg(arguments, void *);
    va_end(arguments);
    if (syscall(SYS_mremap, ptr, old_bytes, new_bytes, flags, target) == -1) return MAP_FAILED;
    leave_range(ptr, old_bytes);
    return target;
}

int world_madvise(void *ptr, size_t bytes, int advice) {
    return advice == MADV_DONTNEED ? (int)syscall(SYS_madvise, ptr, bytes, advice) : 0; /* there is no fork here */
}
int world_mprotect(void *ptr, size_t bytes, int protection) {
    return (int)syscall(SYS_mprotect, ptr, bytes, protection);
}

/* ---- threads ------------------------------------------------------------------------------------------------- */

static struct thread_state {
    HAK_ALIGNED_LINE struct hak_heap *heap; /* its address stands for the thread, as pthread_self() would */
    uint32_t ranks;
    int error;
    void *specific;
} states[SCHED_THREADS_MAX + 1], main_at_begin;
static void (*specific_destructor)(void *);

static unsigned self(void) {
    unsigned thread = sched_thread();
    return thread < SCHED_THREADS_MAX ? thread : ENGINE_MAIN;
}

#if HAK_DEBUG
static uint32_t ranks_held(void) { return hak_held_ranks; }
static void hold_ranks(uint32_t ranks) { hak_held_ranks = ranks; }
#else
static uint32_t ranks_held(void) { return 0; }
static void hold_ranks(uint32_t ranks) { (void)ranks; }
#endif

void world_leave_thread(unsigned thread) {
    states[thread].heap = hak_tls_heap;
    states[thread].ranks = ranks_held();
    states[thread].error = errno;
}

void world_enter_thread(unsigned thread) {
    hak_tls_heap = states[thread].heap;
    hold_ranks(states[thread].ranks);
    errno = states[thread].error;
}

void world_begin_thread(unsigned thread, bool takes_over) {
    const struct thread_state fresh = {.heap = hak_heap_initial()};
    states[thread] = fresh;
    if (!takes_over) return;
    world_leave_thread(ENGINE_MAIN);
    states[thread] = states[ENGINE_MAIN];
    states[ENGINE_MAIN] = fresh;
    world_enter_thread(ENGINE_MAIN);
}

void world_end_thread(unsigned thread) {
    for (int round = 0; round < 4 && states[thread].specific != NULL; round++) {
        void *value = states[thread].specific;
        states[thread].specific = NULL;
        specific_destructor(value);
    }
}

unsigned long world_pthread_self(void) { return (unsigned long)&states[self()]; }

int world_pthread_key_create(unsigned *key, void (*destructor)(void *)) {
    *key = 1;
    specific_destructor = destructor;
    return 0;
}
int world_pthread_key_delete(unsigned key) {
    (void)key;
    return 0;
}
void *world_pthread_getspecific(unsigned key) {
    (void)key;
    return states[self()].specific;
}
int world_pthread_setspecific(unsigned key, const void *value) {
    (void)key;
    states[self()].specific = (void *)(uintptr_t)value;
    return 0;
}

static void futex_wait(const uint32_t *word, uint32_t expected) {
    static struct hak_point here = {.operation = "futex wait", .file = "world", .contended = true};
    engine_step(&here, word);
    if (__atomic_load_n(word, __ATOMIC_SEQ_CST) == expected) engine_wait(word);
}

static void futex_wake(const uint32_t *word, int count) {
    static struct hak_point here = {.operation = "futex wake", .file = "world", .contended = true};
    engine_step(&here, word);
    engine_wake(word, count);
}

/* The allocator makes no other system call by number than futex. */
long world_syscall(long number, ...) {
    va_list arguments;
    va_start(arguments, number);
    const uint32_t *word = va_arg(arguments, const uint32_t *);
    int operation = va_arg(arguments, int);
    uint32_t value = va_arg(arguments, uint32_t);
    va_end(arguments);
    if (number != SYS_futex) sched_finding("a system call that the world does not know");
    if (operation == FUTEX_WAIT_PRIVATE) futex_wait(word, value);
    else futex_wake(word, (int)value);
    return 0;
}

_Noreturn void world_abort(void) { sched_finding("the allocator aborted"); }

/* ---- the beginning -------------------------------------------------------------------------------------------- */

extern char __start_hak_data[], __stop_hak_data[], __start_hak_bss[], __stop_hak_bss[];

struct page {
    char *at;
    char content[PAGE];
};
static char *data_at_begin, *bss_at_begin;
static struct page *pages_at_begin;
static size_t page_count;
static uint64_t now_ms;

static size_t data_bytes(void) { return (size_t)(__stop_hak_data - __start_hak_data); }
static size_t bss_bytes(void) { return (size_t)(__stop_hak_bss - __start_hak_bss); }

/* Whole sections and pages are copied, whatever a sanitizer thinks of the gaps in them. */
#if defined(__clang__)
#define UNWATCHED __attribute__((no_sanitize("address", "undefined")))
#else
#define UNWATCHED
#endif
static UNWATCHED void copy(char *to, const char *from, size_t bytes) {
    for (size_t i = 0; i < bytes / sizeof(uint64_t); i++)
        ((volatile uint64_t *)(void *)to)[i] = ((const uint64_t *)(const void *)from)[i];
    for (size_t i = bytes & ~(sizeof(uint64_t) - 1); i < bytes; i++) ((volatile char *)to)[i] = from[i];
}

static UNWATCHED bool is_zero(const char *page) {
    for (size_t i = 0; i < PAGE; i++)
        if (page[i] != 0) return false;
    return true;
}

static char *saved(const char *from, size_t bytes) {
    char *to = malloc(bytes);
    if (to == NULL) sched_finding("no memory for the beginning");
    copy(to, from, bytes);
    return to;
}

static void save_pages(void) {
    for (char *at = arena; at < arena + memory.used; at += PAGE) page_count += !is_zero(at);
    pages_at_begin = malloc(page_count * sizeof *pages_at_begin);
    if (pages_at_begin == NULL) sched_finding("no memory for the beginning");
    struct page *page = pages_at_begin;
    for (char *at = arena; at < arena + memory.used; at += PAGE) {
        if (is_zero(at)) continue;
        page->at = at;
        copy(page->content, at, PAGE);
        page++;
    }
}

void world_init(enum sched_backend backend) {
    reuse = false; /* no holes yet, so that what is saved can be read */
    map_fixed(NULL, 2 * ARENA_BYTES, PROT_READ | PROT_WRITE);
    arena += -(uintptr_t)arena & (ARENA_BYTES - 1);
    states[ENGINE_MAIN].heap = hak_heap_initial();
    now_ms = BEGIN_MS;
    hak_sys_set_now_for_test(now_ms);
    hak_free(hak_malloc(16));
    world_leave_thread(ENGINE_MAIN);
    main_at_begin = states[ENGINE_MAIN];
    for (unsigned i = 0; i < memory.free_count; i++) map_fixed(memory.free[i].ptr, memory.free[i].bytes, PROT_READ);
    save_pages();
    memory_at_begin = memory;
    memory_at_begin.free_count = 0;
    data_at_begin = saved(__start_hak_data, data_bytes());
    bss_at_begin = saved(__start_hak_bss, bss_bytes());
    reuse = backend == SCHED_FIBERS;
}

void world_reset(void) {
#if HAK_ASAN
    __asan_unpoison_memory_region(arena, memory.used);
#endif
    map_fixed(arena, memory.used, PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < page_count; i++) copy(pages_at_begin[i].at, pages_at_begin[i].content, PAGE);
    copy(__start_hak_data, data_at_begin, data_bytes());
    copy(__start_hak_bss, bss_at_begin, bss_bytes());
    memory = memory_at_begin;
    states[ENGINE_MAIN] = main_at_begin;
    world_enter_thread(ENGINE_MAIN);
    now_ms = BEGIN_MS;
    hak_sys_set_now_for_test(now_ms);
}

void world_advance_ms(uint64_t ms) {
    now_ms += ms;
    hak_sys_set_now_for_test(now_ms);
}

size_t world_mapped_bytes(void) { return memory.mapped; }
