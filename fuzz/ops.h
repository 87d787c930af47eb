/* The encoding of an input: operations on the public interface, for several threads, and a schedule. One form for all
 * targets that drive the interface (fuzz_api, fuzz_threads, fuzz_schedule, fuzz_faults, fuzz_misuse), for the mutator,
 * the recorder and show. README.md describes it byte by byte; a change of meaning is a new FUZZ_VERSION.
 *
 *   configuration  8 bytes: magic, version, threads - 1, profile, 2 bytes of the target's own, seed (16 bits)
 *   schedule bytes 1 byte: how many
 *   operations     4 bytes each: thread (3 bits) | kind (5 bits), slot, size code (16 bits), little-endian
 *   schedule       behind the operations
 *
 * Any bytes with the right magic and version are an input: what makes no sense is skipped. Nothing here allocates, and
 * nothing has state. */
#ifndef FUZZ_OPS_H
#define FUZZ_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FUZZ_MAGIC 0x68 /* 'h' */
#define FUZZ_VERSION 1
#define FUZZ_HEADER_BYTES 9
#define FUZZ_OP_BYTES 4
#define FUZZ_THREADS 8
#define FUZZ_SLOTS 256
#define FUZZ_OPS_MAX 16384 /* further ones are left out: 64 KiB */
#define FUZZ_SCHEDULE_MAX 255

/* Kinds of operations: FUZZ_KIND(NAME, how often the mutator chooses it, how show prints it). In the text $p is the
 * block of the slot, $n a size, $c and $e count and size of an array, $a and $b alignment and size, $s the slot's
 * number, $z the size code as it stands. "$p = " in front: the block is new. Values are those of FUZZ_VERSION: add at
 * the end only. */
#define FUZZ_KINDS(FUZZ_KIND)                                                                                          \
    FUZZ_KIND(MALLOC, 12, "$p = malloc($n)")                                                                           \
    FUZZ_KIND(CALLOC, 5, "$p = calloc($c, $e)")                                                                        \
    FUZZ_KIND(REALLOC, 8, "$p = realloc($o, $n)")                                                                      \
    FUZZ_KIND(REALLOCARRAY, 2, "$p = reallocarray($o, $c, $e)")                                                        \
    FUZZ_KIND(FREE, 14, "free($o)")                                                                                    \
    FUZZ_KIND(FREE_SIZED, 2, "free_sized($o, its size)")                                                               \
    FUZZ_KIND(FREE_ALIGNED_SIZED, 2, "free_aligned_sized($o, its alignment, its size)")                                \
    FUZZ_KIND(CFREE, 1, "cfree($o)")                                                                                   \
    FUZZ_KIND(ALIGNED_ALLOC, 3, "$p = aligned_alloc($a, $b)")                                                          \
    FUZZ_KIND(POSIX_MEMALIGN, 3, "$p = posix_memalign($a, $b)")                                                        \
    FUZZ_KIND(MEMALIGN, 2, "$p = memalign($a, $b)")                                                                    \
    FUZZ_KIND(VALLOC, 1, "$p = valloc($n)")                                                                            \
    FUZZ_KIND(PVALLOC, 1, "$p = pvalloc($n)")                                                                          \
    FUZZ_KIND(USABLE, 2, "malloc_usable_size($o)")                                                                     \
    FUZZ_KIND(AT_LEAST, 3, "$p = malloc_at_least($n)")                                                                 \
    FUZZ_KIND(REZALLOC, 4, "$p = rezalloc($o, $n)")                                                                    \
    FUZZ_KIND(GOOD_SIZE, 1, "good_size($n)")                                                                           \
    FUZZ_KIND(IS_OWNED, 1, "is_owned($o)")                                                                             \
    FUZZ_KIND(TOUCH, 3, "verify $o, write it anew")                                                                    \
    FUZZ_KIND(FLUSH, 2, "thread_flush()")                                                                              \
    FUZZ_KIND(PURGE, 2, "purge()")                                                                                     \
    FUZZ_KIND(TRIM, 1, "malloc_trim($n)")                                                                              \
    FUZZ_KIND(STATS, 2, "statistics($s)")                                                                              \
    FUZZ_KIND(MALLOPT, 1, "mallopt($s, $z)")                                                                           \
    FUZZ_KIND(TIME, 3, "$t ms pass")                                                                                   \
    FUZZ_KIND(THREAD_EXIT, 2, "the thread ends, and another goes on")                                                  \
    FUZZ_KIND(THREAD_START, 2, "a short thread frees $o, and $p = malloc($n)")                                         \
    FUZZ_KIND(FORK, 1, "fork: the child checks all")                                                                   \
    FUZZ_KIND(FAULT, 3, "the system fails: $s, $z")                                                                    \
    FUZZ_KIND(MISUSE, 1, "misuse of $o: $z")

enum fuzz_kind {
#define FUZZ_KIND(name, weight, text) FUZZ_##name,
    FUZZ_KINDS(FUZZ_KIND)
#undef FUZZ_KIND
        FUZZ_KIND_COUNT
};

struct fuzz_op {
    uint8_t tid;  /* 0 .. FUZZ_THREADS - 1, already taken modulo the number of threads */
    uint8_t kind; /* enum fuzz_kind; FUZZ_KIND_COUNT and above: nothing */
    uint8_t slot;
    uint16_t size; /* a code: fuzz_size(), fuzz_align() ... */
};

struct fuzz_config {
    uint8_t threads; /* 1 .. FUZZ_THREADS */
    uint8_t profile; /* which options hakmem runs with: fuzz_profile() in apply.h */
    uint8_t own[2];  /* for the target */
    uint16_t seed;   /* of the blocks' content, and for the target */
};

/* A decoded input; points into the bytes it was made from. */
struct fuzz_input {
    struct fuzz_config config;
    const uint8_t *ops, *schedule;
    size_t count, schedule_bytes;
};

/* False if the bytes are no input: too short, other magic, other version. */
bool fuzz_decode(struct fuzz_input *input, const uint8_t *data, size_t bytes);
/* Operation number `i` < input->count. */
struct fuzz_op fuzz_op_at(const struct fuzz_input *input, size_t i);

/* The other direction, for the mutator and the recorder: writes the header and one operation. */
void fuzz_encode_header(uint8_t *out, const struct fuzz_config *config, size_t schedule_bytes);
void fuzz_encode_op(uint8_t *out, struct fuzz_op op);

/* ---- what a size code means --------------------------------------------------------------------------------- */

/* The largest size that a code means and that hakmem must serve. Larger ones are refused whatever the machine. */
#define FUZZ_SIZE_SERVED ((size_t)80 << 20)

/* A size: small ones as they are, then steps, edges of classes and layers with their neighbours, and sizes that must be
 * refused. */
size_t fuzz_size(uint16_t code);
/* The code of the smallest size of at least `bytes` (for the recorder; up to 13 MiB, more is cut to that). */
uint16_t fuzz_size_code(size_t bytes);
/* A code near a class edge: `which` < FUZZ_EDGES, `neighbour` 0 .. 7 (0: the edge itself). */
#define FUZZ_EDGES 176
uint16_t fuzz_edge_code(unsigned which, unsigned neighbour);

/* calloc and reallocarray: the product may overflow, and then size_t cannot hold it. */
struct fuzz_array {
    size_t count, size;
};
struct fuzz_array fuzz_array(struct fuzz_op op);

/* The aligned allocations: 5 bits of alignment (powers of two up to 128 MiB, and wrong or absurd ones), 11 of size. */
struct fuzz_aligned {
    size_t align, size;
};
struct fuzz_aligned fuzz_aligned(uint16_t code);
uint16_t fuzz_aligned_code(unsigned align_shift, size_t bytes);

/* TIME: milliseconds, 1 ms to about an hour. */
uint64_t fuzz_ms(uint16_t code);

/* ---- as text ------------------------------------------------------------------------------------------------ */

/* Blocks are named in the order of their birth, so that a name never means two: "t2: p7 = realloc(p3, 70000)". */
struct fuzz_names {
    uint32_t of_slot[FUZZ_SLOTS]; /* 0: empty */
    uint32_t born;
};
/* Writes the line for `op` (cut to `room`, NUL-terminated), and notes what it does to the names, as far as the order of
 * the input tells: with several threads, the order at run time may be another. */
void fuzz_describe(char *text, size_t room, struct fuzz_op op, struct fuzz_names *names);

#endif
