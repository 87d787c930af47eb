/* Text without allocation: a small builder on the caller's stack, and the lines hakmem prints.
 *
 * A line goes out in one write(), so lines of several threads and processes never mix. Nothing here takes a
 * lock or allocates: it works inside malloc, in signal handlers and in a half-dead process. */
#ifndef HAK_BASE_LOG_H
#define HAK_BASE_LOG_H

#include "base/config.h"

#define HAK_TEXT_BYTES 480

/* What does not fit is cut. Initialise with {.used = 0}. */
struct hak_text {
    size_t used;
    char bytes[HAK_TEXT_BYTES];
};

void hak_text_str(struct hak_text *text, const char *s);
void hak_text_mem(struct hak_text *text, const char *s, size_t bytes);
/* Text of unknown origin: cut after 64 bytes, and anything that could disturb a terminal or break the line becomes `?`.
 */
void hak_text_shown(struct hak_text *text, const char *s, size_t bytes);
void hak_text_u64(struct hak_text *text, uint64_t n);
void hak_text_hex(struct hak_text *text, uint64_t n);
/* "hakmem[PID PROGRAM]: ", the head of every printed line but the log families of the layers. */
void hak_text_head(struct hak_text *text);
/* Writes the text plus a newline to `fd` and empties it. Keeps errno. Returns 0 or the errno of the write. */
int hak_text_line(struct hak_text *text, int fd);

/* One line "hakmem[...]: " + message on stderr. */
void hak_warn(const char *message);

/* The kinds of misuse. Texts in log.c. */
enum hak_misuse {
    HAK_MISUSE_DOUBLE_FREE,
    HAK_MISUSE_INTERIOR,    /* not the start of a block */
    HAK_MISUSE_FREE_MEMORY, /* into memory that is free */
    HAK_MISUSE_OVERFLOW,    /* `detail`: first byte past the end that was written, counted from 1 */
    HAK_MISUSE_WRONG_SIZE,  /* `detail`: size given, `actual`: size of the block */
    HAK_MISUSE_WRONG_ALIGN, /* `detail`: alignment given */
    HAK_MISUSE_WRITE_AFTER_FREE
};

struct hak_misuse_report {
    const char *function; /* as the user called it */
    const void *ptr;
    enum hak_misuse kind;
    bool late; /* found only when a cache was flushed */
    size_t detail, actual;
};

/* Ends the process with one line that names function, pointer and kind. Allocates nothing, takes no lock. */
_Noreturn void hak_misuse_die(const struct hak_misuse_report *report);
/* The same for the kinds that need no details: found by the call itself, or late, of a block that was freed earlier. */
_Noreturn void hak_misuse_at_once(const char *function, const void *ptr, enum hak_misuse kind);
_Noreturn void hak_misuse_late(const void *ptr, enum hak_misuse kind);

/* ASan builds, constant after start: says more of the block, after the line. */
extern void (*hak_misuse_explain)(const void *ptr);

/* A pointer that is not ours. Memory of another allocator is reported once per process and ignored (returns);
 * anything else ends the process with a line that says where it lies. */
void hak_misuse_foreign(const char *function, const void *ptr);
/* How many were ignored. */
uint64_t hak_misuse_foreign_count(void);

#endif
