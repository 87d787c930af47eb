/* The options: values, names and texts as a hostile environment could have them, and every line that is printed. */
#include "base/options.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- a set-user-ID program, as the library sees it -------------------------------------------------------- */

unsigned long __getauxval(unsigned long type);
static bool secure;

#if defined(__clang__)
__attribute__((disable_sanitizer_instrumentation)) /* the sanitizer itself asks, before it is up */
#endif
unsigned long
getauxval(unsigned long type) {
    return secure && type == AT_SECURE ? 1 : __getauxval(type);
}

/* ---- reading an environment, and what it printed ------------------------------------------------------------ */

static char printed[65536];

/* Reads the given variables, from the defaults; `printed` is then what came out on stderr. */
static void read_env(char **env) {
    int err = dup(2), file = memfd_create("stderr", 0);
    assert_true(err >= 0 && file >= 0);
    hak_options_reset_for_test();
    dup2(file, 2);
    hak_options_init(env);
    dup2(err, 2);
    ssize_t n = pread(file, printed, sizeof printed - 1, 0);
    assert_true(n >= 0);
    printed[n] = '\0';
    close(err);
    close(file);
}
#define READ(...) read_env((char *[]){__VA_ARGS__, NULL})

/* What was printed must be one line: the head, then `text`. */
static void assert_line(const char *text) {
    char line[1024];
    snprintf(line, sizeof line, "hakmem[%d %s]: %s\n", (int)getpid(), program_invocation_short_name, text);
    assert_string_equal(printed, line);
}

static void assert_silent(void) { assert_string_equal(printed, ""); }

static void assert_defaults(void) {
#define CHECK_BOOL(name, def) assert_int_equal(hak_option(name), def)
#define CHECK_NUMBER(name, def) assert_int_equal(hak_option(name), def)
#define CHECK_TEXT(name, def) assert_null(hak_options.name)
#define HAK_OPTION(name, type, def, min, max, unit, help) CHECK_##type(name, def);
#include "base/options.def"
#undef HAK_OPTION
}

/* ---- tests -------------------------------------------------------------------------------------------------- */

static void an_environment_without_options_gives_the_defaults_in_silence(void **state) {
    (void)state;
    READ("PATH=/bin", "HAKME=1", "HAKMEM=1", "hakmem_LOG=1", "XHAKMEM_LOG=1", "", "=", "HAKMEM_LOG");
    assert_silent();
    assert_defaults();
}

static void no_environment_yet_is_no_reading(void **state) {
    (void)state;
    hak_options_reset_for_test();
    hak_options_init(NULL);
    hak_options_init((char *[]){"HAKMEM_PREWARM=7", NULL});
    assert_int_equal(hak_option(PREWARM), 7);
}

static void only_the_first_environment_counts(void **state) {
    (void)state;
    READ("HAKMEM_PREWARM=7");
    hak_options_init((char *[]){"HAKMEM_PREWARM=8", NULL});
    assert_int_equal(hak_option(PREWARM), 7);
}

static void of_a_name_that_occurs_twice_the_first_counts(void **state) {
    (void)state;
    READ("HAKMEM_PREWARM=7", "HAKMEM_PREWARM=nonsense", "HAKMEM_PREWARM=8");
    assert_silent();
    assert_int_equal(hak_option(PREWARM), 7);
}

static void numbers_are_decimal_or_hexadecimal_with_a_suffix(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t value;
    } cases[] = {
        {"0", 0},
        {"1", 1},
        {"0000000000000000000000000000000000000000000000000000000000000000000000000000000001048577", 1048577},
        {"0x0", 0},
        {"0xfF0", 4080},
        {"0X10", 16},
        {"3K", 3072},
        {"3k", 3072},
        {"5M", 5u << 20},
        {"5m", 5u << 20},
        {"7G", 7ull << 30},
        {"7g", 7ull << 30},
        {"0x10M", 16u << 20},
        {"1024G", 1ull << 40},
        {"1099511627776", 1ull << 40},
        {"00K", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char variable[256];
        snprintf(variable, sizeof variable, "HAKMEM_RETAIN_BYTES=%s", cases[i].text);
        READ(variable);
        assert_silent();
        assert_int_equal(hak_option(RETAIN_BYTES), cases[i].value);
    }
}

static void what_is_no_number_is_named_and_the_default_used(void **state) {
    (void)state;
    static const char *const cases[] = {
        "",      " ",   "-",     "+1",     " 1",    "1 ",    "0x",  "0xg", "x10", "1KK",   "1KB", "1T",  "K",  "1.5",
        "1,000", "1e6", "10K M", "0x10Kx", "0x 10", "seven", "1\t", "0b1", "1/2", "00x10", "--1", "- 1", "1-", "-x"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char variable[64], line[128], shown[32];
        snprintf(shown, sizeof shown, "%s", cases[i]);
        for (char *c = shown; *c; c++) *c = *c == '\t' ? '?' : *c;
        snprintf(variable, sizeof variable, "HAKMEM_PREWARM=%s", cases[i]);
        snprintf(line, sizeof line, "HAKMEM_PREWARM=\"%s\" is not a number; used: 4", shown);
        READ(variable);
        assert_line(line);
        assert_int_equal(hak_option(PREWARM), 4);
    }
}

static void a_number_out_of_range_is_clamped_and_the_value_used_is_named(void **state) {
    (void)state;
    READ("HAKMEM_PREWARM=17");
    assert_line("HAKMEM_PREWARM=\"17\" is out of range 0..16; used: 16");
    assert_int_equal(hak_option(PREWARM), 16);
    READ("HAKMEM_TLS_SLOTS_MIN=0");
    assert_line("HAKMEM_TLS_SLOTS_MIN=\"0\" is out of range 1..2048; used: 1");
    assert_int_equal(hak_option(TLS_SLOTS_MIN), 1);
    READ("HAKMEM_BIGCACHE_BLOCK_MAX=1K");
    assert_line("HAKMEM_BIGCACHE_BLOCK_MAX=\"1K\" is out of range 1048576..1099511627776; used: 1048576");
    assert_int_equal(hak_option(BIGCACHE_BLOCK_MAX), 1048576);
}

static void a_number_below_zero_is_out_of_range_and_the_smallest_used(void **state) {
    (void)state;
    static const char *const cases[] = {"-1", "-16", "-0x10", "-3K", "-99999999999999999999"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char variable[64], line[128];
        snprintf(variable, sizeof variable, "HAKMEM_PREWARM=%s", cases[i]);
        snprintf(line, sizeof line, "HAKMEM_PREWARM=\"%s\" is out of range 0..16; used: 0", cases[i]);
        READ(variable);
        assert_line(line);
        assert_int_equal(hak_option(PREWARM), 0);
    }
    READ("HAKMEM_TLS_SLOTS_MIN=-1");
    assert_line("HAKMEM_TLS_SLOTS_MIN=\"-1\" is out of range 1..2048; used: 1");
    READ("HAKMEM_PREWARM=-0");
    assert_silent();
    assert_int_equal(hak_option(PREWARM), 0);
}

static void a_number_that_64_bits_cannot_hold_is_the_largest(void **state) {
    (void)state;
    static const char *const cases[] = {"18446744073709551615",  "18446744073709551616",  "18446744073709551619",
                                        "184467440737095516150", "99999999999999999999G", "0xffffffffffffffffffffffff",
                                        "17179869184G",          "18014398509481984K",    "0x8000000000000000M",
                                        "18446744073709551621K"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char variable[64], line[128];
        snprintf(variable, sizeof variable, "HAKMEM_PREWARM=%s", cases[i]);
        snprintf(line, sizeof line, "HAKMEM_PREWARM=\"%s\" is out of range 0..16; used: 16", cases[i]);
        READ(variable);
        assert_line(line);
        assert_int_equal(hak_option(PREWARM), 16);
    }
}

static void a_switch_is_0_or_1(void **state) {
    (void)state;
    READ("HAKMEM_LOG=1");
    assert_silent();
    assert_int_equal(hak_option(LOG), 1);
    READ("HAKMEM_LOG=0");
    assert_silent();
    assert_int_equal(hak_option(LOG), 0);
    static const char *const cases[] = {"", "2", "yes", "01", "1 ", "true"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char variable[64], line[128];
        snprintf(variable, sizeof variable, "HAKMEM_LOG=%s", cases[i]);
        snprintf(line, sizeof line, "HAKMEM_LOG=\"%s\" is neither 0 nor 1; used: 0", cases[i]);
        READ(variable);
        assert_line(line);
        assert_int_equal(hak_option(LOG), 0);
    }
}

static void a_text_with_choices_is_one_of_them(void **state) {
    (void)state;
    READ("HAKMEM_STATS=json");
    assert_silent();
    assert_string_equal(hak_options.STATS, "json");
    READ("HAKMEM_STATS=1");
    assert_silent();
    assert_string_equal(hak_options.STATS, "1");
    static const char *const cases[] = {"jso", "jsonx", "son", "1|json", "|", "2", "JSON", "1|"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char variable[64], line[128];
        snprintf(variable, sizeof variable, "HAKMEM_STATS=%s", cases[i]);
        snprintf(line, sizeof line, "HAKMEM_STATS=\"%s\" is not one of 1|json; used: none", cases[i]);
        READ(variable);
        assert_line(line);
        assert_null(hak_options.STATS);
    }
}

static void an_empty_text_or_0_is_none(void **state) {
    (void)state;
    READ("HAKMEM_STATS=0", "HAKMEM_STATS_FILE=");
    assert_silent();
    assert_null(hak_options.STATS);
    assert_null(hak_options.STATS_FILE);
}

static void a_text_is_copied_because_programs_overwrite_their_environment(void **state) {
    (void)state;
    char variable[] = "HAKMEM_STATS_FILE=/some/path=with=signs";
    READ(variable);
    memset(variable, 'x', sizeof variable - 1);
    assert_silent();
    assert_string_equal(hak_options.STATS_FILE, "/some/path=with=signs");
}

static void a_text_of_4095_bytes_is_taken_and_a_longer_one_refused(void **state) {
    (void)state;
    static char variable[5000] = "HAKMEM_STATS_FILE=";
    size_t name = strlen(variable);
    memset(variable + name, 'p', 4095);
    READ(variable);
    assert_silent();
    assert_int_equal(strlen(hak_options.STATS_FILE), 4095);
    assert_string_equal(hak_options.STATS_FILE, variable + name);
    variable[name + 4095] = 'p';
    READ(variable);
    assert_line(
        "HAKMEM_STATS_FILE=\"pppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp...\" is too long; "
        "used: none");
    assert_null(hak_options.STATS_FILE);
}

static void a_value_of_a_megabyte_makes_one_short_line(void **state) {
    (void)state;
    size_t bytes = (size_t)1 << 20;
    char *variable = malloc(bytes);
    assert_non_null(variable);
    memset(variable, '9', bytes);
    memcpy(variable, "HAKMEM_PREWARM=", 15);
    variable[bytes - 1] = '\0';
    READ(variable);
    assert_line(
        "HAKMEM_PREWARM=\"9999999999999999999999999999999999999999999999999999999999999999...\" is out of range "
        "0..16; used: 16");
    memset(variable, 'N', bytes - 3);
    memcpy(variable, "HAKMEM_", 7);
    memcpy(variable + bytes - 3, "=1", 3);
    READ(variable);
    assert_line("HAKMEM_NNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNNN... is not an option and "
                "ignored; HAKMEM_HELP=1 lists those that are");
    free(variable);
}

static void control_characters_are_not_printed(void **state) {
    (void)state;
    READ("HAKMEM_PREWARM=\n\033[31m\x7f\xff\"");
    assert_line("HAKMEM_PREWARM=\"??[31m??\"\" is not a number; used: 4");
    READ("HAKMEM_P\nREWARM=1");
    assert_line("HAKMEM_P?REWARM is not an option and ignored; the nearest one is HAKMEM_PREWARM");
}

/* A program gives itself its name: that must neither push the message out of the line nor make two of it. */
static void a_programs_own_name_is_cut_and_cannot_break_the_line(void **state) {
    (void)state;
    char line[1024], name[600], *own = program_invocation_short_name;
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    program_invocation_short_name = name;
    READ("HAKMEM_PREWARM=x");
    program_invocation_short_name = own;
    snprintf(line, sizeof line, "hakmem[%d %.64s...]: HAKMEM_PREWARM=\"x\" is not a number; used: 4\n", (int)getpid(),
             name);
    assert_string_equal(printed, line);
    program_invocation_short_name = (char *)"a\nb\033[31m\xff]: c";
    READ("HAKMEM_PREWARM=x");
    program_invocation_short_name = own;
    snprintf(line, sizeof line, "hakmem[%d a?b?[31m?]: c]: HAKMEM_PREWARM=\"x\" is not a number; used: 4\n",
             (int)getpid());
    assert_string_equal(printed, line);
}

static void an_unknown_name_is_answered_with_the_nearest_one(void **state) {
    (void)state;
    static const struct {
        const char *name, *nearest;
    } cases[] = {{"LGO", "LOG"},
                 {"OLG", "LOG"},
                 {"LOGS", "LOG"},
                 {"log", "LOG"},
                 {"prewarm", "PREWARM"},
                 {"REWARM", "PREWARM"},
                 {"PREHARM", "PREWARM"},
                 {"STAT", "STATS"},
                 {"STATSFILE", "STATS_FILE"},
                 {"TLS_SLOT_MAX", "TLS_SLOTS_MAX"},
                 {"TLS_SLOT_MIN", "TLS_SLOTS_MIN"},
                 {"STAST_FILE", "STATS_FILE"},
                 {"PURGE_DELAY", "PURGE_DELAY_MS"},
                 {"BIG_CACHE_DECAY", "BIGCACHE_DECAY_MS"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char variable[64], line[128];
        snprintf(variable, sizeof variable, "HAKMEM_%s=1", cases[i].name);
        snprintf(line, sizeof line, "HAKMEM_%s is not an option and ignored; the nearest one is HAKMEM_%s",
                 cases[i].name, cases[i].nearest);
        READ(variable);
        assert_line(line);
        assert_defaults();
    }
}

static void a_name_that_resembles_none_is_not_answered_with_one(void **state) {
    (void)state;
    static const char *const cases[] = {"",     "X",     "FOO",     "DEBUG",     "VERBOSE", "ARENAS", "MAX",    "TLS",
                                        "HOME", "CACHE", "BACKEND", "TLS_CACHE", "LIBRARY", "TRACE",  "PRELOAD"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char variable[64], line[128];
        snprintf(variable, sizeof variable, "HAKMEM_%s=1", cases[i]);
        snprintf(line, sizeof line, "HAKMEM_%s is not an option and ignored; HAKMEM_HELP=1 lists those that are",
                 cases[i]);
        READ(variable);
        assert_line(line);
    }
}

static void a_default_gives_way_to_what_is_set_in_silence(void **state) {
    (void)state;
    READ("HAKMEM_L25_SHARDS_MAX=8");
    assert_silent();
    assert_int_equal(hak_option(L25_SHARDS_MIN), 8);
    assert_int_equal(hak_option(L25_SHARDS_MAX), 8);
    READ("HAKMEM_TLS_SLOTS_MAX=1");
    assert_silent();
    assert_int_equal(hak_option(TLS_SLOTS_MIN), 1);
    assert_int_equal(hak_option(TLS_SLOTS_MAX), 1);
}

static void a_smallest_size_over_the_largest_gives_way(void **state) {
    (void)state;
    READ("HAKMEM_TLS_SLOTS_MIN=100", "HAKMEM_TLS_SLOTS_MAX=50");
    assert_line("HAKMEM_TLS_SLOTS_MIN is over HAKMEM_TLS_SLOTS_MAX; used for both: 50");
    assert_int_equal(hak_option(TLS_SLOTS_MIN), 50);
    assert_int_equal(hak_option(TLS_SLOTS_MAX), 50);
    READ("HAKMEM_L25_SHARDS_MAX=8", "HAKMEM_L25_SHARDS_MIN=9");
    assert_line("HAKMEM_L25_SHARDS_MIN is over HAKMEM_L25_SHARDS_MAX; used for both: 8");
    assert_int_equal(hak_option(L25_SHARDS_MIN), 8);
}

static void what_must_be_a_power_of_two_is_rounded_down_to_one(void **state) {
    (void)state;
    READ("HAKMEM_L25_SHARDS_MIN=100");
    assert_line("HAKMEM_L25_SHARDS_MIN is no power of two; used: 64");
    assert_int_equal(hak_option(L25_SHARDS_MIN), 64);
    READ("HAKMEM_L25_SHARDS_MAX=1000");
    assert_line("HAKMEM_L25_SHARDS_MAX is no power of two; used: 512");
    assert_int_equal(hak_option(L25_SHARDS_MAX), 512);
    READ("HAKMEM_BIGCACHE_BUCKETS_MAX=300");
    assert_line("HAKMEM_BIGCACHE_BUCKETS_MAX is no power of two; used: 256");
    assert_int_equal(hak_option(BIGCACHE_BUCKETS_MAX), 256);
    READ("HAKMEM_L25_SHARDS_MIN=128", "HAKMEM_BIGCACHE_BUCKETS_MAX=1024");
    assert_silent();
}

static void each_option_is_read_into_its_own_field(void **state) {
    (void)state;
#define TRY_BOOL(name, min, max) READ("HAKMEM_" #name "=1"), assert_int_equal(hak_option(name), 1)
#define TRY_NUMBER(name, min, max) READ("HAKMEM_" #name "=" #max), assert_int_equal(hak_option(name), max)
#define TRY_TEXT(name, min, max) READ("HAKMEM_" #name "=1"), assert_string_equal(hak_options.name, "1")
#define HAK_OPTION(name, type, def, min, max, unit, help) TRY_##type(name, min, max);
#include "base/options.def"
#undef HAK_OPTION
}

/* ---- the table ---------------------------------------------------------------------------------------------- */

static void the_table_has_a_line_per_option_and_aligned_columns(void **state) {
    (void)state;
    char head[300], *rest = NULL;
    size_t lines = 0, head_bytes = (size_t)snprintf(head, sizeof head, "hakmem[%d %s]: ", (int)getpid(),
                                                    program_invocation_short_name);
    READ("HAKMEM_HELP=1", "HAKMEM_STATS_FILE=/a/path/that/is/wider/than/other/values", "HAKMEM_PREWARM=9");
    static const char *const expected[] = {
        "NAME TYPE UNIT DEFAULT VALUE MEANING",
#define SHOW_BOOL(def) #def " " #def
#define SHOW_NUMBER(def) #def " " #def
#define SHOW_TEXT(def) "- -"
#define HAK_OPTION(name, type, def, min, max, unit, help)                                                              \
    "HAKMEM_" #name "|" #type "|" unit "|" SHOW_##type(def) "|" help,
#include "base/options.def"
#undef HAK_OPTION
    };
    size_t meaning = 0;
    for (char *line = strtok_r(printed, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), lines++) {
        assert_memory_equal(line, head, head_bytes);
        assert_in_range(lines, 0, sizeof expected / sizeof expected[0] - 1);
        const char *text = lines == 0 ? "MEANING" : strrchr(expected[lines], '|') + 1;
        const char *at = strstr(line, text);
        assert_non_null(at);
        assert_string_equal(at, text); /* the last column */
        if (lines == 0) meaning = (size_t)(at - line);
        assert_int_equal(at - line, meaning);
        size_t name_bytes = strcspn(expected[lines], "| ");
        assert_memory_equal(line + head_bytes, expected[lines], name_bytes);
        assert_int_equal(line[head_bytes + name_bytes], ' ');
    }
    assert_int_equal(lines, sizeof expected / sizeof expected[0]);
}

static void the_table_shows_type_unit_default_and_value(void **state) {
    (void)state;
    READ("HAKMEM_HELP=1", "HAKMEM_STATS=json", "HAKMEM_PREWARM=9", "HAKMEM_RETAIN_BYTES=1G");
    static const char *const rows[] = {
        "HAKMEM_HELP                  bool    -           0           1           print this table",
        "HAKMEM_STATS                 text    1|json      -           json        print statistics",
        "HAKMEM_STATS_FILE            text    path        -           -           append the",
        "HAKMEM_PREWARM               number  classes     4           9           smallest size",
        "HAKMEM_RETAIN_BYTES          number  bytes       524288      1073741824  free dirty",
        "HAKMEM_BIGCACHE_BUCKETS_MAX  number  buckets     65536       65536       the BigCache",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!strstr(printed, rows[i])) fail_msg("no \"%s\" in\n%s", rows[i], printed);
    }
}

static void a_set_user_id_program_reads_nothing(void **state) {
    (void)state;
    secure = true;
    READ("HAKMEM_HELP=1", "HAKMEM_PREWARM=9", "HAKMEM_STATS_FILE=/etc/shadow", "HAKMEM_NONSENSE=1", "HAKMEM_LOG=x");
    secure = false;
    assert_silent();
    assert_defaults();
}

/* ---- whatever the environment is ------------------------------------------------------------------------------ */

static uint64_t next_random(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

/* A known name or part of one, changed here and there, and a value out of pieces that a parser could stumble over. */
static void make_variable(char *out, uint64_t *seed) {
    static const char *const names[] = {
#define HAK_OPTION(name, type, def, min, max, unit, help) #name,
#include "base/options.def"
#undef HAK_OPTION
        "", "=", "A_VERY_LONG_NAME_THAT_NO_OPTION_WILL_EVER_HAVE_AND_MORE"};
    static const char *const pieces[] = {"0", "1",          "0x", "K",    "M",    "G", "json", "|",
                                         "-", "9999999999", "\n", "\xff", "%s%n", "",  "f",    "="};
    size_t used = (size_t)sprintf(out, "HAKMEM_%s", names[next_random(seed) % (sizeof names / sizeof names[0])]);
    if (next_random(seed) % 4 == 0) out[next_random(seed) % used] = (char)(1 + next_random(seed) % 255);
    if (next_random(seed) % 8 != 0) out[used++] = '=';
    for (uint64_t n = next_random(seed) % 6; n > 0; n--) {
        const char *piece = pieces[next_random(seed) % (sizeof pieces / sizeof pieces[0])];
        used += (size_t)sprintf(out + used, "%s", piece);
    }
    out[used] = '\0';
}

static void assert_in_bounds(void) {
#define BOUND_BOOL(name, min, max) assert_in_range(hak_option(name), min, max)
#define BOUND_NUMBER(name, min, max) assert_in_range(hak_option(name), min, max)
#define BOUND_TEXT(name, min, max) assert_true(hak_options.name == NULL || strlen(hak_options.name) > 0)
#define HAK_OPTION(name, type, def, min, max, unit, help) BOUND_##type(name, min, max);
#include "base/options.def"
#undef HAK_OPTION
    assert_true(hak_option(TLS_SLOTS_MIN) <= hak_option(TLS_SLOTS_MAX));
    assert_true(hak_option(L25_SHARDS_MIN) <= hak_option(L25_SHARDS_MAX));
}

static void no_environment_leads_out_of_range_or_prints_anything_but_lines(void **state) {
    (void)state;
    enum { VARIABLES = 6, ROUNDS = 5000 };
    char head[300];
    int head_bytes = snprintf(head, sizeof head, "hakmem[%d %s]: ", (int)getpid(), program_invocation_short_name);
    uint64_t seed = 1;
    for (int round = 0; round < ROUNDS; round++) {
        char text[VARIABLES][256], *env[VARIABLES + 1] = {NULL};
        for (int i = 0; i < VARIABLES; i++) {
            make_variable(text[i], &seed);
            env[i] = text[i];
        }
        read_env(env);
        assert_in_bounds();
        for (char *line = printed; *line; line = strchr(line, '\n') + 1) {
            assert_memory_equal(line, head, (size_t)head_bytes);
            assert_non_null(strchr(line, '\n'));
            for (char *c = line; *c != '\n'; c++) assert_in_range((unsigned char)*c, ' ', '~');
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_environment_without_options_gives_the_defaults_in_silence),
        cmocka_unit_test(no_environment_yet_is_no_reading),
        cmocka_unit_test(only_the_first_environment_counts),
        cmocka_unit_test(of_a_name_that_occurs_twice_the_first_counts),
        cmocka_unit_test(numbers_are_decimal_or_hexadecimal_with_a_suffix),
        cmocka_unit_test(what_is_no_number_is_named_and_the_default_used),
        cmocka_unit_test(a_number_out_of_range_is_clamped_and_the_value_used_is_named),
        cmocka_unit_test(a_number_below_zero_is_out_of_range_and_the_smallest_used),
        cmocka_unit_test(a_number_that_64_bits_cannot_hold_is_the_largest),
        cmocka_unit_test(a_switch_is_0_or_1),
        cmocka_unit_test(a_text_with_choices_is_one_of_them),
        cmocka_unit_test(an_empty_text_or_0_is_none),
        cmocka_unit_test(a_text_is_copied_because_programs_overwrite_their_environment),
        cmocka_unit_test(a_text_of_4095_bytes_is_taken_and_a_longer_one_refused),
        cmocka_unit_test(a_value_of_a_megabyte_makes_one_short_line),
        cmocka_unit_test(control_characters_are_not_printed),
        cmocka_unit_test(a_programs_own_name_is_cut_and_cannot_break_the_line),
        cmocka_unit_test(an_unknown_name_is_answered_with_the_nearest_one),
        cmocka_unit_test(a_name_that_resembles_none_is_not_answered_with_one),
        cmocka_unit_test(a_default_gives_way_to_what_is_set_in_silence),
        cmocka_unit_test(a_smallest_size_over_the_largest_gives_way),
        cmocka_unit_test(what_must_be_a_power_of_two_is_rounded_down_to_one),
        cmocka_unit_test(each_option_is_read_into_its_own_field),
        cmocka_unit_test(the_table_has_a_line_per_option_and_aligned_columns),
        cmocka_unit_test(the_table_shows_type_unit_default_and_value),
        cmocka_unit_test(a_set_user_id_program_reads_nothing),
        cmocka_unit_test(no_environment_leads_out_of_range_or_prints_anything_but_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
