/* The shadow model: what the program may believe of its blocks, kept outside the allocator, in an own mapping. It knows
 * every live block's place, size and content, and dies with a line that says what is wrong when the allocator
 * disagrees.
 *
 * A block is in a slot, or in the hands of the thread that took it out. Threads hand blocks over through the slots: put
 * releases, take acquires, and nothing else here orders anything. The map that finds overlaps and the counters are
 * relaxed, so that a race in the allocator is not hidden by its own model. No locks, no thread-local state: virtual
 * threads may be switched at any call of hakmem. */
#ifndef FUZZ_MODEL_H
#define FUZZ_MODEL_H

#include "ops.h"

/* Who does what: for the message when something is wrong. */
struct fuzz_at {
    const struct fuzz_input *input;
    size_t index; /* of the operation; input->count at the end */
    uint8_t tid;
};

/* One line on stderr with the operation as show prints it, then abort(). */
_Noreturn void fuzz_fail(const struct fuzz_at *at, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Called before the abort, if set: prints what else there is to know, for example the schedule. */
extern void (*fuzz_before_abort)(void);

/* A block; only its holder reads or writes this. */
struct fuzz_block {
    unsigned char *ptr;
    size_t requested, usable, align;
    uint32_t id;   /* seed of its content */
    uint8_t layer; /* enum hak_layer */
};

struct fuzz_model;
/* NULL if the system gives no memory. */
struct fuzz_model *fuzz_model_create(void);
/* Empties the model for an input. Nothing may be live. */
void fuzz_model_begin(struct fuzz_model *model, uint16_t seed);

/* The record for what operation `at->index` allocates. */
struct fuzz_block *fuzz_model_record(struct fuzz_model *model, const struct fuzz_at *at);
/* True if there is room for `bytes` more. */
bool fuzz_model_has_room(struct fuzz_model *model, size_t bytes);
bool fuzz_model_is_empty(struct fuzz_model *model, uint8_t slot);
/* Takes the block out of a slot; NULL if there is none. */
struct fuzz_block *fuzz_model_take(struct fuzz_model *model, uint8_t slot);
/* Puts a block into a slot; false if another thread was faster. */
bool fuzz_model_put(struct fuzz_model *model, uint8_t slot, struct fuzz_block *block);

/* True if a live block in a slot starts at `ptr`. For the only thread. */
bool fuzz_model_is_start(struct fuzz_model *model, const void *ptr);

/* A block begins to be the program's: no byte of it may be another's. Writes its content. */
void fuzz_model_enter(struct fuzz_model *model, const struct fuzz_at *at, struct fuzz_block *block);
/* The same for a block that has its content: a realloc that failed. */
void fuzz_model_reenter(struct fuzz_model *model, const struct fuzz_at *at, struct fuzz_block *block);
/* It ends to be: to be called *before* it goes back, for the next moment it may be another's. */
void fuzz_model_leave(struct fuzz_model *model, const struct fuzz_at *at, const struct fuzz_block *block);

/* The content, as far as it is written (all of a small block, of a large one the ends and a line here and there). */
void fuzz_model_write(struct fuzz_block *block);
void fuzz_model_verify(const struct fuzz_at *at, const struct fuzz_block *block);
/* The same content at another address, as far as `kept` bytes. */
void fuzz_model_verify_moved(const struct fuzz_at *at, const struct fuzz_block *block, const void *ptr, size_t kept);
void fuzz_model_verify_zero(const struct fuzz_at *at, const void *ptr, size_t bytes);
/* Every block in a slot. For the only thread. */
void fuzz_model_verify_all(struct fuzz_model *model, const struct fuzz_at *at);

/* hakmem's live blocks and bytes against the model's. For the only thread, all caches of others flushed. */
void fuzz_model_compare_stats(struct fuzz_model *model, const struct fuzz_at *at);
/* The invariants of heap, superslabs, L2.5 pool and BigCache. */
void fuzz_check_structures(const struct fuzz_at *at);
/* Nothing is live, cached or mapped but metadata, and what was lost before this input. `may_lose`: the system refused
 * what would have been needed to give address space back; only the mappings may then be more. */
void fuzz_check_nothing_left(struct fuzz_model *model, const struct fuzz_at *at, bool may_lose);

#endif
