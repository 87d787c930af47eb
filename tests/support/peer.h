/* White-box tests of heaps: blocks straight from the thread cache, and a second thread that does as it is told. */
#ifndef TESTS_SUPPORT_PEER_H
#define TESTS_SUPPORT_PEER_H

#include "support/inside.h"
#include "support/prefixed.h"

#include "front/heap.h"
#include "front/remote.h"
#include "front/tcache.h"

#define CLASS_1024 (HAK_TINY_CLASSES - 1)
#define PER_SLAB 64

static inline void *take(unsigned c) {
    void *ptr = hak_tcache_alloc(c);
    must(ptr != NULL);
    return ptr;
}

static inline void give(void *ptr) { hak_tcache_free(ptr, "free"); }

static inline struct hak_slab *slab_of(const void *ptr) { return hak_region_lookup(ptr).descriptor; }

/* A second thread that does as it is told, step by step. */
static struct {
    pthread_t thread;
    _Atomic int asked, done; /* how many steps */
    void *(*step)(void *);
    void *argument, *result;
} peer;

static inline void *obey(void *argument) {
    for (int n = 1;; n++) {
        while (atomic_load(&peer.asked) < n) usleep(200);
        if (peer.step == NULL) return argument;
        peer.result = peer.step(peer.argument);
        atomic_store(&peer.done, n);
    }
}

static inline void ask(void *(*step)(void *), void *argument) {
    if (atomic_load(&peer.asked) == 0) start_thread(&peer.thread, obey, NULL);
    peer.step = step;
    peer.argument = argument;
    int n = atomic_fetch_add(&peer.asked, 1) + 1;
    while (step != NULL && atomic_load(&peer.done) < n) usleep(200);
    if (step == NULL) must(pthread_join(peer.thread, NULL) == 0);
}

static inline void *peer_takes(void *c) { return take((unsigned)(uintptr_t)c); }
static inline void *peer_heap(void *unused) {
    (void)unused;
    return hak_heap_get();
}

#endif
