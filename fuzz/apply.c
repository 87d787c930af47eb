/* Applies operations (apply.h). A handler per kind: it decides what must come, calls, and hands over to `settle`, which
 * judges what came. */
#include "apply.h"

#include "base/options.h"
#include "base/sys.h"
#include "front/tcache.h"
#include "front/tick.h"
#include "hakmem.h"
#include "stores/bigcache.h"
#include "stores/l25.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNTOUCHED 4711 /* errno before each call: what does not fail leaves it alone */
#define ALIGNMENTS_SERVED ((size_t)128 << 20)

struct step {
    struct fuzz_run *run;
    const struct fuzz_at *at;
    struct fuzz_op op;
};

/* What was asked for. */
struct request {
    size_t bytes, align;
    bool zero;
    int error; /* that it must be answered with; 0: none, if the system has memory */
};

/* ---- judging what came ---------------------------------------------------------------------------------------- */

/* Exact builds ask for more than the caller; a large block of the checked build has a guard page instead. */
static uint8_t layer_of(size_t bytes, size_t align) {
    size_t wanted = HAK_EXACT && !(HAK_CHECKED && bytes > HAK_L25_MAX) ? bytes + HAK_EXACT_SLACK : bytes;
    size_t rounded = align <= HAK_MIN_ALIGN ? wanted : hak_round_up(wanted == 0 ? 1 : wanted, align);
    if (rounded <= HAK_TINY_MAX) return HAK_LAYER_TINY;
    if (rounded <= HAK_MID_MAX) return HAK_LAYER_MID;
    return wanted <= HAK_L25_MAX && align <= HAK_L25_MAX ? HAK_LAYER_L25 : HAK_LAYER_BIG;
}

static void note_refusal(struct fuzz_run *run, size_t bytes) {
    atomic_fetch_add_explicit(&run->refused, 1, memory_order_relaxed);
    size_t least = atomic_load_explicit(&run->refused_bytes, memory_order_relaxed);
    if (least == 0 || bytes < least) atomic_store_explicit(&run->refused_bytes, bytes, memory_order_relaxed);
}

static void judge_refusal(const struct step *s, const struct request *request, int error) {
    bool reasonable = request->error == 0 && request->bytes <= FUZZ_SIZE_SERVED;
    if (reasonable && !s->run->may_fail) fuzz_fail(s->at, "refused with errno %d", error);
    int wanted = request->error != 0 ? request->error : ENOMEM;
    if (error != wanted) fuzz_fail(s->at, "refused with errno %d, it should be %d", error, wanted);
    if (reasonable) note_refusal(s->run, request->bytes);
}

static void judge_place(const struct step *s, const struct fuzz_block *block) {
    if (((uintptr_t)block->ptr & (block->align - 1)) != 0)
        fuzz_fail(s->at, "the block %p is not aligned to %zu", (void *)block->ptr, block->align);
    if (block->usable < block->requested)
        fuzz_fail(s->at, "of %zu bytes only %zu are usable", block->requested, block->usable);
    const unsigned char *last = block->ptr + (block->usable == 0 ? 0 : block->usable - 1);
    if (hak_is_owned(block->ptr) != 1 || hak_is_owned(last) != 1)
        fuzz_fail(s->at, "is_owned denies the block %p", (void *)block->ptr);
}

/* hak_good_size() promises what a plain allocation gives; a mapping from BigCache may be larger. */
static void judge_size(const struct step *s, const struct fuzz_block *block) {
    size_t good = hak_good_size(block->requested);
    if (block->usable < good || (block->usable != good && block->requested <= HAK_L25_MAX))
        fuzz_fail(s->at, "%zu of %zu bytes are usable, good_size says %zu", block->usable, block->requested, good);
}

static void give_back(const struct step *s, struct fuzz_block *block) {
    fuzz_model_verify(s->at, block);
    fuzz_model_leave(s->run->model, s->at, block);
    hak_free(block->ptr);
}

/* Into the slot; if another thread filled it meanwhile, back to the allocator. */
static void keep(const struct step *s, struct fuzz_block *block) {
    if (!fuzz_model_put(s->run->model, s->op.slot, block)) give_back(s, block);
}

/* A fresh block, or none, for a request. */
static void settle(const struct step *s, void *ptr, const struct request *request) {
    int error = errno;
    if (ptr == NULL) {
        judge_refusal(s, request, error);
        return;
    }
    if (request->error != 0 || request->bytes > FUZZ_SIZE_SERVED) fuzz_fail(s->at, "answered with %p", ptr);
    if (error != UNTOUCHED) fuzz_fail(s->at, "met, with errno %d", error);
    struct fuzz_block *block = fuzz_model_record(s->run->model, s->at);
    *block = (struct fuzz_block){.ptr = ptr,
                                 .requested = request->bytes,
                                 .usable = hak_malloc_usable_size(ptr),
                                 .align = request->align,
                                 .layer = layer_of(request->bytes, request->align)};
    judge_place(s, block);
    if (request->align <= HAK_MIN_ALIGN) judge_size(s, block);
    if (request->zero) fuzz_model_verify_zero(s->at, ptr, block->usable);
    fuzz_model_enter(s->run->model, s->at, block);
    keep(s, block);
}

/* Room for what must be met; what must be refused needs none. */
static bool has_room(const struct step *s, size_t bytes, size_t align) {
    return bytes > FUZZ_SIZE_SERVED || align > ALIGNMENTS_SERVED || fuzz_model_has_room(s->run->model, bytes + align);
}

static bool can_allocate(const struct step *s, size_t bytes, size_t align) {
    return fuzz_model_is_empty(s->run->model, s->op.slot) && has_room(s, bytes, align);
}

/* ---- allocation ----------------------------------------------------------------------------------------------- */

static bool do_malloc(const struct step *s) {
    size_t bytes = fuzz_size(s->op.size);
    if (!can_allocate(s, bytes, 0)) return false;
    errno = UNTOUCHED;
    settle(s, hak_malloc(bytes), &(struct request){.bytes = bytes, .align = HAK_MIN_ALIGN});
    return true;
}

static bool do_at_least(const struct step *s) {
    size_t bytes = fuzz_size(s->op.size);
    if (!can_allocate(s, bytes, 0)) return false;
    errno = UNTOUCHED;
    struct hak_sized_ptr got = hak_malloc_at_least(bytes);
    int error = errno;
    if (got.ptr == NULL ? got.size != 0 : got.size != hak_malloc_usable_size(got.ptr))
        fuzz_fail(s->at, "says %zu bytes", got.size);
    errno = error;
    settle(s, got.ptr, &(struct request){.bytes = bytes, .align = HAK_MIN_ALIGN});
    return true;
}

static size_t array_bytes(struct fuzz_array array) {
    size_t bytes;
    return __builtin_mul_overflow(array.count, array.size, &bytes) ? SIZE_MAX : bytes;
}

static bool do_calloc(const struct step *s) {
    struct fuzz_array array = fuzz_array(s->op);
    size_t bytes = array_bytes(array);
    if (!can_allocate(s, bytes, 0)) return false;
    errno = UNTOUCHED;
    settle(s, hak_calloc(array.count, array.size),
           &(struct request){.bytes = bytes, .align = HAK_MIN_ALIGN, .zero = true});
    return true;
}

/* The request for an aligned block whose alignment must be answered with `error`, if it is no power of two. */
static struct request aligned_request(struct fuzz_aligned wanted, bool wrong) {
    struct request request = {.bytes = wanted.size, .align = wanted.align};
    if (wrong) request.error = EINVAL;
    else if (wanted.align > ALIGNMENTS_SERVED) request.error = ENOMEM;
    if (request.align < HAK_MIN_ALIGN) request.align = HAK_MIN_ALIGN;
    return request;
}

static bool do_aligned_alloc(const struct step *s) {
    struct fuzz_aligned wanted = fuzz_aligned(s->op.size);
    struct request request = aligned_request(wanted, !hak_is_pow2(wanted.align));
    if (!can_allocate(s, wanted.size, wanted.align)) return false;
    errno = UNTOUCHED;
    settle(s, hak_aligned_alloc(wanted.align, wanted.size), &request);
    return true;
}

static bool do_posix_memalign(const struct step *s) {
    struct fuzz_aligned wanted = fuzz_aligned(s->op.size);
    struct request request = aligned_request(wanted, !hak_is_pow2(wanted.align) || wanted.align % sizeof(void *) != 0);
    void *const before = &request;
    void *ptr = before;
    if (!can_allocate(s, wanted.size, wanted.align)) return false;
    errno = UNTOUCHED;
    int error = hak_posix_memalign(&ptr, wanted.align, wanted.size);
    if (errno != UNTOUCHED) fuzz_fail(s->at, "sets errno to %d", errno);
    if (error != 0 && ptr != before) fuzz_fail(s->at, "fails with %d and yet stores %p", error, ptr);
    errno = error != 0 ? error : UNTOUCHED;
    settle(s, error != 0 ? NULL : ptr, &request);
    return true;
}

static bool do_memalign(const struct step *s) {
    struct fuzz_aligned wanted = fuzz_aligned(s->op.size), rounded = {.align = 1, .size = wanted.size};
    while (rounded.align < wanted.align) rounded.align *= 2;
    struct request request = aligned_request(rounded, false);
    if (!can_allocate(s, wanted.size, rounded.align)) return false;
    errno = UNTOUCHED;
    settle(s, hak_memalign(wanted.align, wanted.size), &request);
    return true;
}

static bool do_valloc(const struct step *s) {
    size_t bytes = fuzz_size(s->op.size), page = hak_sys_page_bytes();
    if (!can_allocate(s, bytes, page)) return false;
    errno = UNTOUCHED;
    settle(s, hak_valloc(bytes), &(struct request){.bytes = bytes, .align = page});
    return true;
}

static bool do_pvalloc(const struct step *s) {
    size_t bytes = fuzz_size(s->op.size), page = hak_sys_page_bytes();
    if (!can_allocate(s, bytes, page)) return false;
    size_t pages = bytes > FUZZ_SIZE_SERVED ? bytes : bytes == 0 ? page : hak_round_up(bytes, page);
    errno = UNTOUCHED;
    settle(s, hak_pvalloc(bytes), &(struct request){.bytes = pages, .align = page});
    return true;
}

/* ---- realloc and its kin -------------------------------------------------------------------------------------- */

static void *call_realloc(void *ptr, struct fuzz_op op) { return hak_realloc(ptr, fuzz_size(op.size)); }
static void *call_rezalloc(void *ptr, struct fuzz_op op) { return hak_rezalloc(ptr, fuzz_size(op.size)); }
static void *call_reallocarray(void *ptr, struct fuzz_op op) {
    struct fuzz_array array = fuzz_array(op);
    return hak_reallocarray(ptr, array.count, array.size);
}

/* A small block that moved has its class, or that of a quarter more than it had if it grew: its layer is that of what
 * it has. Exact builds tell only what was asked for, and give no more. */
static uint8_t layer_after_move(const struct step *s, const struct fuzz_block *old, size_t bytes, size_t usable) {
    if (HAK_EXACT) return layer_of(bytes, HAK_MIN_ALIGN);
    const size_t roomy = old->usable + old->usable / 4, most = bytes > old->usable && roomy > bytes ? roomy : bytes;
    if (usable <= HAK_MID_MAX && usable > hak_good_size(most))
        fuzz_fail(s->at, "%zu bytes are usable, more than the room to grow from %zu to %zu", usable, old->usable,
                  bytes);
    return layer_of(usable, HAK_MIN_ALIGN);
}

/* The block could not be resized: it is as before. */
static void stays(const struct step *s, struct fuzz_block *old, size_t bytes) {
    judge_refusal(s, &(struct request){.bytes = bytes}, errno);
    fuzz_model_reenter(s->run->model, s->at, old);
    fuzz_model_verify(s->at, old);
    if (hak_malloc_usable_size(old->ptr) != old->usable) fuzz_fail(s->at, "fails and yet changes the usable size");
    keep(s, old);
}

static void resized(const struct step *s, const struct fuzz_block *old, void *ptr, size_t bytes, bool zero) {
    int error = errno;
    if (bytes > FUZZ_SIZE_SERVED) fuzz_fail(s->at, "answered with %p", ptr);
    if (error != UNTOUCHED) fuzz_fail(s->at, "met, with errno %d", error);
    struct fuzz_block *block = fuzz_model_record(s->run->model, s->at);
    const size_t usable = hak_malloc_usable_size(ptr);
    *block = (struct fuzz_block){.ptr = ptr,
                                 .requested = bytes,
                                 .usable = usable,
                                 .align = HAK_MIN_ALIGN,
                                 .layer = ptr == old->ptr ? old->layer : layer_after_move(s, old, bytes, usable)};
    judge_place(s, block);
    fuzz_model_verify_moved(s->at, old, ptr, bytes < old->usable ? bytes : old->usable);
    if (zero && block->usable > old->usable)
        fuzz_model_verify_zero(s->at, block->ptr + old->usable, block->usable - old->usable);
    fuzz_model_enter(s->run->model, s->at, block);
    keep(s, block);
}

static bool resize(const struct step *s, void *(*call)(void *, struct fuzz_op), size_t bytes, bool zero) {
    if (!has_room(s, bytes, 0)) return false;
    struct fuzz_block *old = fuzz_model_take(s->run->model, s->op.slot);
    if (old == NULL) {
        errno = UNTOUCHED;
        settle(s, call(NULL, s->op), &(struct request){.bytes = bytes, .align = HAK_MIN_ALIGN, .zero = zero});
        return true;
    }
    fuzz_model_verify(s->at, old);
    fuzz_model_leave(s->run->model, s->at, old);
    errno = UNTOUCHED;
    void *ptr = call(old->ptr, s->op);
    if (ptr != NULL) resized(s, old, ptr, bytes, zero);
    else if (bytes != 0) stays(s, old, bytes);
    else if (errno != UNTOUCHED) fuzz_fail(s->at, "frees, with errno %d", errno);
    return true;
}

static bool do_realloc(const struct step *s) { return resize(s, call_realloc, fuzz_size(s->op.size), false); }
static bool do_rezalloc(const struct step *s) { return resize(s, call_rezalloc, fuzz_size(s->op.size), true); }
static bool do_reallocarray(const struct step *s) {
    return resize(s, call_reallocarray, array_bytes(fuzz_array(s->op)), false);
}

/* ---- free ----------------------------------------------------------------------------------------------------- */

static void call_free(const struct fuzz_block *block, uint16_t code) {
    (void)code;
    hak_free(block == NULL ? NULL : block->ptr);
}

static void call_cfree(const struct fuzz_block *block, uint16_t code) {
    (void)code;
    hak_cfree(block == NULL ? NULL : block->ptr);
}

/* Any size from the requested to the usable one is right. */
static size_t size_to_tell(const struct fuzz_block *block, uint16_t code) {
    return block->requested + code % (block->usable - block->requested + 1);
}

static void call_free_sized(const struct fuzz_block *block, uint16_t code) {
    if (block == NULL) hak_free_sized(NULL, code);
    else hak_free_sized(block->ptr, size_to_tell(block, code));
}

static void call_free_aligned_sized(const struct fuzz_block *block, uint16_t code) {
    if (block == NULL) hak_free_aligned_sized(NULL, HAK_MIN_ALIGN, code);
    else hak_free_aligned_sized(block->ptr, block->align, size_to_tell(block, code));
}

static bool release(const struct step *s, void (*call)(const struct fuzz_block *, uint16_t)) {
    struct fuzz_block *block = fuzz_model_take(s->run->model, s->op.slot);
    if (block != NULL) {
        fuzz_model_verify(s->at, block);
        fuzz_model_leave(s->run->model, s->at, block);
    }
    errno = UNTOUCHED;
    call(block, s->op.size);
    if (errno != UNTOUCHED) fuzz_fail(s->at, "sets errno to %d", errno);
    return true;
}

static bool do_free(const struct step *s) { return release(s, call_free); }
static bool do_cfree(const struct step *s) { return release(s, call_cfree); }
static bool do_free_sized(const struct step *s) { return release(s, call_free_sized); }
static bool do_free_aligned_sized(const struct step *s) { return release(s, call_free_aligned_sized); }

/* ---- questions ------------------------------------------------------------------------------------------------ */

/* Takes the block out for a question about it, and puts it back. */
static bool ask(const struct step *s, void (*question)(const struct step *, struct fuzz_block *)) {
    struct fuzz_block *block = fuzz_model_take(s->run->model, s->op.slot);
    if (block == NULL) return false;
    question(s, block);
    keep(s, block);
    return true;
}

static void ask_usable(const struct step *s, struct fuzz_block *block) {
    size_t now = hak_malloc_usable_size(block->ptr);
    if (now != block->usable) fuzz_fail(s->at, "the usable size was %zu and is %zu", block->usable, now);
}

static void ask_owned(const struct step *s, struct fuzz_block *block) {
    if (hak_is_owned(block->ptr + block->requested / 2) != 1) fuzz_fail(s->at, "denied");
    if (hak_is_owned(NULL) != 0 || hak_is_owned(&block) != 0 || hak_is_owned((void *)UINTPTR_MAX) != 0)
        fuzz_fail(s->at, "claims what is not hakmem's");
}

static void write_anew(const struct step *s, struct fuzz_block *block) {
    fuzz_model_verify(s->at, block);
    block->id += s->op.size;
    fuzz_model_write(block);
}

static bool do_usable(const struct step *s) { return ask(s, ask_usable); }
static bool do_is_owned(const struct step *s) { return ask(s, ask_owned); }
static bool do_touch(const struct step *s) { return ask(s, write_anew); }

static bool do_good_size(const struct step *s) {
    size_t bytes = fuzz_size(s->op.size), good = hak_good_size(bytes);
    bool possible = bytes <= HAK_SIZE_MAX - HAK_GRANULE;
    if (good == SIZE_MAX || (possible ? good < bytes : good != 0)) fuzz_fail(s->at, "is %zu", good);
    if (possible && bytes <= FUZZ_SIZE_SERVED && hak_good_size(good) != good)
        fuzz_fail(s->at, "is %zu, but of that it is %zu", good, hak_good_size(good));
    return true;
}

/* ---- the rest of the interface -------------------------------------------------------------------------------- */

static bool do_flush(const struct step *s) {
    (void)s;
    errno = UNTOUCHED;
    hak_thread_flush();
    return true;
}

static bool do_purge(const struct step *s) {
    errno = UNTOUCHED;
    hak_purge();
    if (errno != UNTOUCHED) fuzz_fail(s->at, "sets errno to %d", errno);
    return true;
}

static bool do_trim(const struct step *s) {
    int given = hak_malloc_trim(fuzz_size(s->op.size));
    if (given != 0 && given != 1) fuzz_fail(s->at, "returns %d", given);
    return true;
}

static int null_fd = -1; /* constant after the first run began */

static void print_stats(const struct step *s, enum hak_format format) {
    int error = hak_stats_print(null_fd, format);
    if (error != 0) fuzz_fail(s->at, "printing fails with %d", error);
}

static void wrong_stats(const struct step *s) {
    struct hak_stats stats = {.version = HAK_STATS_VERSION + 1, .size = sizeof stats};
    if (hak_stats_get(&stats) != EINVAL || hak_stats_get(NULL) != EINVAL) fuzz_fail(s->at, "EINVAL was due");
    if (hak_stats_print(null_fd, (enum hak_format)2) != EINVAL) fuzz_fail(s->at, "EINVAL was due for the format");
}

static void short_stats(const struct step *s) {
    struct hak_stats stats = {.version = HAK_STATS_VERSION};
    size_t head = offsetof(struct hak_stats, layer), last = offsetof(struct hak_stats, foreign_frees);
    stats.size = (uint32_t)(head + s->op.size % (last - head + 1));
    stats.foreign_frees = UINT64_MAX;
    if (hak_stats_get(&stats) != 0 || stats.foreign_frees != UINT64_MAX)
        fuzz_fail(s->at, "writes behind the size %u that was given", stats.size);
}

static void compare_mallinfo(const struct step *s) {
    struct mallinfo2 info = hak_mallinfo2();
    if (info.arena != info.uordblks + info.fordblks) fuzz_fail(s->at, "mallinfo2 does not add up");
    if (hak_mallinfo().hblks < 0) fuzz_fail(s->at, "mallinfo counts %d blocks", hak_mallinfo().hblks);
}

/* A stream has a lock that a scheduler does not know. */
static void write_info(const struct step *s) {
    FILE *out = s->run->single ? fopen("/dev/null", "w") : NULL;
    if (out == NULL) return;
    if (hak_malloc_info(0, out) != 0) fuzz_fail(s->at, "malloc_info fails");
    if (hak_malloc_info(1, out) != -1) fuzz_fail(s->at, "malloc_info takes options");
    fclose(out);
}

static bool do_stats(const struct step *s) {
    switch (s->op.slot % 8) {
    case 0:
        print_stats(s, HAK_FORMAT_TEXT);
        break;
    case 1:
        print_stats(s, HAK_FORMAT_JSON);
        break;
    case 2:
        compare_mallinfo(s);
        break;
    case 3:
        write_info(s);
        break;
    case 4:
        wrong_stats(s);
        break;
    default:
        short_stats(s);
    }
    return true;
}

static bool do_mallopt(const struct step *s) {
    static const int parameters[] = {M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_PERTURB, M_TOP_PAD};
    int which = s->op.slot % 4, value = which < 2 ? s->op.size << 10 : s->op.size & 255;
    int wanted = which < 2 || (which == 2 && HAK_CHECKED), got = hak_mallopt(parameters[which], value);
    if (got != wanted) fuzz_fail(s->at, "returns %d", got);
    return true;
}

static bool do_time(const struct step *s) {
    if (s->run->pass_time == NULL) return false;
    s->run->pass_time(s->run, fuzz_ms(s->op.size));
    return true;
}

static bool do_control(const struct step *s) {
    return s->run->control != NULL && s->run->control(s->run, s->at, s->op);
}

/* ---- dispatch ------------------------------------------------------------------------------------------------- */

static bool (*const handlers[FUZZ_KIND_COUNT])(const struct step *s) = {
    [FUZZ_MALLOC] = do_malloc,
    [FUZZ_CALLOC] = do_calloc,
    [FUZZ_REALLOC] = do_realloc,
    [FUZZ_REALLOCARRAY] = do_reallocarray,
    [FUZZ_FREE] = do_free,
    [FUZZ_FREE_SIZED] = do_free_sized,
    [FUZZ_FREE_ALIGNED_SIZED] = do_free_aligned_sized,
    [FUZZ_CFREE] = do_cfree,
    [FUZZ_ALIGNED_ALLOC] = do_aligned_alloc,
    [FUZZ_POSIX_MEMALIGN] = do_posix_memalign,
    [FUZZ_MEMALIGN] = do_memalign,
    [FUZZ_VALLOC] = do_valloc,
    [FUZZ_PVALLOC] = do_pvalloc,
    [FUZZ_USABLE] = do_usable,
    [FUZZ_AT_LEAST] = do_at_least,
    [FUZZ_REZALLOC] = do_rezalloc,
    [FUZZ_GOOD_SIZE] = do_good_size,
    [FUZZ_IS_OWNED] = do_is_owned,
    [FUZZ_TOUCH] = do_touch,
    [FUZZ_FLUSH] = do_flush,
    [FUZZ_PURGE] = do_purge,
    [FUZZ_TRIM] = do_trim,
    [FUZZ_STATS] = do_stats,
    [FUZZ_MALLOPT] = do_mallopt,
    [FUZZ_TIME] = do_time,
    [FUZZ_THREAD_EXIT] = do_control,
    [FUZZ_THREAD_START] = do_control,
    [FUZZ_FORK] = do_control,
    [FUZZ_FAULT] = do_control,
    [FUZZ_MISUSE] = do_control,
};

#define OPS_PER_CHECK 64

bool fuzz_apply_op(struct fuzz_run *run, const struct fuzz_at *at, struct fuzz_op op) {
    if (op.kind >= FUZZ_KIND_COUNT) return false;
    return handlers[op.kind](&(struct step){.run = run, .at = at, .op = op});
}

bool fuzz_apply(struct fuzz_run *run, const struct fuzz_at *at) {
    struct fuzz_op op = fuzz_op_at(at->input, at->index);
    bool applied = fuzz_apply_op(run, at, op);
    if (run->single && op.kind == FUZZ_STATS) fuzz_model_compare_stats(run->model, at);
    if (run->single && at->index % OPS_PER_CHECK == OPS_PER_CHECK - 1) {
        fuzz_model_verify_all(run->model, at);
        fuzz_model_compare_stats(run->model, at);
        fuzz_check_structures(at);
    }
    return applied;
}

/* ---- begin and end -------------------------------------------------------------------------------------------- */

static uint64_t clock_ms = 1000000; /* of single runs; goes on from input to input, so that all that was due is done */

static void pass_time_of_single(struct fuzz_run *run, uint64_t ms) {
    (void)run;
    clock_ms += ms;
    hak_sys_set_now_for_test(clock_ms);
    struct hak_heap *heap = hak_heap_peek();
    if (heap != NULL) heap->visits = UINT32_MAX; /* the next visit looks at the clock */
    hak_tick();
}

#define SET(name, value) hak_store_rlx(&hak_options.name, value)

/* Options that bring small inputs to places where else only large programs come. True if requests may be refused. */
static bool set_profile(uint8_t profile) {
    switch (profile % 8) {
    case 1: /* bins of one and two blocks */
        SET(PREWARM, 0);
        SET(TLS_SLOTS_MIN, 1);
        SET(TLS_SLOTS_MAX, 2);
        return false;
    case 2: /* nothing free is kept */
        SET(RETAIN_BYTES, 0);
        SET(RETAIN_PERCENT, 0);
        SET(PURGE_DELAY_MS, 0);
        SET(UNMAP_DELAY_MS, 0);
        return false;
    case 3: /* BigCache keeps nothing */
        SET(BIGCACHE_BLOCK_MAX, HAK_L25_MAX);
        return false;
    case 4: /* BigCache is always full */
        SET(BIGCACHE_MAPPED, 8 * HAK_MIB);
        SET(BIGCACHE_RESIDENT, 4 * HAK_MIB);
        SET(BIGCACHE_CHAIN_MAX, 1);
        SET(BIGCACHE_DECAY_MS, 10);
        return false;
    case 5: /* the shard table grows at once */
        SET(L25_SHARDS_MIN, 1);
        SET(L25_LOAD, 1);
        SET(L25_CHECK_MS, 1);
        return false;
    case 6: /* a limit is reached */
        SET(SUPERSLABS_MAX, 1);
        return true;
    case 7: /* the thread cache is always full */
        SET(TLS_BYTES, 4096);
        SET(TLS_CLASS_BYTES, 1024);
        SET(REMOTE_BYTES, 0);
        return false;
    default:
        return false;
    }
}

void fuzz_profile_reset(void) {
    hak_options_reset_for_test();
    hak_mallopt(M_PERTURB, 0);
}

void fuzz_run_begin(struct fuzz_run *run, const struct fuzz_input *input) {
    if (null_fd < 0) null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (run->model == NULL) run->model = fuzz_model_create();
    if (run->model == NULL) abort();
    run->input = input;
    atomic_store_explicit(&run->refused, 0, memory_order_relaxed);
    atomic_store_explicit(&run->refused_bytes, 0, memory_order_relaxed);
    if (set_profile(input->config.profile)) run->may_fail = true;
    if (run->single) {
        run->pass_time = pass_time_of_single;
        hak_sys_set_now_for_test(clock_ms);
    }
    hak_free(hak_malloc(1)); /* a heap for this thread, or the first input would differ from the others */
    hak_purge();
    fuzz_model_begin(run->model, input->config.seed);
}

void fuzz_free_all(struct fuzz_run *run, const struct fuzz_at *at) {
    struct step step = {.run = run, .at = at};
    for (unsigned slot = 0; slot < FUZZ_SLOTS; slot++) {
        struct fuzz_block *block = fuzz_model_take(run->model, (uint8_t)slot);
        if (block != NULL) give_back(&step, block);
    }
}

/* Back to how a process begins, as far as that can be: the next input must not see this one. */
static void reset(void) {
    hak_big_reset_for_test();
    hak_l25_reset_for_test();
    struct hak_heap *heap = hak_heap_peek();
    if (heap == NULL) return;
    hak_tcache_rest(heap, 0, 0);
    heap->visits = 0;
    heap->next_sweep_ms = 0;
}

void fuzz_run_end(struct fuzz_run *run) {
    struct fuzz_at at = {.input = run->input, .index = run->input->count};
    if (run->single) fuzz_model_verify_all(run->model, &at);
    fuzz_free_all(run, &at);
    if (run->single) fuzz_model_compare_stats(run->model, &at);
    fuzz_profile_reset();
    if (run->single) pass_time_of_single(run, 7200000); /* what was refused once is asked for again */
    hak_purge();
    fuzz_check_structures(&at);
    fuzz_check_nothing_left(run->model, &at, run->may_lose);
    reset();
}

/* ---- fork ----------------------------------------------------------------------------------------------------- */

#define CHILD_SECONDS 60 /* only a hang takes that long */

_Noreturn void fuzz_child_checks(struct fuzz_run *run, const struct fuzz_at *at) {
    static const size_t sizes[] = {1, 1000, 20000, 300000, 3000000};
    signal(SIGALRM, SIG_DFL);
    alarm(CHILD_SECONDS);
    fuzz_model_verify_all(run->model, at);
    fuzz_free_all(run, at);
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct fuzz_op op = {.kind = FUZZ_MALLOC, .slot = (uint8_t)i, .size = fuzz_size_code(sizes[i])};
        fuzz_apply_op(run, at, op);
        op.kind = FUZZ_FREE;
        fuzz_apply_op(run, at, op);
    }
    hak_purge();
    fuzz_check_structures(at);
    _exit(0);
}

bool fuzz_fork_and_check(struct fuzz_run *run, const struct fuzz_at *at) {
    if (atomic_exchange_explicit(&run->forked, true, memory_order_relaxed)) return false;
    pid_t child = fork();
    if (child < 0) return false;
    if (child == 0) fuzz_child_checks(run, at);
    int status = -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (status != 0) fuzz_fail(at, "the child ended with wait status 0x%x", (unsigned)status);
    return true;
}
