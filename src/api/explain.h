/* What ASan's reports say beyond ASan: which block an address belongs to, and where it was allocated and freed. ASan
 * can tell that of its own blocks only. The history of a block stands at the end of its slack. ASan builds (HAK_TRACE).
 */
#ifndef HAK_API_EXPLAIN_H
#define HAK_API_EXPLAIN_H

#include "base/config.h"

/* A block of `size` requested bytes, for which its store gave `given` (HAK_EXACT_SLACK more at least), is allocated by
 * the calling function, or freed. */
void hak_explain_alloc(void *ptr, size_t size, size_t given);
void hak_explain_free(void *ptr, size_t given);

#endif
