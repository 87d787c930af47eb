/* Notices that this process is a forked child, and puts the allocator in order there (DESIGN section 8). */
#ifndef HAK_FRONT_FORK_H
#define HAK_FRONT_FORK_H

#include "base/sync.h"

/* 0 in a child that has not been put in order: the word lies in a page that the kernel wipes on fork. The pointer is
 * published with release by hak_fork_watch(): where several threads start at once, others check already. */
extern _Atomic uint32_t *_Atomic hak_fork_word;

/* Starts watching; once, early. */
void hak_fork_watch(void);
/* The child's handler for pthread_atfork(). */
void hak_fork_handler(void);
/* Puts the allocator in order in a child. */
void hak_fork_child(void);

HAK_INLINE void hak_fork_check(void) {
    if (hak_unlikely(hak_load_rlx(hak_load_acq(&hak_fork_word)) == 0)) hak_fork_child();
}

#endif
