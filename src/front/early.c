/* Makes hakmem usable while the dynamic linker still relocates the program: an IFUNC resolver of the program may call
 * malloc then. The linker copies the initial content of thread-local storage only after all relocations, so at that
 * time hak_tls_heap is NULL, which the hit paths do not test for. The resolver below runs when this library itself is
 * relocated, before the program is, and sets the pointer.
 *
 * Part of the shared libraries only: in a static program resolvers run before there is any thread-local storage, and
 * musl's linker knows no IFUNC. Everything set this way is overwritten later; hak_heap_get() finds the heap again. */
#include "front/heap.h"

#if !HAK_TEST && defined(__GLIBC__)

static void nothing(void) {}

__attribute__((used)) static void (*set_heap_early(void))(void) {
    hak_tls_heap = hak_heap_initial();
    return nothing;
}

static void relocated_early(void) __attribute__((ifunc("set_heap_early")));

/* The reference that makes the linker run the resolver. */
__attribute__((used)) static void (*const run_resolver)(void) = relocated_early;

#endif
