/* build: -shared -fPIC */
/* Stands before the C library's memory calls and looks up the real ones with dlsym() at the first call, which may come
 * from the allocator's own start. A lookup that fails comes first: dlsym() allocates the text of the error. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* volatile: dlsym() is declared not to call back into this file, but through the allocator it does. Not thread-local:
 * that does not exist yet while programs are relocated. So this is for programs with one thread. */
static volatile bool looking_up;

/* The real function; NULL while a lookup is going on, which then must do with the system call. */
static void *real(const char *name, void **found) {
    if (*found == NULL && !looking_up) {
        looking_up = true;
        (void)dlsym(RTLD_NEXT, "life_no_such_symbol");
        *found = dlsym(RTLD_NEXT, name);
        looking_up = false;
    }
    return *found;
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset) {
    static void *found;
    void *(*function)(void *, size_t, int, int, int, off_t) = NULL;
    *(void **)&function = real("mmap", &found);
    return function != NULL ? function(address, size, protection, flags, fd, offset)
                            : (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}

int munmap(void *address, size_t size) {
    static void *found;
    int (*function)(void *, size_t) = NULL;
    *(void **)&function = real("munmap", &found);
    return function != NULL ? function(address, size) : (int)syscall(SYS_munmap, address, size);
}

int madvise(void *address, size_t size, int advice) {
    static void *found;
    int (*function)(void *, size_t, int) = NULL;
    *(void **)&function = real("madvise", &found);
    return function != NULL ? function(address, size, advice) : (int)syscall(SYS_madvise, address, size, advice);
}

int mprotect(void *address, size_t size, int protection) {
    static void *found;
    int (*function)(void *, size_t, int) = NULL;
    *(void **)&function = real("mprotect", &found);
    return function != NULL ? function(address, size, protection)
                            : (int)syscall(SYS_mprotect, address, size, protection);
}
