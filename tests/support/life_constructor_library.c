/* build: -shared -fPIC */
/* The same in a library that is preloaded: the blocks are freed when it is unloaded at the end. */
#include <unistd.h>

#include "life_early.h"

__attribute__((constructor(101))) static void first(void) { life_early_make(); }

__attribute__((destructor(101))) static void last(void) {
    if (life_early_report() != 0) {
        _exit(1);
    }
    fflush(stdout);
}
