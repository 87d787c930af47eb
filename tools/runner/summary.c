/* The sum over a process tree. Each process on hakmem appends one JSON object as a line to the statistics file
 * when it starts and one when it ends; this file adds the numbers of the latter up by their place
 * ("layers.tiny.served_bytes"), whatever they are, so that a counter which the library gains appears in the sum by
 * itself. A line that is cut short or is no JSON (the disk was full, a process was killed in between) is counted as
 * unreadable and leaves the sum alone.
 *
 * A library has its say at the end only of a process that runs its destructors. _exit(), a signal and a program
 * without hakmem that exec() puts in the place of the one before leave no line; of such processes the first line
 * remains without a second. */
#define _GNU_SOURCE
#include "runner.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIDS = 1 << 22 }; /* the kernel gives no larger ones */
enum { FIGURES = 256, PROGRAMS = 64, NAME_BYTES = 64, DEPTH = 8 };
enum { PATH_BYTES = DEPTH * NAME_BYTES }; /* of the longest names, one within the other */

struct figure {
    char path[PATH_BYTES];
    uint64_t sum;
};

struct program {
    char name[NAME_BYTES];
    unsigned processes, silent;
};

struct sum {
    unsigned processes, silent, unreadable;
    size_t figures_count, programs_count;
    struct figure figures[FIGURES];
    struct program programs[PROGRAMS + 1]; /* the first of them; the last one stands for all others */
    uint64_t highest;                      /* pid seen */
    unsigned char running[PIDS];           /* 0, or one more than the number of the program that has started */
};
static_assert(PROGRAMS + 1 <= UCHAR_MAX, "running[] holds its number");

/* A walk over one line. Without a sum it only checks, and finds out what the line is about. */
struct walk {
    const char *at;
    struct sum *sum;
    char path[PATH_BYTES];
    int depth;
    uint64_t pid;
    char program[NAME_BYTES], start[NAME_BYTES]; /* `start` is empty for the end of a process */
};

static void figure_add(struct sum *s, const char *path, uint64_t value) {
    static const char *const not_sums[] = {"pid", "version", "size"};
    for (size_t i = 0; i < sizeof not_sums / sizeof not_sums[0]; i++)
        if (strcmp(path, not_sums[i]) == 0) return;
    size_t i = 0;
    while (i < s->figures_count && strcmp(s->figures[i].path, path) != 0) i++;
    if (i == FIGURES) return;
    if (i == s->figures_count) {
        s->figures_count++;
        snprintf(s->figures[i].path, PATH_BYTES, "%s", path);
    }
    s->figures[i].sum += value;
}

static size_t program_number(struct sum *s, const char *name) {
    size_t i = 0;
    while (i < s->programs_count && strcmp(s->programs[i].name, name) != 0) i++;
    if (i < s->programs_count || i == PROGRAMS) return i;
    s->programs_count++;
    snprintf(s->programs[i].name, NAME_BYTES, "%s", name);
    return i;
}

/* The process whose start was the last with this number has left nothing else. */
static void count_silent(struct sum *s, uint64_t pid) {
    if (s->running[pid] == 0) return;
    s->silent++;
    s->programs[s->running[pid] - 1].silent++;
    s->running[pid] = 0;
}

/* A start by exec() of a process that has started already is the same process; by fork() it is another one that was
 * given the number of one that has gone. */
static void count_process(struct sum *s, const struct walk *line) {
    uint64_t pid = line->pid < PIDS ? line->pid : 0;
    if (pid > s->highest) s->highest = pid;
    size_t number = program_number(s, line->program);
    if (*line->start == 0) {
        s->processes++;
        s->programs[number].processes++;
        s->running[pid] = 0;
        return;
    }
    if (strcmp(line->start, "fork") == 0) count_silent(s, pid);
    s->running[pid] = (unsigned char)(number + 1);
}

static bool skip(struct walk *w, char c) {
    while (isspace((unsigned char)*w->at)) w->at++;
    if (*w->at != c) return false;
    w->at++;
    return true;
}

/* How many bytes write the character at `at`, which may be an escape; 0: none can stand there. */
static size_t character_bytes(const char *at) {
    if ((unsigned char)*at < ' ') return 0;
    if (*at != '\\') return 1;
    if (at[1] != 'u') return at[1] != 0 && strchr("\"\\/bfnrt", at[1]) ? 2 : 0;
    for (size_t i = 2; i < 6; i++)
        if (!isxdigit((unsigned char)at[i])) return 0;
    return 6;
}

/* A string without its quotes, cut to `size` between two characters; escapes are kept as they are written. */
static bool walk_string(struct walk *w, char *out, size_t size) {
    size_t n = 0;
    if (!skip(w, '"')) return false;
    for (size_t bytes; *w->at != '"'; w->at += bytes) {
        bytes = character_bytes(w->at);
        if (bytes == 0) return false;
        if (n + bytes >= size) size = 0; /* it does not fit, and nothing behind it is wanted */
        for (size_t i = 0; size != 0 && i < bytes; i++) out[n++] = w->at[i];
    }
    w->at++;
    out[n] = 0;
    return true;
}

static bool walk_number(struct walk *w) {
    char *end;
    double value = strtod(w->at, &end);
    if (end == w->at || (*w->at != '-' && !isdigit((unsigned char)*w->at))) return false;
    uint64_t whole = isdigit((unsigned char)*w->at) ? strtoull(w->at, NULL, 10) : 0;
    w->at = end;
    if (w->sum && value >= 0) figure_add(w->sum, w->path, whole);
    if (strcmp(w->path, "pid") == 0) w->pid = whole;
    return true;
}

/* JSON is nested; DEPTH bounds the recursion. NOLINTBEGIN(misc-no-recursion) */
static bool walk_value(struct walk *w);

static bool walk_members(struct walk *w) {
    char name[NAME_BYTES];
    size_t length = strlen(w->path);
    do {
        if (!walk_string(w, name, sizeof name) || !skip(w, ':')) return false;
        snprintf(w->path + length, sizeof w->path - length, "%s%s", length > 0 ? "." : "", name);
        bool fine = walk_value(w);
        w->path[length] = 0;
        if (!fine) return false;
    } while (skip(w, ','));
    return skip(w, '}');
}

static bool walk_elements(struct walk *w) {
    do {
        if (!walk_value(w)) return false;
    } while (skip(w, ','));
    return skip(w, ']');
}

static bool walk_word(struct walk *w) {
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strncmp(w->at, words[i], strlen(words[i])) == 0) {
            w->at += strlen(words[i]);
            return true;
        }
    return false;
}

static bool walk_text(struct walk *w) {
    char text[NAME_BYTES];
    if (!walk_string(w, text, sizeof text)) return false;
    if (strcmp(w->path, "program") == 0) memcpy(w->program, text, sizeof text);
    if (strcmp(w->path, "start") == 0) memcpy(w->start, text, sizeof text);
    return true;
}

static bool walk_value(struct walk *w) {
    bool fine = false;
    if (++w->depth > DEPTH) return false;
    if (skip(w, '{')) fine = skip(w, '}') || walk_members(w);
    else if (skip(w, '[')) fine = skip(w, ']') || walk_elements(w);
    else fine = *w->at == '"' ? walk_text(w) : walk_number(w) || walk_word(w);
    w->depth--;
    return fine;
}

/* NOLINTEND(misc-no-recursion) */

static bool line_walk(struct walk *w, struct sum *s, const char *line) {
    *w = (struct walk){.at = line, .sum = s};
    return *line == '{' && walk_value(w) && strcmp(w->at, "\n") == 0;
}

/* Adds one line up; returns whether it is about the end of a process, or about nothing that can be read. */
static bool sum_line(struct sum *s, const char *line) {
    struct walk w;
    if (!line_walk(&w, NULL, line)) {
        s->unreadable++;
        return true;
    }
    if (*w.start == 0) line_walk(&w, s, line);
    count_process(s, &w);
    return *w.start == 0;
}

/* Each line by one write, as the library appends it: others may append to the same file. */
static void copy_line(int copy, const char *line, size_t bytes, const char *path) {
    static bool told;
    if (copy >= 0 && write(copy, line, bytes) == (ssize_t)bytes) return;
    if (!told) say("HAKMEM_STATS_FILE: cannot append to %s: %s", path, strerror(errno));
    told = true;
}

static void sum_file(struct sum *s, const struct statistics *statistics) {
    char *line = NULL;
    size_t room = 0;
    const char *path = statistics->copy;
    int copy = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
    FILE *f = fopen(statistics->lines, "r");
    if (!f) say("%s: %s", statistics->lines, strerror(errno));
    for (ssize_t n; f && (n = getline(&line, &room, f)) > 0;) {
        bool wanted = sum_line(s, line) || statistics->copy_starts;
        if (path && wanted) copy_line(copy, line, (size_t)n, path);
    }
    for (uint64_t pid = 0; pid <= s->highest; pid++) count_silent(s, pid);
    free(line);
    if (f) fclose(f);
    if (copy >= 0) close(copy);
}

static uint64_t figure(const struct sum *s, const char *layer, const char *name) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "layers.%s.%s", layer, name);
    for (size_t i = 0; i < s->figures_count; i++)
        if (strcmp(s->figures[i].path, path) == 0) return s->figures[i].sum;
    return 0;
}

static const char *human(uint64_t bytes, char text[16]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < sizeof units / sizeof units[0]; unit++) value /= 1024;
    snprintf(text, 16, "%.*f %s", unit > 0, value, units[unit]);
    return text;
}

static void print_layer(FILE *out, const struct sum *s, const char *layer) {
    char served[16], live[16], mapped[16], purged[16];
    fprintf(out, "hakrun:   %-6s%12s%14" PRIu64 "%14s%12s%12s\n", layer,
            human(figure(s, layer, "served_bytes"), served), figure(s, layer, "served_blocks"),
            human(figure(s, layer, "live_bytes"), live), human(figure(s, layer, "mapped_bytes"), mapped),
            human(figure(s, layer, "purged_bytes"), purged));
}

/* "N processes WHAT: 2 this, 1 that" */
static void print_processes(FILE *out, const struct sum *s, bool silent, unsigned count, const char *what) {
    const char *before = ": ";
    fprintf(out, "hakrun: %u process%s %s", count, count == 1 ? "" : "es", what);
    for (size_t i = 0; i < s->programs_count; i++) {
        unsigned n = silent ? s->programs[i].silent : s->programs[i].processes;
        if (n > 0) fprintf(out, "%s%u %s", before, n, s->programs[i].name);
        if (n > 0) before = ", ";
    }
    fputc('\n', out);
}

static void print_text(FILE *out, const struct sum *s, const char *program, const struct usage *u) {
    static const char *const layers[] = {"tiny", "mid", "l25", "big"};
    char rss[16];
    fprintf(out, "hakrun: %s: %.2f s, %.2f s user, %.2f s system, peak RSS %s of the largest process\n", program,
            u->wall, u->user, u->system, human(u->peak_rss, rss));
    if (!s) return;
    print_processes(out, s, false, s->processes, "on hakmem");
    if (s->silent > 0)
        print_processes(out, s, true, s->silent,
                        "left no statistics (they ended by _exit() or a signal, or still run)");
    if (s->unreadable > 0) fprintf(out, "hakrun: %u unreadable lines of statistics are left out\n", s->unreadable);
    if (u->still_running) fputs("hakrun: processes that it started still run and are left out\n", out);
    if (s->processes == 0) {
        if (s->silent == 0) fputs("hakrun: no process ran on hakmem's malloc\n", out);
        return;
    }
    fprintf(out, "hakrun:   %-6s%12s%14s%14s%12s%12s\n", "layer", "served", "blocks", "live at exit", "mapped",
            "purged");
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++) print_layer(out, s, layers[i]);
}

/* The numbers of the lines, nested no further than by their paths. */
static void print_json(FILE *out, const struct sum *s, const struct usage *u) {
    fprintf(out, "{\"wall_seconds\":%.3f,\"user_seconds\":%.3f,\"system_seconds\":%.3f,\"peak_rss_bytes\":%" PRIu64,
            u->wall, u->user, u->system, u->peak_rss);
    if (s) {
        const char *before = "";
        fprintf(out,
                ",\"processes\":%u,\"without_statistics\":%u,\"unreadable\":%u,\"still_running\":%s,\"programs\":{",
                s->processes, s->silent, s->unreadable, u->still_running ? "true" : "false");
        for (size_t i = 0; i < s->programs_count; i++) {
            if (s->programs[i].processes == 0) continue;
            fprintf(out, "%s\"%s\":%u", before, s->programs[i].name, s->programs[i].processes);
            before = ",";
        }
        fputs("},\"sum\":{", out);
        for (size_t i = 0; i < s->figures_count; i++)
            fprintf(out, "%s\"%s\":%" PRIu64, i > 0 ? "," : "", s->figures[i].path, s->figures[i].sum);
        fputc('}', out);
    }
    fputs("}\n", out);
}

void summary_print(FILE *out, bool json, const char *program, const struct statistics *statistics,
                   const struct usage *usage) {
    struct sum *s = statistics->lines ? calloc(1, sizeof *s) : NULL;
    if (statistics->lines && !s) fail(EXIT_REFUSED, "the summary", strerror(errno));
    if (s) sum_file(s, statistics);
    if (json) print_json(out, s, usage);
    else print_text(out, s, program, usage);
    free(s);
}
