/* What white-box tests share whatever else they include: to set an option, and the counters of the front floor. */
#ifndef TESTS_SUPPORT_INSIDE_H
#define TESTS_SUPPORT_INSIDE_H

#include "base/options.h"
#include "base/sync.h"
#include "front/heap.h"

#define set_option(name, value) hak_store_rlx(&hak_options.name, value)

static inline struct hak_front_stats stats_of_front(void) {
    struct hak_front_stats stats;
    hak_front_stats(&stats);
    return stats;
}

#endif
