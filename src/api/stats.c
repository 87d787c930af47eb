/* Statistics: one table (stats.def) makes the snapshot, the text and the JSON. Asks every layer and keeps nothing.
 *
 * JSON is built in a static buffer, so that it goes out in one write and the lines of several processes do not mix;
 * whoever finds the buffer in use writes in pieces. */
#include "api/stats.h"

#include "api/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/sys.h"
#include "front/fork.h"
#include "front/heap.h"
#include "hakmem.h"
#include "pages/meta.h"
#include "pages/pages.h"
#include "stores/bigcache.h"
#include "stores/l25.h"
#include "stores/slab.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>

#define STDERR 2

/* ---- the table ------------------------------------------------------------------------------------------ */

struct sources {
    struct hak_front_stats front;
    struct hak_slab_stats slab;
    struct hak_l25_stats l25;
    struct hak_big_stats big;
    struct hak_pages_stats pages;
};

struct figure {
    const char *name;
    size_t offset; /* in struct hak_layer_stats, or in struct hak_stats */
    const char *meaning;
};

static const struct figure layer_figures[] = {
#define HAK_STAT_LAYER(field, tiny, mid, l25, big) {#field, offsetof(struct hak_layer_stats, field), NULL},
#define HAK_STAT(field, value, meaning)
#include "api/stats.def"
#undef HAK_STAT_LAYER
#undef HAK_STAT
};
static const struct figure figures[] = {
#define HAK_STAT_LAYER(field, tiny, mid, l25, big)
#define HAK_STAT(field, value, meaning) {#field, offsetof(struct hak_stats, field), meaning},
#include "api/stats.def"
#undef HAK_STAT_LAYER
#undef HAK_STAT
};
#define LAYER_FIGURES (sizeof layer_figures / sizeof layer_figures[0])
#define FIGURES (sizeof figures / sizeof figures[0])
static_assert(sizeof(struct hak_layer_stats) == LAYER_FIGURES * sizeof(uint64_t), "each field is in the table");
static_assert(sizeof(struct hak_stats) == offsetof(struct hak_stats, layer) +
                                              HAK_LAYER_COUNT * sizeof(struct hak_layer_stats) +
                                              FIGURES * sizeof(uint64_t),
              "each field is in the table");

static const char *const layer_names[HAK_LAYER_COUNT] = {"tiny", "mid", "l25", "big"};

static uint64_t value_of(const void *stats, const struct figure *figure) {
    uint64_t value;
    memcpy(&value, (const char *)stats + figure->offset, sizeof value);
    return value;
}

static void snapshot(struct hak_stats *out) {
    hak_fork_check(); /* in a forked child, locks of the parent's threads may look taken */
    struct sources s = {
        .slab = hak_slab_stats(), .l25 = hak_l25_stats(), .big = hak_big_stats(), .pages = hak_pages_stats()};
    hak_front_stats(&s.front);
    *out = (struct hak_stats){
        .version = HAK_STATS_VERSION,
        .size = sizeof *out,
#define HAK_STAT_LAYER(field, tiny, mid, l25, big)                                                                     \
    .layer[HAK_LAYER_TINY].field = (tiny), .layer[HAK_LAYER_MID].field = (mid), .layer[HAK_LAYER_L25].field = (l25),   \
    .layer[HAK_LAYER_BIG].field = (big),
#define HAK_STAT(field, value, meaning) .field = (value),
#include "api/stats.def"
#undef HAK_STAT_LAYER
#undef HAK_STAT
    };
}

int hak_stats_get(struct hak_stats *stats) {
    size_t head = offsetof(struct hak_stats, layer);
    if (stats == NULL || stats->version != HAK_STATS_VERSION || stats->size < head) return EINVAL;
    struct hak_stats now;
    snapshot(&now);
    size_t known = stats->size < sizeof now ? stats->size : sizeof now;
    memcpy((char *)stats + head, (const char *)&now + head, known - head);
    return 0;
}

/* ---- text ----------------------------------------------------------------------------------------------- */

#define LAYER_COLUMN 6
#define NUMBER_COLUMN 15
#define NAME_COLUMN 17

static void pad_to(struct hak_text *line, size_t end) {
    while (line->used < end && line->used < HAK_TEXT_BYTES - 1) hak_text_str(line, " ");
}

static size_t digits_of(uint64_t value) {
    size_t n = 1;
    while ((value /= 10) != 0) n++;
    return n;
}

static void put_right(struct hak_text *line, uint64_t value) {
    size_t n = digits_of(value);
    pad_to(line, line->used + (n < NUMBER_COLUMN ? NUMBER_COLUMN - n : 1));
    hak_text_u64(line, value);
}

static int print_heads(int fd) {
    struct hak_text line = {.used = 0};
    hak_text_head(&line);
    pad_to(&line, line.used + LAYER_COLUMN);
    for (size_t i = 0; i < LAYER_FIGURES; i++) {
        pad_to(&line, line.used + NUMBER_COLUMN - strlen(layer_figures[i].name));
        hak_text_str(&line, layer_figures[i].name);
    }
    return hak_text_line(&line, fd);
}

static int print_layer(int fd, const char *name, const struct hak_layer_stats *layer) {
    struct hak_text line = {.used = 0};
    hak_text_head(&line);
    size_t end = line.used + LAYER_COLUMN;
    hak_text_str(&line, name);
    pad_to(&line, end);
    for (size_t i = 0; i < LAYER_FIGURES; i++) put_right(&line, value_of(layer, &layer_figures[i]));
    return hak_text_line(&line, fd);
}

static int print_figure(int fd, const struct hak_stats *stats, const struct figure *figure) {
    struct hak_text line = {.used = 0};
    hak_text_head(&line);
    size_t end = line.used + NAME_COLUMN;
    hak_text_str(&line, figure->name);
    pad_to(&line, end);
    put_right(&line, value_of(stats, figure));
    hak_text_str(&line, "  ");
    hak_text_str(&line, figure->meaning);
    return hak_text_line(&line, fd);
}

static int print_text(int fd, const struct hak_stats *stats) {
    int error = print_heads(fd);
    for (size_t i = 0; i < HAK_LAYER_COUNT && error == 0; i++) {
        error = print_layer(fd, layer_names[i], &stats->layer[i]);
    }
    for (size_t i = 0; i < FIGURES && error == 0; i++) error = print_figure(fd, stats, &figures[i]);
    return error;
}

/* ---- JSON ----------------------------------------------------------------------------------------------- */

/* Longer than the longest line: the program's name, each byte as \u00XX, and 50 numbers of 20 digits. */
#define LINE_BYTES 8192
#define NAME_BYTES 255

struct line_buffer {
    _Atomic uint32_t taken; /* any thread: acquired by who builds a line, released when it is out */
    char bytes[LINE_BYTES];
};

/* Where text goes: a buffer that is written out whenever it is full. */
struct sink {
    int fd, error;
    size_t used, room;
    char *bytes;
};

static void drain(struct sink *sink) {
    if (sink->error == 0) sink->error = hak_sys_write(sink->fd, sink->bytes, sink->used);
    sink->used = 0;
}

static void put_char(struct sink *sink, char c) {
    if (sink->used == sink->room) drain(sink);
    sink->bytes[sink->used++] = c;
}

static void put(struct sink *sink, const char *s) {
    while (*s != '\0') put_char(sink, *s++);
}

static void put_u64(struct sink *sink, uint64_t value) {
    struct hak_text digits = {.used = 0};
    hak_text_u64(&digits, value);
    for (size_t i = 0; i < digits.used; i++) put_char(sink, digits.bytes[i]);
}

/* Bytes over 127 are taken for Latin-1: whatever the name is, the line is ASCII and valid; and of a length that is
 * written at once. */
static void put_escaped(struct sink *sink, const char *s) {
    for (size_t i = 0; i < NAME_BYTES && s[i] != '\0'; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c < ' ' || c > '~') {
            put(sink, "\\u00");
            put_char(sink, "0123456789abcdef"[c >> 4]);
            put_char(sink, "0123456789abcdef"[c & 15]);
        } else {
            if (c == '"' || c == '\\') put_char(sink, '\\');
            put_char(sink, s[i]);
        }
    }
}

static void put_member(struct sink *sink, const char *name, uint64_t value) {
    put(sink, "\"");
    put(sink, name);
    put(sink, "\":");
    put_u64(sink, value);
}

static void put_layers(struct sink *sink, const struct hak_stats *stats) {
    for (size_t i = 0; i < HAK_LAYER_COUNT; i++) {
        put(sink, i == 0 ? "\"" : ",\"");
        put(sink, layer_names[i]);
        put(sink, "\":{");
        for (size_t j = 0; j < LAYER_FIGURES; j++) {
            if (j > 0) put_char(sink, ',');
            put_member(sink, layer_figures[j].name, value_of(&stats->layer[i], &layer_figures[j]));
        }
        put_char(sink, '}');
    }
}

/* What a line is about: the statistics, or without them how the process started. */
struct report {
    const struct hak_stats *stats;
    const char *start;
};

static void put_start(struct sink *sink, const char *start) {
    put(sink, "\"start\":\"");
    put(sink, start);
    put(sink, "\"");
}

static void put_stats(struct sink *sink, const struct hak_stats *stats) {
    put(sink, "\"layers\":{");
    put_layers(sink, stats);
    put(sink, "}");
    for (size_t i = 0; i < FIGURES; i++) {
        put(sink, ",");
        put_member(sink, figures[i].name, value_of(stats, &figures[i]));
    }
}

static int write_json(struct sink *sink, const struct report *report) {
    put(sink, "{");
    put_member(sink, "version", HAK_STATS_VERSION);
    put(sink, ",");
    put_member(sink, "pid", hak_sys_pid());
    put(sink, ",\"program\":\"");
    put_escaped(sink, hak_sys_program());
    put(sink, "\",");
    if (report->stats != NULL) put_stats(sink, report->stats);
    else put_start(sink, report->start);
    put(sink, "}\n");
    drain(sink);
    return sink->error;
}

static int print_json(int fd, const struct report *report, struct line_buffer *buffer) {
    char small[64];
    uint32_t nobody = 0;
    bool mine = hak_cas_acqrel(&buffer->taken, &nobody, 1); /* pairs with the release below */
    struct sink sink = {
        .fd = fd, .room = mine ? sizeof buffer->bytes : sizeof small, .bytes = mine ? buffer->bytes : small};
    int error = write_json(&sink, report);
    if (mine) hak_store_rel(&buffer->taken, 0);
    return error;
}

/* ---- entry points --------------------------------------------------------------------------------------- */

int hak_stats_print(int fd, enum hak_format format) {
    static struct line_buffer buffer;
    struct hak_stats now;
    if (format != HAK_FORMAT_TEXT && format != HAK_FORMAT_JSON) return EINVAL;
    snapshot(&now);
    return format == HAK_FORMAT_TEXT ? print_text(fd, &now) : print_json(fd, &(struct report){.stats = &now}, &buffer);
}

static HAK_COLD void complain(const char *path) {
    struct hak_text line = {.used = 0};
    hak_text_head(&line);
    hak_text_str(&line, "HAKMEM_STATS_FILE: cannot append to ");
    hak_text_str(&line, path);
    hak_text_line(&line, STDERR);
}

/* A buffer of its own: a thread that hangs in hak_stats_print() cannot make this line come in pieces. */
static bool append_line(const char *path, const struct report *report) {
    static struct line_buffer buffer;
    int fd = hak_sys_open_append(path);
    if (fd < 0) return false;
    int error = print_json(fd, report, &buffer);
    hak_sys_close(fd);
    return error == 0;
}

/* Whether the malloc of the process is the one of this hakmem. It is not where a program brings its own, perhaps
 * another hakmem that is linked into it, and this one was preloaded: then nobody asks for its statistics. Addresses
 * alone do not tell: a program that is not position-independent can put one of its own in malloc's place. */
static bool serves_the_process(void) {
    void *(*malloc_of_process)(size_t) = malloc;
    hak_forget_register(malloc_of_process); /* compilers believe that two names are two functions */
    if (HAK_TEST || malloc_of_process == hak_own_malloc) return true;
    void *ptr = malloc_of_process(1);
    struct hak_region region = hak_region_lookup(ptr); /* not hak_is_owned(): that may be the other hakmem's as well */
    free(ptr);
    return region.owner != 0 || region.kind != HAK_KIND_NONE;
}

static bool is_idle(const struct hak_stats *stats) {
    uint64_t served = 0;
    for (size_t i = 0; i < HAK_LAYER_COUNT; i++) served += stats->layer[i].served_blocks;
    return served == 0;
}

static bool serving = true; /* constant after start */

static bool complained; /* set at start only */

static void tell_start(const char *path, const char *start) {
    if (hak_option(STATS_START) && serving) append_line(path, &(struct report){.start = start});
}

void hak_stats_in_child(void) {
    if (hak_options.STATS_FILE != NULL) tell_start(hak_options.STATS_FILE, "fork");
}

/* That a file cannot be written is told before the program runs: many close stderr in their exit handlers. */
static void start_file(const char *path) {
    complained = !hak_sys_can_append(path);
    if (complained) complain(path);
    tell_start(path, "exec");
}

/* Programs close stderr in their exit handlers, which run before ours, or give its number to a file of theirs. */
static int exit_fd = -1; /* constant after start */

static void start_stderr(void) {
    exit_fd = hak_sys_duplicate(STDERR);
    if (exit_fd < 0) hak_warn("HAKMEM_STATS: too many open files; nothing will be printed");
}

void hak_stats_at_start(void) {
    if (hak_options.STATS == NULL && hak_options.STATS_FILE == NULL) return;
    serving = serves_the_process();
    if (hak_options.STATS != NULL) start_stderr();
    if (hak_options.STATS_FILE != NULL) start_file(hak_options.STATS_FILE);
}

void hak_stats_at_exit(void) {
    if (hak_options.STATS == NULL && hak_options.STATS_FILE == NULL) return;
    struct hak_stats now;
    snapshot(&now);
    if (!serving && is_idle(&now)) return;
    if (hak_options.STATS != NULL && exit_fd >= 0) {
        hak_stats_print(exit_fd, hak_options.STATS[0] == 'j' ? HAK_FORMAT_JSON : HAK_FORMAT_TEXT);
        hak_sys_close(exit_fd);
    }
    const char *path = hak_options.STATS_FILE;
    if (path != NULL && !append_line(path, &(struct report){.stats = &now}) && !complained) complain(path);
}
