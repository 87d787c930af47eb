/* Heaps and their lives: made or taken over at a thread's first allocation, parked at its end; their slabs; and the
 * shared heap (heap.h). */
#include "front/heap.h"

#include "base/options.h"
#include "base/sys.h"
#include "front/fork.h"
#include "front/registry.h"
#include "front/remote.h"
#include "front/tcache.h"
#include "pages/meta.h"
#include "pages/pages.h"

#include <pthread.h>

void *hak_null_slots[1] = {HAK_BIN_BOTTOM};
#define NULL_BINS                                                                                                      \
    { [0 ... HAK_CLASS_COUNT - 1] = HAK_NULL_BIN }

#define NULL_HEAP(what)                                                                                                \
    { .bin = NULL_BINS, .first_granule = HAK_NO_WINDOW, .outgoing = hak_no_outgoing, .kind = (what) }

struct hak_outgoing hak_no_outgoing[HAK_OUTGOING_SLOTS];
static struct hak_heap empty_heap = NULL_HEAP(HAK_HEAP_EMPTY), dead_heap = NULL_HEAP(HAK_HEAP_DEAD);

_Thread_local struct hak_heap *hak_tls_heap __attribute__((tls_model("initial-exec"))) = &empty_heap;

/* Of the rank of the registry lock; the two are never held together. */
static struct hak_lock key_lock = HAK_LOCK_INIT(HAK_RANK_HEAPS);
static enum { KEY_NONE, KEY_MADE, KEY_REFUSED } key_state HAK_GUARDED_BY(key_lock);
static pthread_key_t exit_key; /* constant once key_state is KEY_MADE */

/* Threads with a heap. Relaxed: only for how much each may cache. */
static _Atomic uint32_t threads;

static struct hak_lock shared_lock = HAK_LOCK_INIT(HAK_RANK_SHARED);
static struct hak_heap first_shared_heap;
static struct hak_heap *shared_heap HAK_GUARDED_BY(shared_lock);

/* ---- making heaps -------------------------------------------------------------------------------------- */

/* Before it is registered: from then on others read of it what is constant, `shared` among it. */
static void init_heap(struct hak_heap *heap, bool shared) {
    heap->shared = shared;
    hak_store_rlx(&heap->hold, HAK_HOLD_OWNER); /* until it belongs to a thread */
    heap->kind = HAK_HEAP_REAL;
    heap->first_granule = HAK_NO_WINDOW;
    heap->outgoing = hak_no_outgoing;
    heap->outgoing_room = (int64_t)hak_option(REMOTE_BYTES) - 1;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) heap->bin[c] = (struct hak_bin)HAK_NULL_BIN;
    for (size_t i = 0; i < sizeof heap->bin_index; i++)
        heap->bin_index[i] = (uint8_t)(2 * hak_class_of(i * HAK_MIN_ALIGN));
}

static struct hak_heap *new_heap(bool shared) {
    struct hak_heap *heap;
    do {
        char *memory = hak_meta_alloc(HAK_HEAP_LEAD + sizeof *heap);
        if (memory == NULL) return NULL;
        heap = (struct hak_heap *)(void *)(memory + HAK_HEAP_LEAD);
        init_heap(heap, shared);
    } while (!hak_registry_add(heap)); /* one that is rejected is lost, once */
    return heap;
}

/* ---- threads ------------------------------------------------------------------------------------------- */

/* The end of a thread. Destructors that run after this one, and the C library, go to the shared heap. */
static void on_thread_exit(void *value) {
    struct hak_heap *heap = value;
    hak_fork_check();
    if (heap != hak_tls_heap) return; /* the thread was forked, or the key was set by hand */
    bool nested;
    if (!hak_heap_enter(heap, &nested)) return;
    hak_sub_rlx(&threads, 1);
    hak_tls_heap = &dead_heap;
    hak_registry_retire(heap);
    hak_slab_relieve();
}

static bool exit_key_ready(void) {
    hak_lock(&key_lock);
    if (key_state == KEY_NONE) key_state = pthread_key_create(&exit_key, on_thread_exit) == 0 ? KEY_MADE : KEY_REFUSED;
    bool ready = key_state == KEY_MADE;
    hak_unlock(&key_lock);
    return ready;
}

void hak_heap_forget_threads(void) {
    hak_fork_check();
    hak_lock(&key_lock);
    if (key_state == KEY_MADE) pthread_key_delete(exit_key);
    key_state = KEY_REFUSED;
    hak_unlock(&key_lock);
}

static bool is_first_heap(const struct hak_heap *heap) { return heap->next == NULL; }

/* A thread whose end we cannot see must not have a heap, or the heap would be lost with it. The first thread is
 * excepted: it ends with the process. */
static bool watch_thread_exit(struct hak_heap *heap, bool key_ready) {
    if (key_ready && pthread_setspecific(exit_key, heap) == 0) return true;
    return is_first_heap(heap);
}

static HAK_COLD struct hak_heap *attach(void) {
    static _Atomic bool started; /* by the one thread that finds it unset; several may come first at once */
    if (!hak_load_rlx(&started) && !hak_xchg_acqrel(&started, true)) {
        hak_options_init(hak_sys_environ());
        hak_fork_watch();
    }
    const bool key_ready = exit_key_ready();
    struct hak_heap *heap = key_ready ? pthread_getspecific(exit_key) : NULL;
    /* If there is one, it was set before the program was relocated (early.c), or a child has given it up. */
    if (heap != NULL && hak_load_rlx(&heap->hold) != HAK_HOLD_GONE) return hak_tls_heap = heap;
    heap = hak_registry_take_parked();
    if (heap == NULL) heap = new_heap(false);
    if (heap == NULL) return NULL; /* short of memory: the next allocation tries again */
    hak_tls_heap = heap;           /* before anything below that may allocate */
    if (!watch_thread_exit(heap, key_ready)) {
        hak_tls_heap = &dead_heap;
        hak_registry_retire(heap);
        return NULL;
    }
    hak_add_rlx(&threads, 1);
    hak_remote_collect(heap);
    if (HAK_PREWARM_TLS) hak_tcache_prewarm(heap);
    hak_heap_leave(heap, false);
    return heap;
}

struct hak_heap *hak_heap_initial(void) {
    return &empty_heap;
}

struct hak_heap *hak_heap_get(void) {
    struct hak_heap *heap = hak_tls_heap;
    if (hak_likely(heap->kind == HAK_HEAP_REAL)) return heap;
    return heap->kind == HAK_HEAP_EMPTY ? attach() : NULL;
}

uint32_t hak_heap_threads(void) { return hak_load_rlx(&threads); }

struct hak_heap *hak_heap_peek(void) {
    struct hak_heap *heap = hak_tls_heap;
    return heap->kind == HAK_HEAP_REAL ? heap : NULL;
}

void hak_heap_look_at(struct hak_heap *heap, const void *ptr) {
    /* A fork, or a signal, in between finds a view of nothing: half of one would send blocks to wrong bins. */
    heap->first_granule = HAK_NO_WINDOW;
    hak_forget_memory();
    heap->window = hak_region_leaf_of(ptr)->tag;
    hak_forget_memory();
    heap->first_granule = ((uintptr_t)ptr >> HAK_WINDOW_SHIFT) << (HAK_WINDOW_SHIFT - HAK_GRANULE_SHIFT);
}

/* ---- slabs of a heap ------------------------------------------------------------------------------------ */

void hak_heap_list(struct hak_heap *heap, struct hak_slab *slab) {
    struct hak_slab **list = &heap->slabs[slab->size_class];
    slab->listed = true;
    slab->prev = NULL;
    slab->next = *list;
    if (*list != NULL) (*list)->prev = slab;
    *list = slab;
    heap->listed |= (uint64_t)1 << slab->size_class;
}

void hak_heap_unlist(struct hak_heap *heap, struct hak_slab *slab) {
    if (slab->prev != NULL) slab->prev->next = slab->next;
    else heap->slabs[slab->size_class] = slab->next;
    if (slab->next != NULL) slab->next->prev = slab->prev;
    else if (slab->prev == NULL) heap->listed &= ~((uint64_t)1 << slab->size_class);
    slab->listed = false;
}

/* A slab of the class has come to the heap, or (`change` -1) left it. */
static void count_slab(struct hak_heap *heap, unsigned size_class, int change) {
    hak_count_by_owner(&heap->slabs_owned[size_class], (uint32_t)change);
    heap->granules += (uint32_t)change * hak_class_slabs(size_class);
}

static void give(struct hak_heap *heap, struct hak_slab *slab) {
    count_slab(heap, slab->size_class, -1);
    hak_heap_unlist(heap, slab);
    hak_slab_give(slab);
}

void hak_heap_settle(struct hak_heap *heap, struct hak_slab *slab) {
    if (!slab->listed) hak_heap_list(heap, slab);
    if (!hak_slab_is_empty(slab)) return;
    bool last = slab->prev == NULL && slab->next == NULL, in_use = heap == hak_tls_heap || heap->shared;
    if (!last || !in_use) give(heap, slab); /* one stays, against thrash */
    else heap->with_empty |= (uint64_t)1 << slab->size_class;
}

void hak_heap_give_empty(struct hak_heap *heap, unsigned size_class) {
    for (struct hak_slab *slab = heap->slabs[size_class], *next; slab != NULL; slab = next) {
        next = slab->next;
        if (hak_slab_is_empty(slab)) give(heap, slab);
    }
    heap->with_empty &= ~((uint64_t)1 << size_class);
}

void hak_heap_give_all_empty(struct hak_heap *heap) {
    for (uint64_t left = heap->with_empty; left != 0; left &= left - 1)
        hak_heap_give_empty(heap, (unsigned)__builtin_ctzll(left));
}

/* Moves a listed slab from one heap to another; the caller owns both. */
static void move_slab(struct hak_heap *from, struct hak_heap *to, struct hak_slab *slab) {
    unsigned c = slab->size_class;
    uint64_t out = (uint64_t)slab->blocks - slab->free_count;
    hak_heap_unlist(from, slab);
    count_slab(from, c, -1);
    hak_count_by_owner(&from->blocks_out[c], -out);
    hak_slab_adopt(slab, to, hak_heap_tag(to));
    count_slab(to, c, 1);
    hak_count_by_owner(&to->blocks_out[c], out);
    hak_count_by_owner(&to->adopted_slabs, 1);
}

/* Claims a heap that has slabs of the class and is nobody's at the moment, and takes the first of them. */
static struct hak_slab *adopt(struct hak_heap *heap, unsigned size_class) {
    struct hak_heap *from = hak_registry_claim_with(size_class);
    if (from == NULL) return NULL;
    struct hak_slab *slab = from->slabs[size_class];
    hak_assert(slab != NULL); /* parked_classes says so */
    move_slab(from, heap, slab);
    hak_registry_park(from); /* what its bins hold of the slab goes the way of others' blocks */
    return slab;
}

static bool at_slab_limit(const struct hak_heap *heap, unsigned size_class) {
    uint64_t limit = hak_option(SUPERSLABS_MAX) * HAK_SUPERSLAB_SLABS;
    uint64_t next = (hak_load_rlx(&heap->slabs_owned[size_class]) + (uint64_t)1) * hak_class_slabs(size_class);
    return hak_unlikely(limit != 0) && next > limit;
}

struct hak_slab *hak_heap_more(struct hak_heap *heap, unsigned size_class) {
    if (at_slab_limit(heap, size_class)) return NULL;
    struct hak_slab *slab = adopt(heap, size_class);
    if (slab == NULL) {
        bool huge = hak_pages_may_be_huge((uint64_t)heap->granules * HAK_GRANULE);
        slab = hak_slab_take(size_class, heap, hak_heap_tag(heap), huge);
        if (slab == NULL) return NULL;
        count_slab(heap, size_class, 1);
    }
    hak_heap_list(heap, slab);
    return slab;
}

void *hak_heap_take_one(struct hak_heap *heap, unsigned size_class) {
    struct hak_slab *slab = heap->slabs[size_class];
    if (slab == NULL) return NULL;
    void *ptr;
    hak_slab_take_blocks(slab, &ptr, 1);
    if (slab->free_count == 0) hak_heap_unlist(heap, slab);
    hak_heap_count_taken(heap, size_class, 1);
    return ptr;
}

/* ---- the shared heap ----------------------------------------------------------------------------------- */

/* The shared heap; a child that has set one aside takes the next from the arena. */
static struct hak_heap *shared_heap_locked(void) HAK_REQUIRES(shared_lock) {
    if (shared_heap != NULL) return shared_heap;
    struct hak_heap *heap = NULL;
    if (!first_shared_heap.shared) {
        init_heap(&first_shared_heap, true);
        if (hak_registry_add(&first_shared_heap)) heap = &first_shared_heap;
    }
    if (heap == NULL) heap = new_heap(true);
    return shared_heap = heap;
}

void *hak_heap_shared_alloc(unsigned size_class) {
    void *ptr = NULL;
    struct hak_slab *slab = NULL;
    struct hak_heap *heap;
    do {
        hak_lock(&shared_lock);
        heap = shared_heap_locked();
        if (heap != NULL) {
            hak_remote_collect(heap);
            /* The new slab goes back if others have freed blocks meanwhile. If it is not this heap's, a fork in
             * between has set that one aside, and the slab with it. */
            if (slab != NULL && hak_load_acq(&slab->owner) == heap) {
                count_slab(heap, size_class, 1);
                hak_heap_settle(heap, slab);
            }
            ptr = hak_heap_take_one(heap, size_class);
        }
        hak_unlock(&shared_lock);
        /* The OS is not called under the lock. */
        slab = heap != NULL && ptr == NULL ? hak_slab_take(size_class, heap, hak_heap_tag(heap), false) : NULL;
    } while (slab != NULL);
    hak_slab_relieve();
    return ptr;
}

void hak_heap_shared_flush(void) {
    hak_lock(&shared_lock);
    if (shared_heap != NULL) {
        hak_remote_collect(shared_heap);
        hak_heap_give_all_empty(shared_heap);
    }
    hak_unlock(&shared_lock);
}

/* ---- fork ------------------------------------------------------------------------------------------------ */

void hak_heap_fork_child(void) HAK_NO_TSA {
    hak_lock_reset_in_child(&key_lock);
    if (!hak_registry_fork_child()) hak_tls_heap = &empty_heap;
    hak_store_rlx(&threads, hak_tls_heap->kind == HAK_HEAP_REAL);
    if (hak_lock_reset_in_child(&shared_lock)) shared_heap = NULL;
}
