/* Text building and the lines hakmem prints: warnings, log lines, and the one line that ends a misused process.
 * Everything is on the caller's stack; the only state is the count of foreign pointers. */
#include "base/log.h"

#include "base/options.h"
#include "base/sync.h"
#include "base/sys.h"

#include <string.h>

#define STDERR 2
#define SHOWN_BYTES ((size_t)64) /* of a name or value in a message */

static _Atomic uint64_t foreign_count; /* any thread; relaxed: a counter, publishes nothing */

void hak_text_mem(struct hak_text *text, const char *s, size_t bytes) {
    size_t room = sizeof text->bytes - 1 - text->used; /* one byte is kept for the newline */
    if (bytes > room) bytes = room;
    memcpy(text->bytes + text->used, s, bytes);
    text->used += bytes;
}

void hak_text_str(struct hak_text *text, const char *s) { hak_text_mem(text, s, strlen(s)); }

void hak_text_shown(struct hak_text *text, const char *s, size_t bytes) {
    for (size_t i = 0; i < bytes && i < SHOWN_BYTES; i++)
        hak_text_mem(text, s[i] >= ' ' && s[i] <= '~' ? &s[i] : "?", 1);
    if (bytes > SHOWN_BYTES) hak_text_str(text, "...");
}

static void number(struct hak_text *text, uint64_t n, unsigned base) {
    char digits[24];
    size_t at = sizeof digits;
    do {
        digits[--at] = "0123456789abcdef"[n % base];
        n /= base;
    } while (n != 0);
    hak_text_mem(text, digits + at, sizeof digits - at);
}

void hak_text_u64(struct hak_text *text, uint64_t n) { number(text, n, 10); }

void hak_text_hex(struct hak_text *text, uint64_t n) {
    hak_text_str(text, "0x");
    number(text, n, 16);
}

void hak_text_head(struct hak_text *text) {
    hak_text_str(text, "hakmem[");
    hak_text_u64(text, hak_sys_pid());
    hak_text_str(text, " ");
    hak_text_shown(text, hak_sys_program(), strlen(hak_sys_program())); /* a program gives itself its name */
    hak_text_str(text, "]: ");
}

int hak_text_line(struct hak_text *text, int fd) {
    text->bytes[text->used++] = '\n';
    int error = hak_sys_write(fd, text->bytes, text->used);
    text->used = 0;
    return error;
}

HAK_COLD void hak_warn(const char *message) {
    struct hak_text text = {.used = 0};
    hak_text_head(&text);
    hak_text_str(&text, message);
    hak_text_line(&text, STDERR);
}

_Noreturn HAK_COLD void hak_assert_failed(const char *condition, const char *file, int line) {
    struct hak_text text = {.used = 0};
    hak_text_head(&text);
    hak_text_str(&text, "assertion failed: ");
    hak_text_str(&text, condition);
    hak_text_str(&text, " at ");
    hak_text_str(&text, file);
    hak_text_str(&text, ":");
    hak_text_u64(&text, (uint64_t)line);
    hak_text_line(&text, STDERR);
    hak_sys_abort();
}

static void head_of_misuse(struct hak_text *text, const char *function, const void *ptr) {
    hak_text_head(text);
    hak_text_str(text, function);
    hak_text_str(text, "(");
    hak_text_hex(text, (uintptr_t)ptr);
    hak_text_str(text, "): ");
}

static void kind_of_misuse(struct hak_text *text, const struct hak_misuse_report *report) {
    switch (report->kind) {
    case HAK_MISUSE_DOUBLE_FREE:
        hak_text_str(text, "double free");
        break;
    case HAK_MISUSE_WRITE_AFTER_FREE:
        hak_text_str(text, "write after free");
        break;
    case HAK_MISUSE_INTERIOR:
        hak_text_str(text, "invalid pointer: not the start of a block");
        break;
    case HAK_MISUSE_FREE_MEMORY:
        hak_text_str(text, "pointer into free memory");
        break;
    case HAK_MISUSE_OVERFLOW:
        hak_text_str(text, "buffer overflow: byte ");
        hak_text_u64(text, report->detail);
        hak_text_str(text, " past the end was written");
        break;
    case HAK_MISUSE_WRONG_SIZE:
        hak_text_str(text, "wrong size ");
        hak_text_u64(text, report->detail);
        hak_text_str(text, ", the block has ");
        hak_text_u64(text, report->actual);
        break;
    case HAK_MISUSE_WRONG_ALIGN:
        hak_text_str(text, "wrong alignment ");
        hak_text_u64(text, report->detail);
        break;
    }
}

#if HAK_TRACE
void (*hak_misuse_explain)(const void *ptr);
#endif

_Noreturn HAK_COLD void hak_misuse_die(const struct hak_misuse_report *report) {
    struct hak_text text = {.used = 0};
    head_of_misuse(&text, report->function, report->ptr);
    kind_of_misuse(&text, report);
    if (report->late) hak_text_str(&text, " (found when the thread cache was flushed)");
    hak_text_line(&text, STDERR);
    if (HAK_TRACE && hak_misuse_explain != NULL) hak_misuse_explain(report->ptr);
    hak_sys_abort();
}

_Noreturn HAK_COLD void hak_misuse_at_once(const char *function, const void *ptr, enum hak_misuse kind) {
    hak_misuse_die(&(struct hak_misuse_report){.function = function, .ptr = ptr, .kind = kind});
}

_Noreturn HAK_COLD void hak_misuse_late(const void *ptr, enum hak_misuse kind) {
    hak_misuse_die(&(struct hak_misuse_report){.function = "free", .ptr = ptr, .kind = kind, .late = true});
}

HAK_COLD void hak_misuse_foreign(const char *function, const void *ptr) {
    char path[128];
    enum hak_sys_place place = hak_sys_place_of(ptr, path, sizeof path);
    /* The stack of a thread is anonymous memory to the kernel, and without /proc all is unknown; our own frame tells
     * where the stack is. */
    uintptr_t distance = (uintptr_t)ptr - (uintptr_t)path;
    bool vague = place == HAK_PLACE_ANONYMOUS || place == HAK_PLACE_UNKNOWN;
    if (vague && distance < 64 * HAK_KIB) place = HAK_PLACE_STACK;

    struct hak_text text = {.used = 0};
    head_of_misuse(&text, function, ptr);
    hak_text_str(&text, "not a hakmem block: ");
    bool other_allocator = place == HAK_PLACE_ANONYMOUS || place == HAK_PLACE_UNKNOWN;
    if (other_allocator && !hak_option(FOREIGN_ABORT)) {
        hak_text_str(&text, "it belongs to another allocator; ignored");
        if (hak_add_rlx(&foreign_count, 1) == 0) hak_text_line(&text, STDERR);
        return;
    }
    switch (place) {
    case HAK_PLACE_UNMAPPED:
        hak_text_str(&text, "unmapped");
        break;
    case HAK_PLACE_STACK:
        hak_text_str(&text, "it lies in the stack");
        break;
    case HAK_PLACE_FILE:
        hak_text_str(&text, "it lies in ");
        hak_text_str(&text, path);
        break;
    case HAK_PLACE_ANONYMOUS:
    case HAK_PLACE_UNKNOWN:
        hak_text_str(&text, "it belongs to another allocator");
        break;
    }
    hak_text_line(&text, STDERR);
    hak_sys_abort();
}

uint64_t hak_misuse_foreign_count(void) { return hak_load_rlx(&foreign_count); }
