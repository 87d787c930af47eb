/* Which library serves malloc here? For each function the file that it comes from, and how many bytes the C library's
 * own allocator handed out while this program allocated. */
#include <dlfcn.h>
#include <malloc.h>
#include "bench.h"

#define BLOCKS 4000
#define BYTES 1000

static void tell_origin(const char *name) {
    Dl_info info;
    void *function = dlsym(RTLD_DEFAULT, name);
    printf("%s: %s\n", name, function != NULL && dladdr(function, &info) != 0 ? info.dli_fname : "nowhere");
}

/* Asked by the C library's handle: a preloaded library may replace mallinfo2 too. */
static size_t c_library_bytes(void) {
    struct mallinfo2 (*function)(void) = NULL;
    void *library = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
    if (library != NULL) *(void **)&function = dlsym(library, "mallinfo2");
    if (function == NULL) bench_fail("the C library has no mallinfo2");
    struct mallinfo2 info = function();
    return info.uordblks + info.hblkhd;
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 0, 0, "");
    static const char *const names[] = {"malloc", "free", "calloc", "realloc", "aligned_alloc", "posix_memalign"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) tell_origin(names[i]);
    static void *blocks[BLOCKS];
    size_t before = c_library_bytes();
    for (size_t i = 0; i < BLOCKS; i++) blocks[i] = bench_malloc(BYTES);
    printf("c_library: %zu bytes of %d\n", c_library_bytes() - before, BLOCKS * BYTES);
    for (size_t i = 0; i < BLOCKS; i++) free(blocks[i]);
    return 0;
}
