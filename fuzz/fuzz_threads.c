/* fuzz: ops model apply mutate */
/* The same operations by 2 to 8 real threads, each with those of its number, at once. Blocks are handed over through
 * the slots; threads end in mid-sequence and others go on; a thread forks while the others work. For TSan and ASan:
 * what happens between two runs of an input differs, so a finding may need several tries (run.sh says how many). */
#include "apply.h"

#include "base/sys.h"
#include "hakmem.h"
#include "stores/bigcache.h"
#include "stores/l25.h"
#include "stores/slab.h"

#include <pthread.h>
#include <stdatomic.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* One life of a thread: it goes through the operations from `next` on, and ends at THREAD_EXIT. Who ends starts the
 * life that follows, and leaves its number to who waits for them all. */
struct life {
    struct fuzz_run *run;
    pthread_t thread;
    size_t next;
    uint8_t tid;
    struct life *heir;
};

struct team {
    struct life *lives; /* room for one per thread and one per operation */
    _Atomic size_t born;
    pthread_barrier_t start;
};

static void *live(void *argument);

static bool start_life(struct team *team, struct fuzz_run *run, struct life *life, uint8_t tid, size_t next) {
    (void)team;
    *life = (struct life){.run = run, .tid = tid, .next = next};
    return pthread_create(&life->thread, NULL, live, life) == 0;
}

static bool leave_to_heir(struct life *life, size_t next) {
    struct team *team = life->run->own;
    struct life *heir = &team->lives[atomic_fetch_add_explicit(&team->born, 1, memory_order_relaxed)];
    if (!start_life(team, life->run, heir, life->tid, next)) return false;
    life->heir = heir;
    return true;
}

static void *live(void *argument) {
    struct life *life = argument;
    struct team *team = life->run->own;
    struct fuzz_at at = {.input = life->run->input, .index = life->next, .tid = life->tid};
    if (life->next == 0) pthread_barrier_wait(&team->start);
    for (; at.index < at.input->count; at.index++) {
        struct fuzz_op op = fuzz_op_at(at.input, at.index);
        if (op.tid != life->tid) continue;
        if (op.kind == FUZZ_THREAD_EXIT && leave_to_heir(life, at.index + 1)) return NULL;
        fuzz_apply(life->run, &at);
    }
    return NULL;
}

/* ---- short threads -------------------------------------------------------------------------------------------- */

struct errand {
    struct fuzz_run *run;
    const struct fuzz_at *at;
    struct fuzz_op op;
};

/* Frees another thread's block, leaves one of its own, and ends. */
static void *run_errand(void *argument) {
    struct errand *errand = argument;
    struct fuzz_op op = errand->op;
    op.kind = FUZZ_FREE;
    fuzz_apply_op(errand->run, errand->at, op);
    op.kind = FUZZ_MALLOC;
    fuzz_apply_op(errand->run, errand->at, op);
    return NULL;
}

static bool short_thread(struct fuzz_run *run, const struct fuzz_at *at, struct fuzz_op op) {
    struct errand errand = {.run = run, .at = at, .op = op};
    pthread_t thread;
    if (pthread_create(&thread, NULL, run_errand, &errand) != 0) return false;
    pthread_join(thread, NULL);
    return true;
}

static bool control(struct fuzz_run *run, const struct fuzz_at *at, struct fuzz_op op) {
    if (op.kind == FUZZ_FORK) return fuzz_fork_and_check(run, at);
    return op.kind == FUZZ_THREAD_START && short_thread(run, at, op);
}

/* The clock cannot be set while others read it; but any thread may say that it is later. */
static void give_back_what_is_old(struct fuzz_run *run, uint64_t ms) {
    (void)run;
    uint64_t then = hak_sys_now_ms() + ms;
    hak_slab_decay(then);
    hak_l25_decay(then);
    hak_big_decay(then);
}

/* ---- the run -------------------------------------------------------------------------------------------------- */

static void join_family(struct life *life) {
    while (life != NULL) {
        pthread_join(life->thread, NULL);
        life = life->heir;
    }
}

static void run_team(struct fuzz_run *run, unsigned threads) {
    static struct life lives[FUZZ_THREADS + FUZZ_OPS_MAX];
    struct team team = {.lives = lives, .born = threads};
    run->own = &team;
    pthread_barrier_init(&team.start, NULL, threads);
    for (unsigned i = 0; i < threads; i++)
        if (!start_life(&team, run, &lives[i], (uint8_t)i, 0))
            fuzz_fail(&(struct fuzz_at){.input = run->input}, "no thread");
    for (unsigned i = 0; i < threads; i++) join_family(&lives[i]);
    pthread_barrier_destroy(&team.start);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct fuzz_model *model;
    struct fuzz_input input;
    if (!fuzz_decode(&input, data, bytes)) return 0;
    if (input.config.threads == 1) input.config.threads = 2;
    struct fuzz_run run = {.control = control, .pass_time = give_back_what_is_old, .model = model};
    fuzz_run_begin(&run, &input);
    model = run.model;
    run_team(&run, input.config.threads);
    fuzz_run_end(&run);
    return 0;
}
