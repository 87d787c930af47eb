/* build: -shared -fPIC */
/* A library that tests load with RTLD_DEEPBIND: its malloc and free are then the C library's, not the preloaded ones.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

void *deepbind_alloc(size_t size);
void deepbind_free(void *block);
void *deepbind_address_of_malloc(void);

void *deepbind_alloc(size_t size) {
    void *block = malloc(size);
    if (block) {
        memset(block, 0x6B, size);
    }
    return block;
}

void deepbind_free(void *block) { free(block); }

void *deepbind_address_of_malloc(void) {
    void *(*volatile own)(size_t) = malloc;
    void *address;
    memcpy(&address, (const void *)&own, sizeof address);
    return address;
}
