/* Freed blocks held back, so that a use after free meets a freed block and not its next owner. Builds for ASan and
 * Valgrind only (HAK_QUARANTINE); bounded in bytes by HAKMEM_QUARANTINE, and in number. To the layers below, a block in
 * here is live. */
#ifndef HAK_API_QUARANTINE_H
#define HAK_API_QUARANTINE_H

#include "base/config.h"

/* Holds back a block for which its store gave `bytes`. False: it is too large, and goes on to its store. */
bool hak_quarantine_keep(void *ptr, size_t bytes);
/* Lets all go. */
void hak_quarantine_drain(void);

#endif
