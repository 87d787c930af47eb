/* fuzz: ops model apply counters mutate */
/* Exactly one planted misuse in a correct sequence: the first MISUSE operation. A forked child runs the sequence up to
 * there, does what is wrong, and goes on; the parent holds how it ended against what is due in this configuration.
 * Where nothing is found, and that is documented, all other blocks must be whole; and so must they be at the moment
 * when a misuse is reported.
 *
 * MISUSE: slot is the block, size code bits 0-3 the kind (enum misuse), 4-9 how many operations lie between the free
 * and the second use, bit 10 that another thread does it, 11-15 where in the block. */
#include "apply.h"
#include "counters.h"

#include "base/config.h"
#include "hakmem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#if HAK_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum misuse {
    DOUBLE_FREE,
    INTERIOR,
    MISALIGNED,
    FOREIGN,
    OVERFLOW,
    UNDERFLOW,
    WRITE_AFTER_FREE,
    READ_AFTER_FREE,
    WRONG_SIZE,
    WRONG_ALIGNMENT,
    REALLOC_STALE,
    USABLE_STALE,
    MISUSE_COUNT
};

static const char *const names[MISUSE_COUNT] = {"a double free",
                                                "a free of an interior pointer",
                                                "a free of a misaligned pointer",
                                                "a free of a foreign pointer",
                                                "an overflow by a byte",
                                                "an underflow by a byte",
                                                "a write after free",
                                                "a read after free",
                                                "a wrong size",
                                                "a wrong alignment",
                                                "a realloc of a freed block",
                                                "a question about a freed block"};

/* What is due. */
enum due {
    NOTHING,      /* it was not planted: there was no block for it, or it would have been none */
    UNSEEN,       /* it is not looked for here: no word, and no harm */
    LINE,         /* a line that names the pointer and this kind, and SIGABRT */
    ANY_LINE,     /* the same, of whatever kind: by then the address may be part of anything */
    FOREIGN_LINE, /* "not a hakmem block": then SIGABRT, or it is ignored, as the place is */
    TOOL          /* a report of AddressSanitizer */
};

/* What parent and child share. */
struct trace {
    enum due due;
    enum misuse kind;
    uintptr_t pointer;
    const char *text; /* of the kind, for LINE */
    bool or_segv;     /* a guard page may be faster */
    bool at_once;     /* within the call, not at the flush */
    bool done;        /* the call returned */
    struct fuzz_counters counters;
};
static struct trace *trace;

/* ---- the child: planting --------------------------------------------------------------------------------------- */

static struct fuzz_run *child_run;
static const struct fuzz_at *child_at;

/* A misuse is being reported: nobody else may have been harmed. */
static void on_abort(int number) {
    signal(SIGABRT, SIG_DFL);
    fuzz_model_verify_all(child_run->model, child_at);
    fuzz_counters_save(&trace->counters);
    raise(number);
}

struct plan {
    struct fuzz_run *run;
    const struct fuzz_at *at; /* of the operation that plants */
    struct fuzz_block block;
    enum misuse kind;
    unsigned distance, where;
    bool by_thread;
};

static bool is_small(const struct plan *plan) { return plan->block.layer <= HAK_LAYER_MID; }

static void expect(const struct plan *plan, enum due due, const void *pointer, const char *text) {
    trace->kind = plan->kind;
    trace->due = due;
    trace->pointer = (uintptr_t)pointer;
    trace->text = text;
    trace->at_once = HAK_EXACT || !is_small(plan);
    fuzz_counters_save(&trace->counters);
}

static void *free_pointer(void *pointer) {
    hak_free(pointer);
    hak_thread_flush();
    return NULL;
}

static void free_wrongly(const struct plan *plan, void *pointer) {
    pthread_t thread;
    if (!plan->by_thread || pthread_create(&thread, NULL, free_pointer, pointer) != 0) hak_free(pointer);
    else pthread_join(thread, NULL);
}

static void give_block_back(const struct plan *plan) {
    fuzz_model_leave(plan->run->model, plan->at, &plan->block);
    hak_free(plan->block.ptr);
}

/* The operations that lie in between. */
static void run_between(const struct plan *plan) {
    struct fuzz_at at = *plan->at;
    for (unsigned i = 0; i < plan->distance && at.index + 1 < at.input->count; i++) {
        at.index++;
        fuzz_apply(plan->run, &at);
    }
}

static void plant_double_free(const struct plan *plan) {
    give_block_back(plan);
    run_between(plan);
    if (fuzz_model_is_start(plan->run->model, plan->block.ptr)) return; /* handed out again: an ordinary free */
    bool near = plan->distance == 0 && hak_is_owned(plan->block.ptr);   /* else its superslab may be unmapped by now */
    expect(plan, near ? LINE : ANY_LINE, plan->block.ptr, "double free");
    if (near && !plan->by_thread) trace->at_once = true; /* the last one freed lies on top */
    free_wrongly(plan, plan->block.ptr);
}

static void plant_interior(const struct plan *plan) {
    size_t steps = plan->block.usable / HAK_MIN_ALIGN;
    if (steps < 2) return;
    unsigned char *pointer = plan->block.ptr + (1 + plan->where % (steps - 1)) * HAK_MIN_ALIGN;
    expect(plan, LINE, pointer, "invalid pointer: not the start of a block");
    free_wrongly(plan, pointer);
}

static void plant_misaligned(const struct plan *plan) {
    unsigned char *pointer = plan->block.ptr + 1 + plan->where % (HAK_MIN_ALIGN - 1);
    expect(plan, LINE, pointer, "invalid pointer: not the start of a block");
    free_wrongly(plan, pointer);
}

static void plant_foreign(const struct plan *plan) {
    static _Alignas(16) char global[32];
    _Alignas(16) char local[32];
    void *mapped = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *pointers[] = {global, local, mapped, mapped};
    unsigned which = plan->where % 4;
    if (which == 3) munmap(mapped, 65536);
    expect(plan, FOREIGN_LINE, pointers[which], "not a hakmem block");
    free_wrongly(plan, pointers[which]);
}

/* A byte behind what was asked for. In builds that give more it is the block's own, and nothing is wrong. */
static void plant_overflow(const struct plan *plan) {
    volatile unsigned char *byte = plan->block.ptr + plan->block.requested;
    if (!HAK_EXACT && plan->block.usable == plan->block.requested) return; /* it would be another's */
    trace->or_segv = HAK_CHECKED && plan->block.layer == HAK_LAYER_BIG;
    expect(plan,
           HAK_ASAN      ? TOOL
           : HAK_CHECKED ? LINE
                         : UNSEEN,
           plan->block.ptr, "buffer overflow: byte 1 past the end was written");
    *byte = (unsigned char)(plan->where + 1);
    give_block_back(plan);
}

/* Only ASan keeps the byte before a block; elsewhere it is another's. */
static void plant_underflow(const struct plan *plan) {
    if (!HAK_ASAN || ((uintptr_t)plan->block.ptr & (HAK_GRANULE - 1)) == 0) return;
    expect(plan, TOOL, plan->block.ptr - 1, NULL);
    *(volatile unsigned char *)(plan->block.ptr - 1) = 1;
}

/* Blocks over 32 KiB may be unmapped by now. */
static void plant_write_after_free(const struct plan *plan) {
    if (!HAK_ASAN && !is_small(plan)) return;
    if (plan->block.usable == 0) return;
    size_t room = plan->block.usable < 8192 ? plan->block.usable : 8192;
    give_block_back(plan);
    expect(plan, HAK_ASAN ? TOOL : HAK_CHECKED ? LINE : UNSEEN, plan->block.ptr, "write after free");
    *(volatile unsigned char *)(plan->block.ptr + plan->where * 257 % room) = 0x11;
    hak_free(hak_malloc(plan->block.requested));
}

static void plant_read_after_free(const struct plan *plan) {
    if (!HAK_ASAN || plan->block.usable == 0) return;
    give_block_back(plan);
    expect(plan, TOOL, plan->block.ptr, NULL);
    (void)*(volatile unsigned char *)(plan->block.ptr + plan->where % plan->block.usable);
}

static void plant_wrong_size(const struct plan *plan) {
    fuzz_model_leave(plan->run->model, plan->at, &plan->block);
    expect(plan, HAK_CHECKED ? LINE : UNSEEN, plan->block.ptr, "wrong size");
    hak_free_sized(plan->block.ptr, plan->block.usable + 1 + plan->where);
}

static void plant_wrong_alignment(const struct plan *plan) {
    size_t wrong = (size_t)2 << __builtin_ctzl((uintptr_t)plan->block.ptr);
    fuzz_model_leave(plan->run->model, plan->at, &plan->block);
    expect(plan, HAK_CHECKED ? LINE : UNSEEN, plan->block.ptr, "wrong alignment");
    hak_free_aligned_sized(plan->block.ptr, wrong, plan->block.requested);
}

/* The default build cannot tell a block in a cache from a live one. */
static void plant_stale_use(const struct plan *plan) {
    if (!HAK_EXACT && is_small(plan)) return;
    give_block_back(plan);
    expect(plan, ANY_LINE, plan->block.ptr, NULL);
    if (plan->kind == USABLE_STALE) {
        if (hak_malloc_usable_size(plan->block.ptr) == SIZE_MAX) abort();
        return;
    }
    void *ptr = hak_realloc(plan->block.ptr, plan->block.requested + 1 + plan->where);
    hak_free(ptr);
}

static void (*const planters[MISUSE_COUNT])(const struct plan *) = {
    [DOUBLE_FREE] = plant_double_free,
    [INTERIOR] = plant_interior,
    [MISALIGNED] = plant_misaligned,
    [FOREIGN] = plant_foreign,
    [OVERFLOW] = plant_overflow,
    [UNDERFLOW] = plant_underflow,
    [WRITE_AFTER_FREE] = plant_write_after_free,
    [READ_AFTER_FREE] = plant_read_after_free,
    [WRONG_SIZE] = plant_wrong_size,
    [WRONG_ALIGNMENT] = plant_wrong_alignment,
    [REALLOC_STALE] = plant_stale_use,
    [USABLE_STALE] = plant_stale_use,
};

/* The rest of the child: whatever was put off is found, or all others are whole. */
static void finish(struct fuzz_run *run) {
    struct fuzz_at at = {.input = run->input, .index = run->input->count};
    child_at = &at;
    trace->done = true;
    hak_thread_flush();
    hak_purge();
    fuzz_model_verify_all(run->model, &at);
    fuzz_free_all(run, &at);
    hak_purge();
    fuzz_check_structures(&at);
}

static bool plant_misuse(struct fuzz_run *run, const struct fuzz_at *at, struct fuzz_op op) {
    struct plan plan = {.run = run,
                        .at = at,
                        .kind = (enum misuse)((op.size & 15) % MISUSE_COUNT),
                        .distance = op.size >> 4 & 63,
                        .by_thread = (op.size >> 10 & 1) != 0,
                        .where = op.size >> 11};
    struct fuzz_block *block = fuzz_model_take(run->model, op.slot);
    if (block == NULL && plan.kind != FOREIGN) return false;
    if (block != NULL) plan.block = *block;
    hak_mallopt(M_PERTURB, 0); /* it would take the place of the fill by which a write after free is found */
    run->control = NULL;       /* the only one */
    child_at = at;
    planters[plan.kind](&plan);
    return true;
}

static void reset_signals(void) {
    static const int numbers[] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGALRM, SIGTERM};
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct sigaction action = {.sa_handler = SIG_DFL};
        if (!HAK_ASAN || numbers[i] != SIGSEGV) sigaction(numbers[i], &action, NULL);
    }
#if HAK_ASAN
    __sanitizer_set_death_callback(NULL); /* libFuzzer would take the report for a finding */
#endif
}

_Noreturn static void be_child(const struct fuzz_input *input, int write_end) {
    struct fuzz_run run = {.single = true, .control = plant_misuse};
    reset_signals();
    alarm(60); /* only a hang takes that long */
    dup2(write_end, 2);
    child_run = &run;
    fuzz_run_begin(&run, input);
    signal(SIGABRT, on_abort);
    struct fuzz_at at = {.input = input};
    for (; at.index < input->count && run.control != NULL; at.index++) {
        struct fuzz_op op = fuzz_op_at(input, at.index);
        if (op.kind != FUZZ_FORK) fuzz_apply(&run, &at);
    }
    finish(&run);
    fuzz_counters_save(&trace->counters);
    _exit(0);
}

/* ---- the parent: judging ---------------------------------------------------------------------------------------- */

struct ending {
    int status;
    char text[16384];
};

static bool says(const struct ending *ending, const char *text) {
    char line[64];
    snprintf(line, sizeof line, "(0x%lx): ", (unsigned long)trace->pointer);
    const char *at = strstr(ending->text, line);
    return at != NULL && (text == NULL || strncmp(at + strlen(line), text, strlen(text)) == 0);
}

static bool aborted(const struct ending *ending) {
    return WIFSIGNALED(ending->status) && WTERMSIG(ending->status) == SIGABRT;
}

/* hakmem's own line; under ASan a report may take its place. */
static bool is_reported(const struct ending *ending, const char *text) {
    if (HAK_ASAN && ending->status != 0 && strstr(ending->text, "ERROR: AddressSanitizer") != NULL) return true;
    return says(ending, text) && (aborted(ending) || (HAK_ASAN && ending->status != 0));
}

static bool is_ignored(const struct ending *ending) {
    return ending->status == 0 && says(ending, "not a hakmem block: it belongs to another allocator; ignored");
}

static bool is_as_due(const struct ending *ending) {
    switch (trace->due) {
    case NOTHING:
    case UNSEEN:
        return ending->status == 0 && ending->text[0] == '\0';
    case LINE:
        if (trace->or_segv && WIFSIGNALED(ending->status) && WTERMSIG(ending->status) == SIGSEGV) return true;
        return is_reported(ending, trace->text) && !(trace->at_once && trace->done);
    case ANY_LINE:
        return is_reported(ending, NULL) || is_ignored(ending);
    case FOREIGN_LINE:
        return is_reported(ending, trace->text) || is_ignored(ending);
    case TOOL:
        return ending->status != 0 && strstr(ending->text, "ERROR: AddressSanitizer") != NULL;
    }
    return false;
}

/* libFuzzer's timer interrupts it. */
static ssize_t read_on(int fd, char *text, size_t bytes) {
    ssize_t n;
    while ((n = read(fd, text, bytes)) < 0 && errno == EINTR) {
    }
    return n;
}

static void read_text(int read_end, struct ending *ending) {
    size_t used = 0;
    char rest[256];
    ssize_t n;
    while ((n = read_on(read_end, ending->text + used, sizeof ending->text - 1 - used)) > 0) used += (size_t)n;
    ending->text[used] = '\0';
    while (read_on(read_end, rest, sizeof rest) > 0) {
    }
    close(read_end);
}

static bool run_child(const struct fuzz_input *input, struct ending *ending) {
    int ends[2];
    if (pipe(ends) != 0) return false;
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        be_child(input, ends[1]);
    }
    close(ends[1]);
    read_text(ends[0], ending);
    while (child > 0 && waitpid(child, &ending->status, 0) < 0 && errno == EINTR) {
    }
    return child > 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct ending ending;
    struct fuzz_input input;
    size_t planted = 0;
    if (!fuzz_decode(&input, data, bytes)) return 0;
    while (planted < input.count && fuzz_op_at(&input, planted).kind != FUZZ_MISUSE) planted++;
    if (planted == input.count) return 0;
    if (trace == NULL) trace = mmap(NULL, sizeof *trace, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (trace == MAP_FAILED) abort();
    memset(trace, 0, offsetof(struct trace, counters) + sizeof trace->counters.used);
    if (!run_child(&input, &ending)) return 0;
    fuzz_counters_load(&trace->counters);
    if (is_as_due(&ending)) return 0;
    fprintf(stderr, "%s", ending.text);
    struct fuzz_at at = {.input = &input, .index = planted};
    static const char *const dues[] = {"nothing", "no word", "a line", "any line", "\"not a hakmem block\"",
                                       "a report"};
    fuzz_fail(&at, "%s at 0x%lx: due was %s%s%s; the child ended with wait status 0x%x%s", names[trace->kind],
              (unsigned long)trace->pointer, dues[trace->due], trace->text != NULL ? ": " : "",
              trace->text != NULL ? trace->text : "", (unsigned)ending.status,
              trace->done ? ", after the call had returned" : "");
}

#if HAK_ASAN
/* The reports are read by a program: no names of functions, which cost a second. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "symbolize=0:detect_leaks=0"; }
#endif
