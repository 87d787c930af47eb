/* build: -shared -fPIC */
/* A plug-in that uses malloc: in its constructor, in a function, and in its destructor. */
#include <stdlib.h>
#include <string.h>

size_t life_plugin_work(void);

static char *volatile kept;

__attribute__((constructor)) static void at_load(void) {
    kept = malloc(1000);
    if (kept != NULL) {
        memset(kept, 'k', 1000);
    }
}

__attribute__((destructor)) static void at_unload(void) { free(kept); }

/* The number of bytes that still hold what the constructor wrote. */
size_t life_plugin_work(void) {
    char *volatile large = malloc(100000);
    size_t right = 0;
    if (large == NULL || kept == NULL) {
        return 0;
    }
    memset(large, 'l', 100000);
    for (size_t i = 0; i < 1000; ++i) {
        right += kept[i] == 'k';
    }
    free(large);
    return right;
}
