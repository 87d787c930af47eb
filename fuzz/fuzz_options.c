/* The options against a second, plainer reading of the same environment: each value is what that says, in its range,
 * and each complaint one whole printable line.
 *
 * The bytes are variables, each up to a newline or a NUL; the last one without an end is the program's name. Those
 * that begin with a small letter get "HAKMEM_" in front and that letter taken away, so that a fuzzer need not find it
 * out. */
#include "support/expect.h"

#include "base/options.h"

#include <errno.h>
#include <regex.h>
#include <sys/syscall.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define VARIABLES 64
#define PREFIX "HAKMEM_"
#define PREFIX_BYTES (sizeof PREFIX - 1)

/* ---- what is printed --------------------------------------------------------------------------------------------- */

static bool listening;
static unsigned lines;
static char head[128];

/* A line is written whole, by one call. */
static void hear(const char *line, size_t bytes) {
    expect(bytes > strlen(head) && bytes <= 480 && line[bytes - 1] == '\n');
    expect(memcmp(line, head, strlen(head)) == 0);
    for (size_t i = 0; i + 1 < bytes; i++) expect(line[i] >= ' ' && line[i] <= '~');
    lines++;
}

/* In the C library's place, for hakmem. */
ssize_t write(int fd, const void *text, size_t bytes) {
    if (!listening || fd != 2) return syscall(SYS_write, fd, text, bytes);
    listening = false; /* what fails in here may be printed */
    hear(text, bytes);
    listening = true;
    return (ssize_t)bytes;
}

static void make_head(const char *name) {
    char shown[80];
    size_t used = 0;
    for (const char *c = name[0] != '\0' ? name : "?"; *c != '\0' && used < 64; c++)
        shown[used++] = *c >= ' ' && *c <= '~' ? *c : '?';
    shown[used] = '\0';
    snprintf(head, sizeof head, "hakmem[%d %s%s]: ", (int)getpid(), shown, strlen(name) > 64 ? "..." : "");
}

/* ---- what must be ------------------------------------------------------------------------------------------------ */

enum type { BOOL, NUMBER, TEXT };
static const struct option {
    const char *name;
    enum type type;
    uint64_t def, min, max;
    const char *choices;
} options[] = {
#define HAK_OPTION(name, type, def, min, max, unit, help) {#name, type, def, min, max, unit},
#include "base/options.def"
#undef HAK_OPTION
};

static struct value {
    bool seen;
    uint64_t number;
    const char *text;
} wanted[COUNT(options)];
static unsigned wanted_lines;

static regex_t number_form;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    return regcomp(&number_form, "^-?(0[xX][0-9a-fA-F]+|[0-9]+)[KMGkmg]?$", REG_EXTENDED | REG_NOSUB);
}

/* Saturates, as strtoull does. */
static uint64_t scaled(const char *text) {
    char *end;
    const bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    errno = 0;
    unsigned long long value = strtoull(text, &end, hex ? 16 : 10);
    static const char suffixes[] = "KMGkmg";
    const char *suffix = *end != '\0' ? strchr(suffixes, *end) : NULL;
    const unsigned shift = suffix != NULL ? (unsigned)((suffix - suffixes) % 3 + 1) * 10 : 0;
    return errno != 0 || value > UINT64_MAX >> shift ? UINT64_MAX : value << shift;
}

static void want_number(const struct option *option, struct value *value, const char *text) {
    bool good = regexec(&number_form, text, 0, NULL, 0) == 0, minus = text[0] == '-';
    uint64_t number = good ? scaled(text + minus) : option->def;
    bool below = good && minus && number != 0; /* under zero, and so under each smallest value */
    value->number = below || number < option->min ? option->min : number > option->max ? option->max : number;
    wanted_lines += !good || below || value->number != number;
}

static void want_bool(struct value *value, const char *text) {
    bool good = strcmp(text, "0") == 0 || strcmp(text, "1") == 0;
    if (good) value->number = text[0] == '1';
    wanted_lines += !good;
}

static void want_text(const struct option *option, struct value *value, const char *text) {
    char list[64], chosen[64];
    if (text[0] == '\0' || strcmp(text, "0") == 0) return;
    bool good = strlen(text) < 4096;
    if (good && strchr(option->choices, '|') != NULL) { /* between bars */
        snprintf(list, sizeof list, "|%s|", option->choices);
        snprintf(chosen, sizeof chosen, "|%s|", text);
        good = strchr(text, '|') == NULL && strlen(text) + 2 < sizeof chosen && strstr(list, chosen) != NULL;
    }
    if (good) value->text = text;
    wanted_lines += !good;
}

static void want(const char *variable) {
    const char *equals = strchr(variable, '=');
    if (equals == NULL || strncmp(variable, PREFIX, PREFIX_BYTES) != 0) return;
    const char *name = variable + PREFIX_BYTES;
    for (size_t i = 0; i < COUNT(options); i++) {
        const struct option *option = &options[i];
        if (strlen(option->name) != (size_t)(equals - name) || strncmp(name, option->name, strlen(option->name)) != 0)
            continue;
        if (wanted[i].seen) return; /* the first counts */
        wanted[i].seen = true;
        if (option->type == BOOL) want_bool(&wanted[i], equals + 1);
        else if (option->type == NUMBER) want_number(option, &wanted[i], equals + 1);
        else want_text(option, &wanted[i], equals + 1);
        return;
    }
    wanted_lines++; /* no such option */
}

static struct value *value_of(const char *name) {
    size_t i = 0;
    while (strcmp(options[i].name, name) != 0) i++;
    return &wanted[i];
}

/* The largest counts; who asked for more as the smallest is told. */
static void want_order(const char *min_name, const char *max_name) {
    struct value *min = value_of(min_name), *max = value_of(max_name);
    if (min->number <= max->number) return;
    min->number = max->number;
    wanted_lines += min->seen;
}

static void want_power_of_two(const char *name) {
    struct value *value = value_of(name);
    uint64_t rounded = value->number;
    while ((rounded & (rounded - 1)) != 0) rounded &= rounded - 1;
    if (rounded == value->number) return;
    value->number = rounded;
    wanted_lines += value->seen;
}

static void want_all(char **env) {
    wanted_lines = 0;
    for (size_t i = 0; i < COUNT(options); i++) wanted[i] = (struct value){.number = options[i].def};
    for (; *env != NULL; env++) want(*env);
    want_order("TLS_SLOTS_MIN", "TLS_SLOTS_MAX");
    want_order("L25_SHARDS_MIN", "L25_SHARDS_MAX");
    want_power_of_two("L25_SHARDS_MIN");
    want_power_of_two("L25_SHARDS_MAX");
    want_power_of_two("BIGCACHE_BUCKETS_MAX");
    if (value_of("HELP")->number != 0) wanted_lines += COUNT(options) + 1;
}

static void compare_text(const char *text, const char *wanted_text) {
    expect((text == NULL) == (wanted_text == NULL));
    expect(text == NULL || strcmp(text, wanted_text) == 0);
}

static void compare(void) {
    size_t i = 0;
    expect_equal(lines, wanted_lines);
#define COMPARE_BOOL(name) expect_equal(hak_option(name), wanted[i++].number)
#define COMPARE_NUMBER(name) expect_equal(hak_option(name), wanted[i++].number)
#define COMPARE_TEXT(name) compare_text(hak_options.name, wanted[i++].text)
#define HAK_OPTION(name, type, def, min, max, unit, help) COMPARE_##type(name);
#include "base/options.def"
#undef HAK_OPTION
}

/* ---- an input ------------------------------------------------------------------------------------------------------
 */

/* The next variable, on the heap and no longer than it is, or NULL behind the last one with an end. */
static char *next_variable(const char **at, const char *end) {
    size_t bytes = 0;
    while (*at + bytes < end && (*at)[bytes] != '\n' && (*at)[bytes] != '\0') bytes++;
    if (*at + bytes == end) return NULL;
    const char *text = *at;
    const bool marked = bytes != 0 && *text >= 'a' && *text <= 'z';
    char *variable = malloc(PREFIX_BYTES + bytes + 1);
    expect(variable != NULL);
    const size_t before = marked ? PREFIX_BYTES : 0, skipped = marked;
    memcpy(variable, PREFIX, before);
    memcpy(variable + before, text + skipped, bytes - skipped);
    variable[before + bytes - skipped] = '\0';
    *at += bytes + 1;
    return variable;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    const char *at = (const char *)data, *end = at + bytes;
    char *env[VARIABLES + 1] = {NULL}, *own_name = program_invocation_short_name;
    unsigned count = 0;
    while (count < VARIABLES && (env[count] = next_variable(&at, end)) != NULL) count++;
    env[count] = NULL;
    char *name = text_of(at, (size_t)(end - at));
    make_head(name);
    want_all(env);
    lines = 0;
    hak_options_reset_for_test(); /* the process has read its own at its start */
    program_invocation_short_name = name;
    listening = true;
    hak_options_init(env);
    listening = false;
    program_invocation_short_name = own_name;
    compare();
    free(name);
    for (unsigned i = 0; i < count; i++) free(env[i]);
    hak_options_reset_for_test(); /* nothing of it may be done at its end */
    return 0;
}
