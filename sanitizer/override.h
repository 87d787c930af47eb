/* Gives a C program hakmem under the standard names where malloc itself belongs to a sanitizer:
 *     clang -fsanitize=address -include sanitizer/override.h -Iinclude program.c build/asan/libhakmem-asan.a -pthread
 * All files of the program must be compiled so. Names, not calls, are replaced: pointers to functions too. What the C
 * library allocates itself (getline, asprintf, realpath) stays the sanitizer's, and must not be passed to free();
 * strdup and strndup are here. */
#ifndef HAKMEM_SANITIZER_OVERRIDE_H
#define HAKMEM_SANITIZER_OVERRIDE_H

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "hakmem.h"

static inline __attribute__((unused)) char *hak_override_strndup(const char *s, size_t bytes) {
    size_t length = strnlen(s, bytes);
    char *copy = hak_malloc(length + 1);
    if (copy == NULL) return NULL;
    copy[length] = '\0';
    return memcpy(copy, s, length);
}
static inline __attribute__((unused)) char *hak_override_strdup(const char *s) {
    return hak_override_strndup(s, strlen(s));
}

#undef strdup
#undef strndup
#define malloc hak_malloc
#define calloc hak_calloc
#define realloc hak_realloc
#define reallocarray hak_reallocarray
#define free hak_free
#define aligned_alloc hak_aligned_alloc
#define posix_memalign hak_posix_memalign
#define memalign hak_memalign
#define valloc hak_valloc
#define pvalloc hak_pvalloc
#define malloc_usable_size hak_malloc_usable_size
#define strdup hak_override_strdup
#define strndup hak_override_strndup

#endif
