/* What the targets of the stores share: pages of another size, and operations that make system calls fail. */
#ifndef FUZZ_UNIT_H
#define FUZZ_UNIT_H

#include "bytes.h"

#include "support/whitebox.h"

#include "pages/pages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define UNIT_BEGIN_MS 100000000 /* later than any delay */

/* The defaults, and the page size that the first byte chooses. Nothing may be mapped. */
static inline void unit_begin(struct fuzz_bytes *in) {
    hak_options_reset_for_test();
    hak_sys_set_page_bytes_for_test(FUZZ_CHOOSE(in, 0, 16384, 65536));
}

/* Which system calls may be made to fail: a bit per enum hak_sys_call; the highest bits: calls of any kind. */
static uint8_t unit_faults = 0xff;

/* The next operation of the model; those of kind 0xff, which make system calls fail, are done here. */
static inline bool unit_next(struct fuzz_bytes *in, uint64_t *op) {
    while (fuzz_word(in, op)) {
        if ((*op & 0xff) != 0xff) return true;
        const unsigned first = *op >> 8 & 0xff, kind = (*op >> 16 & 0xff) % 8;
        if ((unit_faults >> kind & 1) != 0) set_faults(first, (*op >> 24 & 1) != 0, kind < 6 ? (int)kind : -1);
    }
    return false;
}

/* The system has recovered. */
static inline void unit_calm(void) { set_faults(0, false, -1); }

static inline void unit_end(void) {
    hak_pages_reset_for_test();
    hak_sys_set_page_bytes_for_test(0);
}

#endif
