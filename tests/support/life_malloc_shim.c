/* build: -shared -fPIC */
/* Stands before malloc as heap tracers do: counts, and calls the real one, which it finds with dlsym(). */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_size_t calls;

void *malloc(size_t size) {
    static void *(*real)(size_t);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "malloc");
    }
    atomic_fetch_add(&calls, 1);
    return real(size);
}

void *calloc(size_t count, size_t size) {
    static void *(*real)(size_t, size_t);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "calloc");
    }
    atomic_fetch_add(&calls, 1);
    return real(count, size);
}

__attribute__((destructor)) static void at_end(void) {
    if (atomic_load(&calls) < 100) {
        _exit(3);
    }
}
