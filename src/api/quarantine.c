/* The quarantine (quarantine.h): a ring of pointers, oldest first. No lock, and no link in a block: a forked child
 * finds it in order, but for a block that another thread was just moving, which stays out of use. */
#include "api/quarantine.h"

#if HAK_QUARANTINE

#include "api/alloc.h"
#include "api/guard.h"
#include "base/options.h"
#include "base/sync.h"

#define SLOTS 65536

static void *_Atomic slots[SLOTS];
static _Atomic uint64_t newest, oldest; /* slots ever filled, and ever emptied; a slot is one modulo SLOTS */
static _Atomic uint64_t held_bytes;

/* acquire: pairs with the swap of who put the block in; its use of the block is over. */
static void exchange(uint64_t at, void *ptr) {
    void *out = hak_xchg_acqrel(&slots[at % SLOTS], ptr);
    if (out == NULL) return; /* let go already, or its thread has not come to it yet */
    hak_sub_rlx(&held_bytes, hak_guard_given(out));
    hak_give_back(out, "free");
}

static void shrink_to(uint64_t bytes) {
    uint64_t at = hak_load_acq(&oldest), end;
    while (hak_load_rlx(&held_bytes) > bytes && at < (end = hak_load_acq(&newest))) {
        uint64_t next = end - at > SLOTS ? end - SLOTS : at; /* those before it have been overwritten */
        if (!hak_cas_acqrel(&oldest, &at, next + 1)) continue;
        exchange(next, NULL);
        at = next + 1;
    }
}

bool hak_quarantine_keep(void *ptr, size_t bytes) {
    uint64_t limit = hak_option(QUARANTINE);
    if (bytes > limit) return false;
    hak_add_rlx(&held_bytes, bytes);
    exchange(hak_add_rlx(&newest, 1), ptr);
    shrink_to(limit);
    return true;
}

void hak_quarantine_drain(void) { shrink_to(0); }

#endif
