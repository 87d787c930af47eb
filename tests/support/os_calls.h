/* Stands before the C library's functions by which hakmem asks the system for something, notes from which place of
 * hakmem each call comes, and refuses those of one place. For a program that exports its functions (-rdynamic) and runs
 * itself again for each plan: the functions here must work before its main() and in the middle of an allocation, so
 * they allocate nothing and make their system calls themselves.
 *
 * A place is the address behind the call, as an offset in the library's file. */
#ifndef TESTS_SUPPORT_OS_CALLS_H
#define TESTS_SUPPORT_OS_CALLS_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The descriptor by which parent and child share their page. */
#define OS_CALLS_FD 213
#define OS_CALLS_SITES 64

/* When a call comes: before main(), while the scenario runs, while nothing is refused, at exit. */
enum os_phase { OS_START, OS_MAIN, OS_RECOVERY, OS_EXIT };

struct os_site {
    _Atomic uint64_t place; /* 0: free */
    char function[24];
};

struct os_plan {
    uint64_t place; /* 0: refuse nothing */
    bool spares_start;
    uint32_t spared; /* so many calls succeed first */
    int error;       /* 0: the call says that it did nothing, as at the end of a file */
    bool lasts;      /* else only the first call is refused */
};

struct os_page {
    pid_t parent; /* it is refused nothing */
    struct os_plan plan;
    _Atomic int phase;
    _Atomic uint32_t reached, failed; /* calls from the place; those of them that were refused */
    _Atomic uint32_t without_memory;  /* requests that were answered with NULL */
    _Atomic bool ends;                /* pthread_key_delete() was called */
    struct os_site sites[OS_CALLS_SITES];
};

static struct os_page *os_page;

/* ---- system calls of our own ---- */

static long os_raw(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static long os_result(long result) {
    if (result >= 0 || result < -4095) return result;
    errno = (int)-result;
    return -1;
}

#define os_call(...) os_result(OS_PICK(__VA_ARGS__, 0, 0, 0, 0, 0, 0))
#define OS_PICK(n, a, b, c, d, e, f, ...) os_raw(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* ---- places ---- */

static struct os_page *os_the_page(void) {
    if (os_page == NULL) {
        long at = os_raw(SYS_mmap, 0, sizeof *os_page, PROT_READ | PROT_WRITE, MAP_SHARED, OS_CALLS_FD, 0);
        if (at < 0 && at > -4096) return NULL;
        os_page = (struct os_page *)at;
    }
    return os_page->parent == os_raw(SYS_getpid, 0, 0, 0, 0, 0, 0) ? NULL : os_page;
}

/* The place of an address of hakmem's; 0: it is not hakmem's. */
static uint64_t os_place(const void *address) {
    Dl_info info;
    if (dladdr(address, &info) == 0 || info.dli_fname == NULL || strstr(info.dli_fname, "/libhakmem") == NULL) return 0;
    return (uintptr_t)address - (uintptr_t)info.dli_fbase;
}

/* Only where nothing is refused: what then is reached besides would not be reached again. */
static void os_note(struct os_page *page, uint64_t place, const char *function) {
    if (page->plan.place != 0) return;
    for (struct os_site *site = page->sites; site < page->sites + OS_CALLS_SITES; site++) {
        uint64_t there = 0;
        if (atomic_compare_exchange_strong(&site->place, &there, place))
            strncpy(site->function, function, sizeof site->function - 1);
        else if (there != place) continue;
        return;
    }
    abort(); /* OS_CALLS_SITES is too small */
}

/* Whether the call of `function` that returns to `address` is to be refused, and how. */
static bool os_refused(const char *function, const void *address, int *error) {
    struct os_page *page = os_the_page();
    uint64_t place = page == NULL ? 0 : os_place(address);
    if (place == 0) return false;
    os_note(page, place, function);
    int phase = atomic_load(&page->phase);
    if (page->plan.place != place || phase == OS_RECOVERY || (phase == OS_START && page->plan.spares_start))
        return false;
    uint32_t n = atomic_fetch_add(&page->reached, 1);
    if (n < page->plan.spared || (n > page->plan.spared && !page->plan.lasts)) return false;
    atomic_fetch_add(&page->failed, 1);
    *error = page->plan.error;
    return true;
}

/* In a function of ours: returns `failure` if this call is refused. */
#define OS_REFUSE(name, failure)                                                                                       \
    do {                                                                                                               \
        int os_error;                                                                                                  \
        if (os_refused(name, __builtin_return_address(0), &os_error)) return (errno = os_error), (failure);            \
    } while (0)
/* The same where the result is the error. */
#define OS_REFUSE_NUMBER(name, address)                                                                                \
    do {                                                                                                               \
        int os_error;                                                                                                  \
        if (os_refused(name, address, &os_error)) return os_error;                                                     \
    } while (0)

/* ---- the functions ---- */

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    OS_REFUSE("mmap", MAP_FAILED);
    return (void *)os_call(SYS_mmap, address, size, protection, flags, fd, offset);
}

int munmap(void *address, size_t size) {
    OS_REFUSE("munmap", -1);
    return (int)os_call(SYS_munmap, address, size);
}

int mprotect(void *address, size_t size, int protection) {
    OS_REFUSE("mprotect", -1);
    return (int)os_call(SYS_mprotect, address, size, protection);
}

int madvise(void *address, size_t size, int advice) {
    OS_REFUSE("madvise", -1);
    return (int)os_call(SYS_madvise, address, size, advice);
}

void *mremap(void *address, size_t old_size, size_t size, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    void *target = (flags & MREMAP_FIXED) != 0 ? va_arg(rest, void *) : NULL;
    va_end(rest);
    OS_REFUSE("mremap", MAP_FAILED);
    return (void *)os_call(SYS_mremap, address, old_size, size, flags, target);
}

long syscall(long number, ...) {
    va_list rest;
    long a[6];
    va_start(rest, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_futex && ((int)a[1] & FUTEX_CMD_MASK) == FUTEX_WAKE) {
        struct os_page
            *page = os_the_page(); /* noted, but never refused: who sleeps would have nobody else to wake it */
        uint64_t place = page == NULL ? 0 : os_place(__builtin_return_address(0));
        if (place != 0) os_note(page, place, "futex wake");
    } else {
        OS_REFUSE(number == SYS_futex ? "futex wait" : "syscall", -1);
    }
    return os_result(os_raw(number, a[0], a[1], a[2], a[3], a[4], a[5]));
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    OS_REFUSE("clock_gettime", -1);
    return (int)os_call(SYS_clock_gettime, clock, time);
}

unsigned long getauxval(unsigned long type) {
    OS_REFUSE("getauxval", 0);
    unsigned long entry[2] = {AT_NULL + 1, 0};
    int fd = (int)os_raw(SYS_open, (long)"/proc/self/auxv", O_RDONLY, 0, 0, 0, 0);
    while (entry[0] != type && entry[0] != AT_NULL) os_raw(SYS_read, fd, (long)entry, sizeof entry, 0, 0, 0);
    os_raw(SYS_close, fd, 0, 0, 0, 0, 0);
    return entry[0] == type ? entry[1] : 0;
}

int stat(const char *restrict path, struct stat *restrict found) {
    OS_REFUSE("stat", -1);
    return (int)os_call(SYS_stat, path, found);
}

int access(const char *path, int mode) {
    OS_REFUSE("access", -1);
    return (int)os_call(SYS_access, path, mode);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    OS_REFUSE("open", -1);
    return (int)os_call(SYS_open, path, flags, mode);
}

ssize_t read(int fd, void *bytes, size_t count) {
    OS_REFUSE("read", os_error == 0 ? 0 : -1);
    return os_call(SYS_read, fd, bytes, count);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    OS_REFUSE("write", os_error == 0 ? 0 : -1);
    return os_call(SYS_write, fd, bytes, count);
}

int close(int fd) {
    OS_REFUSE("close", -1);
    return (int)os_call(SYS_close, fd);
}

int fcntl(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    long argument = va_arg(rest, long);
    va_end(rest);
    OS_REFUSE("fcntl", -1);
    return (int)os_call(SYS_fcntl, fd, command, argument);
}

ssize_t readlink(const char *path, char *text, size_t size) {
    OS_REFUSE("readlink", -1);
    return os_call(SYS_readlink, path, text, size);
}

int pthread_key_create(pthread_key_t *key, void (*destructor)(void *)) {
    int (*real)(pthread_key_t *, void (*)(void *)) = NULL;
    OS_REFUSE_NUMBER("pthread_key_create", __builtin_return_address(0));
    *(void **)&real = dlsym(RTLD_NEXT, "pthread_key_create");
    return real(key, destructor);
}

int pthread_setspecific(pthread_key_t key, const void *value) {
    int (*real)(pthread_key_t, const void *) = NULL;
    OS_REFUSE_NUMBER("pthread_setspecific", __builtin_return_address(0));
    *(void **)&real = dlsym(RTLD_NEXT, "pthread_setspecific");
    return real(key, value);
}

/* hakmem calls it under its registry lock, at the end of the process: time for another thread to wait for the lock. */
int pthread_key_delete(pthread_key_t key) {
    int (*real)(pthread_key_t) = NULL;
    struct os_page *page = os_the_page();
    if (page != NULL && os_place(__builtin_return_address(0)) != 0) {
        struct timespec while_others_wait = {.tv_nsec = 20000000};
        atomic_store(&page->ends, true);
        os_raw(SYS_nanosleep, (long)&while_others_wait, 0, 0, 0, 0, 0);
    }
    *(void **)&real = dlsym(RTLD_NEXT, "pthread_key_delete");
    return real(key);
}

/* What pthread_atfork() is behind its wrapper, which hakmem leaves to: its place is that of the library's handle. */
int __register_atfork(void (*before)(void), void (*parent)(void), void (*child)(void), void *library);
int __register_atfork(void (*before)(void), void (*parent)(void), void (*child)(void), void *library) {
    int (*real)(void (*)(void), void (*)(void), void (*)(void), void *) = NULL;
    OS_REFUSE_NUMBER("pthread_atfork", library);
    *(void **)&real = dlsym(RTLD_NEXT, "__register_atfork");
    return real(before, parent, child, library);
}

#endif
