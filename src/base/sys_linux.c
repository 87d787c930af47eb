/* Linux: every system call and every look at the process that hakmem makes. No other file includes an OS header.
 * Stateless but for the page size and the hooks of test builds. Allocates nothing, keeps errno. */
#include "base/sys.h"

#include "base/sync.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The first number of a descriptor that no program takes for its own. */
#define OUT_OF_THE_WAY 100

static hak_sys_fault *fault_hook;
static _Atomic uint64_t fake_now_ms; /* any thread; relaxed: a test that lets time pass orders nothing by it */
static size_t fake_page_bytes;

void hak_sys_set_fault_for_test(hak_sys_fault *fault) { fault_hook = fault; }
void hak_sys_set_now_for_test(uint64_t ms) { hak_store_rlx(&fake_now_ms, ms); }
void hak_sys_set_page_bytes_for_test(size_t bytes) { fake_page_bytes = bytes; }

/* True if a test wants this call to fail. */
static bool faulted(enum hak_sys_call call, size_t bytes) {
    HAK_POINT("system call", true, NULL);
    return HAK_TEST && fault_hook != NULL && fault_hook(call, bytes) != 0;
}

size_t hak_sys_page_bytes(void) {
    static _Atomic size_t cached; /* any thread, the same value */
    if (HAK_TEST && fake_page_bytes != 0) return fake_page_bytes;
    size_t bytes = hak_load_rlx(&cached);
    if (hak_unlikely(bytes == 0)) {
        bytes = getauxval(AT_PAGESZ); /* works before the C library is up, where sysconf may not */
        if (bytes == 0) bytes = 4096;
        hak_store_rlx(&cached, bytes);
    }
    return bytes;
}

/* A mapping that lies as a system with larger pages would lay it. */
static void *map_on_faked_pages(size_t bytes) {
    char *ptr = mmap(NULL, bytes + fake_page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ptr == MAP_FAILED) return NULL;
    size_t head = -(uintptr_t)ptr & (fake_page_bytes - 1);
    if (head != 0) munmap(ptr, head);
    munmap(ptr + head + bytes, fake_page_bytes - head);
    return ptr + head;
}

void *hak_sys_map(size_t bytes) {
    if (faulted(HAK_SYS_MAP, bytes)) return NULL;
    if (HAK_TEST && fake_page_bytes != 0) return map_on_faked_pages(bytes);
    int saved = errno;
    void *ptr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    errno = saved;
    return ptr == MAP_FAILED ? NULL : ptr;
}

/* A huge page is what one page of page-table entries, of 8 bytes, spans. */
#define SMALL_PAGE_BYTES ((size_t)4096)
#define HUGE_PAGE_BYTES (SMALL_PAGE_BYTES / 8 * SMALL_PAGE_BYTES)

static bool advise_huge(void *ptr, size_t bytes, int advice) {
    if (faulted(HAK_SYS_HUGE, bytes)) return false;
    int saved = errno;
    int result = madvise(ptr, bytes, advice);
    errno = saved;
    return result == 0;
}

/* Splits the huge pages, if it is such, of which the range, which is about to go, begins or ends within: the kernel
 * does so for advice on a part. Not MADV_COLD: filters of system calls know this one. */
static void split_at_ends(char *first, size_t bytes) {
    if (hak_sys_page_bytes() != SMALL_PAGE_BYTES) return;
    const uintptr_t begin = (uintptr_t)first, end = begin + bytes;
    const bool begins_within = begin % HUGE_PAGE_BYTES != 0, ends_within = end % HUGE_PAGE_BYTES != 0;
    if (begins_within) advise_huge(first, SMALL_PAGE_BYTES, MADV_FREE);
    if (ends_within && !(begins_within && begin / HUGE_PAGE_BYTES == end / HUGE_PAGE_BYTES))
        advise_huge(first + bytes - SMALL_PAGE_BYTES, SMALL_PAGE_BYTES, MADV_FREE);
}

bool hak_sys_unmap(void *ptr, size_t bytes) {
    if (faulted(HAK_SYS_UNMAP, bytes)) return false;
    int saved = errno;
    split_at_ends(ptr, bytes);
    int result = munmap(ptr, bytes);
    errno = saved;
    return result == 0;
}

bool hak_sys_purge(void *ptr, size_t bytes) {
    if (faulted(HAK_SYS_PURGE, bytes)) return false;
    int saved = errno;
    split_at_ends(ptr, bytes);
    /* Not MADV_FREE: it hides the freed memory from RSS and leaves the content undecided. */
    int result = madvise(ptr, bytes, MADV_DONTNEED);
    errno = saved;
    return result == 0;
}

bool hak_sys_make_huge(void *ptr, size_t bytes) {
    return hak_sys_page_bytes() == SMALL_PAGE_BYTES && advise_huge(ptr, bytes, MADV_HUGEPAGE);
}

void hak_sys_keep_small(void *ptr, size_t bytes) { advise_huge(ptr, bytes, MADV_NOHUGEPAGE); }

bool hak_sys_protect(void *ptr, size_t bytes, bool access) {
    if (faulted(HAK_SYS_PROTECT, bytes)) return false;
    int saved = errno;
    int result = mprotect(ptr, bytes, access ? PROT_READ | PROT_WRITE : PROT_NONE);
    errno = saved;
    return result == 0;
}

#if HAK_VALGRIND
void hak_sys_seal(void *ptr, size_t bytes) { mprotect(ptr, bytes, PROT_READ); }
#endif

enum hak_sys_remap hak_sys_remap_in_place(void *ptr, size_t old_bytes, size_t new_bytes) {
    if (faulted(HAK_SYS_REMAP, new_bytes)) return HAK_REMAP_NO_ROOM;
    int saved = errno;
    if (new_bytes < old_bytes) split_at_ends((char *)ptr + new_bytes, old_bytes - new_bytes);
    enum hak_sys_remap result = HAK_REMAP_DONE;
    if (mremap(ptr, old_bytes, new_bytes, 0) == MAP_FAILED)
        result = errno == EFAULT ? HAK_REMAP_SPLIT : HAK_REMAP_NO_ROOM;
    errno = saved;
    return result;
}

bool hak_sys_remap_to(void *ptr, size_t old_bytes, void *target, size_t new_bytes) {
    if (faulted(HAK_SYS_REMAP, new_bytes)) {
        munmap(target, new_bytes); /* the worst that the kernel may do */
        return false;
    }
    int saved = errno;
    void *result = mremap(ptr, old_bytes, new_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, target);
    errno = saved;
    return result != MAP_FAILED;
}

bool hak_sys_wipe_on_fork(void *ptr, size_t bytes) {
    if (faulted(HAK_SYS_WIPE, bytes)) return false;
    int saved = errno;
    int result = madvise(ptr, bytes, MADV_WIPEONFORK);
    errno = saved;
    return result == 0;
}

void hak_sys_futex_wait(const void *word, uint32_t expected) {
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0); /* the C library has no wrapper */
    errno = saved;
}

void hak_sys_futex_wake(const void *word, int count) {
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
    errno = saved;
}

static uint64_t now_us(clockid_t clock) {
    uint64_t fake = HAK_TEST ? hak_load_rlx(&fake_now_ms) : 0;
    if (fake != 0) return fake * 1000;
    struct timespec now;
    int saved = errno;
    if (clock_gettime(clock, &now) != 0) now = (struct timespec){0};
    errno = saved;
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t hak_sys_now_ms(void) { return now_us(CLOCK_MONOTONIC_COARSE) / 1000; }
uint64_t hak_sys_now_us(void) { return now_us(CLOCK_MONOTONIC); }

uintptr_t hak_sys_thread(void) { return (uintptr_t)pthread_self(); }
uint32_t hak_sys_pid(void) { return (uint32_t)getpid(); }

/* What follows are cancellation points in the C library, and malloc must not be one. */
static int hold_cancellation(void) {
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    return before;
}
static void allow_cancellation(int before) { pthread_setcancelstate(before, &before); }

int hak_sys_write(int fd, const char *text, size_t bytes) {
    int saved = errno, error = 0, cancel = hold_cancellation();
    while (bytes > 0 && error == 0) {
        ssize_t n = write(fd, text, bytes);
        if (n > 0) {
            text += n;
            bytes -= (size_t)n;
        } else if (n == 0 || errno != EINTR) {
            error = n == 0 ? EIO : errno;
        }
    }
    allow_cancellation(cancel);
    errno = saved;
    return error;
}

int hak_sys_open_append(const char *path) {
    int saved = errno, cancel = hold_cancellation();
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    allow_cancellation(cancel);
    errno = saved;
    return fd;
}

bool hak_sys_can_append(const char *path) {
    struct stat file;
    int saved = errno;
    bool can;
    if (stat(path, &file) == 0 && !S_ISREG(file.st_mode)) {
        can = !S_ISDIR(file.st_mode) && access(path, W_OK) == 0;
    } else {
        int fd = hak_sys_open_append(path);
        can = fd >= 0;
        if (can) hak_sys_close(fd);
    }
    errno = saved;
    return can;
}

int hak_sys_duplicate(int fd) {
    int saved = errno, copy = -1;
    /* Lower where the process may not have so many. */
    for (int least = OUT_OF_THE_WAY; copy < 0 && least > 2; least /= 2) copy = fcntl(fd, F_DUPFD_CLOEXEC, least);
    errno = saved;
    return copy;
}

void hak_sys_close(int fd) {
    int saved = errno, cancel = hold_cancellation();
    close(fd);
    allow_cancellation(cancel);
    errno = saved;
}

const char *hak_sys_program(void) {
    const char *name = program_invocation_short_name;
    return name != NULL && *name != '\0' ? name : "?";
}

const void *hak_sys_program_base(void) {
    return (const void *)(getauxval(AT_PHDR) & ~(unsigned long)(hak_sys_page_bytes() - 1)); /* it follows the header */
}
bool hak_sys_is_secure(void) { return getauxval(AT_SECURE) != 0; }
char **hak_sys_environ(void) { return environ; }

_Noreturn void hak_sys_abort(void) { abort(); }

/* ---- /proc/self/maps: only on the way to a misuse report, so a small buffer and a byte at a time will do --- */

struct maps_reader {
    int fd;
    size_t at, filled;
    char buffer[512];
};

static int next_byte(struct maps_reader *in) {
    if (in->at == in->filled) {
        ssize_t n = read(in->fd, in->buffer, sizeof in->buffer);
        if (n <= 0) return -1;
        in->at = 0;
        in->filled = (size_t)n;
    }
    return (unsigned char)in->buffer[in->at++];
}

/* Reads a hexadecimal number and the byte behind it, which it returns (-1: end of file). */
static int read_hex(struct maps_reader *in, uintptr_t *value) {
    *value = 0;
    for (;;) {
        int c = next_byte(in);
        if (c >= '0' && c <= '9') *value = *value << 4 | (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f') *value = *value << 4 | (uintptr_t)(c - 'a' + 10);
        else return c;
    }
}

/* Reads the rest of a line; keeps what stands in the sixth column, the path. */
static void read_path(struct maps_reader *in, char *path, size_t bytes) {
    size_t used = 0, column = 1;
    int c, before = 'x';
    while ((c = next_byte(in)) >= 0 && c != '\n') {
        if (c == ' ' && column < 5) column += before != ' ';
        else if ((c != ' ' || used > 0) && column == 5 && used + 1 < bytes) path[used++] = (char)c;
        before = c;
    }
    path[used] = '\0';
}

static enum hak_sys_place place_of_path(const char *path) {
    if (strncmp(path, "[stack", 6) == 0) return HAK_PLACE_STACK;
    return path[0] == '/' ? HAK_PLACE_FILE : HAK_PLACE_ANONYMOUS;
}

/* Looks for an address in the segments of one loaded object. The maps do not tell a program's zeroed globals (.bss)
 * from memory of an allocator; the program headers do. */
struct segment_search {
    uintptr_t address;
    char *path;
    size_t bytes;
};

static int search_object(struct dl_phdr_info *object, size_t size, void *data) {
    (void)size;
    struct segment_search *search = data;
    for (size_t i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || search->address - object->dlpi_addr - segment->p_vaddr >= segment->p_memsz)
            continue;
        ssize_t n = -1;
        if (object->dlpi_name[0] == '\0') n = readlink("/proc/self/exe", search->path, search->bytes - 1);
        if (n < 0) {
            n = (ssize_t)strnlen(object->dlpi_name, search->bytes - 1);
            memcpy(search->path, object->dlpi_name, (size_t)n);
        }
        search->path[n] = '\0';
        return 1;
    }
    return 0;
}

enum hak_sys_place hak_sys_place_of(const void *ptr, char *path, size_t bytes) {
    struct segment_search search = {.address = (uintptr_t)ptr, .path = path, .bytes = bytes};
    int saved = errno, found = dl_iterate_phdr(search_object, &search);
    errno = saved;
    if (found != 0) return HAK_PLACE_FILE;
    struct maps_reader in = {.fd = -1, .at = 0, .filled = 0};
    enum hak_sys_place place = HAK_PLACE_UNMAPPED;
    int cancel = hold_cancellation();
    in.fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (in.fd < 0) place = HAK_PLACE_UNKNOWN;
    uintptr_t first = 0, end = 0;
    while (place == HAK_PLACE_UNMAPPED && read_hex(&in, &first) == '-' && read_hex(&in, &end) == ' ') {
        read_path(&in, path, bytes);
        if ((uintptr_t)ptr >= first && (uintptr_t)ptr < end) place = place_of_path(path);
    }
    if (in.fd >= 0) close(in.fd);
    allow_cancellation(cancel);
    errno = saved;
    return place;
}
