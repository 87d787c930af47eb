/* What every store that serves whole blocks says to the router: the result of an allocation and of a free. */
#ifndef HAK_STORES_BLOCK_H
#define HAK_STORES_BLOCK_H

#include "base/config.h"

struct hak_block {
    void *ptr;    /* NULL: no memory */
    size_t bytes; /* usable */
    bool zero;    /* all of it is known to read as zero */
};

enum hak_free_result {
    HAK_FREE_OK,
    HAK_FREE_NOT_START, /* inside a live block */
    HAK_FREE_IN_FREE,   /* in memory that is free, but not where a block began that was freed */
    HAK_FREE_DOUBLE     /* the start of a block that was freed already */
};

#endif
