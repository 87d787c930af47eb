/* Start and end of the process. Nothing has to have run before the first allocation: the front starts itself. What
 * is done here is what needs the C library: its environment, fork handlers, and a last word at exit. */
#include "api/stats.h"
#include "base/options.h"
#include "base/sys.h"
#include "front/fork.h"
#include "front/heap.h"

#include <pthread.h>

static void in_child(void) {
    hak_fork_handler();
    hak_stats_in_child();
}

/* No arguments: musl passes none to constructors. */
__attribute__((constructor(101))) static void boot(void) {
    hak_options_init(hak_sys_environ());
    hak_stats_at_start();
    pthread_atfork(NULL, NULL, in_child);
}

__attribute__((destructor(101))) static void at_end(void) {
    hak_stats_at_exit();
    hak_heap_forget_threads();
}
