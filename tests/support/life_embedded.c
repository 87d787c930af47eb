/* build: -shared -fPIC -Wl,-Bsymbolic $B/hakmem.o -pthread */
/* A library that carries hakmem inside itself and uses that one, whatever malloc the program has. */
#include <string.h>

#include "hakmem.h"

size_t life_embedded_work(void);

/* The number of sizes that were served right, of 8. */
size_t life_embedded_work(void) {
    static const size_t sizes[] = {1, 100, 1000, 10000, 40000, 100000, 1000000, 3000000};
    size_t right = 0;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
        char *block = hak_malloc(sizes[i]);
        if (block != NULL && hak_is_owned(block)) {
            memset(block, 'e', sizes[i]);
            right += block[sizes[i] - 1] == 'e';
        }
        hak_free(block);
    }
    return right;
}
