/* fuzz: ops ../tools/runner/program ../tools/runner/summary */
/* The files that our tools read, which may hold anything. The first byte says which: 'E' a program or script that
 * hakrun looks at before it starts it; 'S' and 'J' the lines of statistics that hakrun sums up, as text and as JSON;
 * 'N' the name of a program, whose line hakmem writes and hakrun reads; 'O' operations that show prints and the other
 * targets run. */
#include "ops.h"

#include "support/expect.h"

#include "../tools/runner/runner.h"
#include "hakmem.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* ---- what is hakrun's main ------------------------------------------------------------------------------------- */

static unsigned said;

void say(const char *format, ...) {
    char line[8192];
    va_list args;
    va_start(args, format);
    expect(vsnprintf(line, sizeof line, format, args) > 0);
    va_end(args);
    said++;
}

_Noreturn void fail(int status, const char *what, const char *why) {
    fprintf(stderr, "hakrun would end with %d: %s: %s\n", status, what, why);
    abort();
}

const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The bytes as a file; the caller closes it. */
static int make_file(char path[PATH_MAX], const void *data, size_t bytes) {
    int fd = memfd_create("input", MFD_CLOEXEC);
    expect(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes);
    snprintf(path, PATH_MAX, "/proc/self/fd/%d", fd);
    return fd;
}

/* ---- programs -------------------------------------------------------------------------------------------------- */

/* Who is not started is told why. */
static void examine(const uint8_t *data, size_t bytes) {
    char path[PATH_MAX];
    int fd = make_file(path, data, bytes);
    said = 0;
    expect(program_examine(path, "/proc/self/exe") || said != 0);
    snprintf(path, PATH_MAX, "/proc/self/fd/%d", fd);
    program_examine_for_libc(path);
    snprintf(path, PATH_MAX, "/proc/self/fd/%d", fd);
    library_fault(path);
    close(fd);
}

/* ---- statistics ------------------------------------------------------------------------------------------------ */

/* Sums a file up; the caller frees the text. Each of its lines is whole. */
static char *sum_up(const void *lines, size_t bytes, bool json) {
    char path[PATH_MAX], *text = NULL;
    size_t text_bytes;
    int fd = make_file(path, lines, bytes);
    const struct usage usage = {.wall = 1.5, .peak_rss = 12345678, .still_running = json};
    const struct statistics statistics = {.lines = path};
    FILE *out = open_memstream(&text, &text_bytes);
    expect(out != NULL);
    summary_print(out, json, "program", &statistics, &usage);
    expect(fclose(out) == 0 && text_bytes != 0 && text[text_bytes - 1] == '\n' && strlen(text) == text_bytes);
    close(fd);
    return text;
}

static void expect_read(const char *line) {
    char *json = sum_up(line, strlen(line), true);
    expect(strstr(json, "\"processes\":1,\"without_statistics\":0,\"unreadable\":0,") != NULL);
    free(json);
}

static void sum_up_in_text(const uint8_t *data, size_t bytes) {
    char *text = sum_up(data, bytes, false);
    for (char *line = text; *line != '\0'; line = strchr(line, '\n') + 1) expect(strncmp(line, "hakrun: ", 8) == 0);
    free(text);
}

/* The sum in JSON is itself a line that can be read. */
static void sum_up_in_json(const uint8_t *data, size_t bytes) {
    char *json = sum_up(data, bytes, true);
    expect(strchr(json, '\n')[1] == '\0');
    expect_read(json);
    free(json);
}

/* What hakmem writes can be read, whatever name the program gives itself. */
static void write_and_read(const uint8_t *data, size_t bytes) {
    static char line[16384];
    char path[PATH_MAX], *own_name = program_invocation_short_name, *name = text_of(data, bytes);
    int fd = make_file(path, "", 0);
    program_invocation_short_name = name;
    expect_equal(hak_stats_print(fd, HAK_FORMAT_JSON), 0);
    program_invocation_short_name = own_name;
    ssize_t length = pread(fd, line, sizeof line - 1, 0);
    expect(length > 0);
    line[length] = '\0';
    close(fd);
    free(name);
    expect_read(line);
    sum_up_in_json((const uint8_t *)line, (size_t)length);
}

/* ---- operations ------------------------------------------------------------------------------------------------ */

/* What was decoded can be encoded, and is then the same; each operation is a line that fits. */
static void decode(const uint8_t *data, size_t bytes) {
    static uint8_t copy[FUZZ_HEADER_BYTES + FUZZ_OPS_MAX * FUZZ_OP_BYTES + FUZZ_SCHEDULE_MAX];
    static struct fuzz_names names;
    struct fuzz_input input, again;
    if (!fuzz_decode(&input, data, bytes)) return;
    names = (struct fuzz_names){.born = 0};
    fuzz_encode_header(copy, &input.config, input.schedule_bytes);
    for (size_t i = 0; i < input.count; i++) {
        char line[128];
        fuzz_describe(line, sizeof line, fuzz_op_at(&input, i), &names);
        expect(strlen(line) + 1 < sizeof line && line[0] == 't');
        fuzz_encode_op(copy + FUZZ_HEADER_BYTES + i * FUZZ_OP_BYTES, fuzz_op_at(&input, i));
    }
    uint8_t *schedule = copy + FUZZ_HEADER_BYTES + input.count * FUZZ_OP_BYTES;
    memcpy(schedule, input.schedule, input.schedule_bytes);
    expect(fuzz_decode(&again, copy, (size_t)(schedule - copy) + input.schedule_bytes));
    expect_equal(again.count, input.count);
    expect_equal(again.schedule_bytes, input.schedule_bytes);
    expect_equal(again.config.threads, input.config.threads);
    expect_equal(again.config.seed, input.config.seed);
    for (size_t i = 0; i < input.count; i++) {
        struct fuzz_op a = fuzz_op_at(&input, i), b = fuzz_op_at(&again, i);
        expect(a.tid == b.tid && a.kind == b.kind && a.slot == b.slot && a.size == b.size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (bytes == 0) return 0;
    switch (data[0]) {
    case 'E':
        examine(data + 1, bytes - 1);
        break;
    case 'S':
        sum_up_in_text(data + 1, bytes - 1);
        break;
    case 'J':
        sum_up_in_json(data + 1, bytes - 1);
        break;
    case 'N':
        write_and_read(data + 1, bytes - 1);
        break;
    case 'O':
        decode(data + 1, bytes - 1);
        break;
    }
    return 0;
}
