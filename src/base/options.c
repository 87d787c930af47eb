/* The options: one table made from options.def, the parser of the environment, and the printed table.
 *
 * The values are untrusted text of any length. They are read before the C library is fully up: no stdio, no locale,
 * no allocation; what is printed of them is cut and holds no control characters. Texts are copied, because programs
 * overwrite their environment (to set a process title, for instance). */
#include "base/options.h"

#include "base/log.h"
#include "base/sys.h"

#define STDERR 2
#define PREFIX "HAKMEM_"
#define PREFIX_BYTES (sizeof PREFIX - 1)
#define TEXT_MAX_BYTES ((size_t)4096) /* of a TEXT value, with its NUL: a path */

enum type { BOOL, NUMBER, TEXT };

#define START_BOOL(def) def
#define START_NUMBER(def) def
#define START_TEXT(def) NULL
struct hak_options hak_options = {
#define HAK_OPTION(name, type, def, min, max, unit, help) .name = START_##type(def),
#include "base/options.def"
#undef HAK_OPTION
};

/* Room for the texts; a row of a number has none. Written by hak_options_init() only. */
#define ROOM_BOOL 1
#define ROOM_NUMBER 1
#define ROOM_TEXT TEXT_MAX_BYTES
static struct {
#define HAK_OPTION(name, type, def, min, max, unit, help) char name[ROOM_##type];
#include "base/options.def"
#undef HAK_OPTION
} texts;

struct row {
    const char *name;
    enum type type;
    uint64_t def, min, max;
    const char *unit; /* of a TEXT with `|` in it: the values it may have */
    const char *help;
    _Atomic uint64_t *number;
    const char **text;
    char *room;
};

#define NUMBER_BOOL(name) &hak_options.name
#define NUMBER_NUMBER(name) &hak_options.name
#define NUMBER_TEXT(name) NULL
#define TEXT_BOOL(name) NULL
#define TEXT_NUMBER(name) NULL
#define TEXT_TEXT(name) &hak_options.name
static const struct row rows[] = {
#define HAK_OPTION(name, type, def, min, max, unit, help)                                                              \
    {#name, type, def, min, max, unit, help, NUMBER_##type(name), TEXT_##type(name), texts.name},
#include "base/options.def"
#undef HAK_OPTION
};
#define ROWS (sizeof rows / sizeof rows[0])
static_assert(ROWS <= 64, "one bit per option in the mask of those that were seen");

/* A piece of text that need not end with NUL. */
struct piece {
    const char *at;
    size_t bytes;
};

static size_t length_of(const char *s) {
    size_t n = 0;
    while (s[n] != '\0') n++;
    return n;
}

static struct piece piece_of(const char *s) { return (struct piece){s, length_of(s)}; }

static bool same(struct piece a, struct piece b) {
    if (a.bytes != b.bytes) return false;
    for (size_t i = 0; i < a.bytes; i++) {
        if (a.at[i] != b.at[i]) return false;
    }
    return true;
}

/* ---- messages ------------------------------------------------------------------------------------------- */

static void show(struct hak_text *line, struct piece piece) { hak_text_shown(line, piece.at, piece.bytes); }

/* "HAKMEM_NAME="VALUE" PROBLEM", without an end. */
static void start_complaint(struct hak_text *line, const struct row *row, struct piece value, const char *problem) {
    hak_text_head(line);
    hak_text_str(line, PREFIX);
    hak_text_str(line, row->name);
    hak_text_str(line, "=\"");
    show(line, value);
    hak_text_str(line, "\" ");
    hak_text_str(line, problem);
}

static void end_complaint(struct hak_text *line, const struct row *row) {
    hak_text_str(line, "; used: ");
    if (row->type != TEXT) hak_text_u64(line, hak_load_rlx(row->number));
    else hak_text_str(line, "none");
    hak_text_line(line, STDERR);
}

static HAK_COLD void complain(const struct row *row, struct piece value, const char *problem) {
    struct hak_text line = {.used = 0};
    start_complaint(&line, row, value, problem);
    end_complaint(&line, row);
}

static HAK_COLD void complain_of_range(const struct row *row, struct piece value) {
    struct hak_text line = {.used = 0};
    start_complaint(&line, row, value, "is out of range ");
    hak_text_u64(&line, row->min);
    hak_text_str(&line, "..");
    hak_text_u64(&line, row->max);
    end_complaint(&line, row);
}

/* ---- values --------------------------------------------------------------------------------------------- */

static unsigned digit_of(char c) {
    if (c >= '0' && c <= '9') return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'f') return (unsigned)(c - 'a') + 10;
    if (c >= 'A' && c <= 'F') return (unsigned)(c - 'A') + 10;
    return 16;
}

static unsigned suffix_shift(char c) {
    switch (c) {
    case 'k':
    case 'K':
        return 10;
    case 'm':
    case 'M':
        return 20;
    case 'g':
    case 'G':
        return 30;
    default:
        return 0;
    }
}

/* Decimal or 0x, then K, M or G or nothing. What 64 bits cannot hold becomes UINT64_MAX. False: no such number. */
static bool parse_number(struct piece text, uint64_t *value) {
    bool hex = text.bytes > 2 && text.at[0] == '0' && (text.at[1] == 'x' || text.at[1] == 'X');
    unsigned base = hex ? 16 : 10;
    size_t i = hex ? 2 : 0, first = i;
    *value = 0;
    for (; i < text.bytes && digit_of(text.at[i]) < base; i++) {
        if (__builtin_mul_overflow(*value, base, value) || __builtin_add_overflow(*value, digit_of(text.at[i]), value))
            *value = UINT64_MAX; /* stays there: times the base overflows again */
    }
    if (i == first) return false;
    unsigned shift = i < text.bytes ? suffix_shift(text.at[i]) : 0;
    if (shift != 0) i++;
    if (__builtin_mul_overflow(*value, UINT64_C(1) << shift, value)) *value = UINT64_MAX;
    return i == text.bytes;
}

static void set_number(const struct row *row, struct piece text) {
    uint64_t value = 0;
    bool minus = text.bytes > 0 && text.at[0] == '-';
    if (!parse_number((struct piece){text.at + minus, text.bytes - minus}, &value)) {
        complain(row, text, "is not a number");
        return;
    }
    bool below = minus && value != 0; /* what is under zero is under every smallest value */
    uint64_t used = below || value < row->min ? row->min : value > row->max ? row->max : value;
    hak_store_rlx(row->number, used);
    if (below || used != value) complain_of_range(row, text);
}

static void set_bool(const struct row *row, struct piece text) {
    if (text.bytes == 1 && (text.at[0] == '0' || text.at[0] == '1')) {
        hak_store_rlx(row->number, (uint64_t)(text.at[0] - '0'));
    } else {
        complain(row, text, "is neither 0 nor 1");
    }
}

/* Whether a row of choices "a|b" has `text` among them; a row without `|` takes any text. */
static bool is_choice(const struct row *row, struct piece text) {
    struct piece choice = {row->unit, 0};
    bool choices = false;
    for (const char *c = row->unit;; c++) {
        if (*c != '|' && *c != '\0') continue;
        choice.bytes = (size_t)(c - choice.at);
        if (same(choice, text)) return true;
        if (*c == '\0') return !choices;
        choices = true;
        choice.at = c + 1;
    }
}

/* An empty text and 0 mean: not set. */
static void set_text(const struct row *row, struct piece text) {
    if (text.bytes == 0 || (text.bytes == 1 && text.at[0] == '0')) return;
    if (!is_choice(row, text)) {
        struct hak_text line = {.used = 0};
        start_complaint(&line, row, text, "is not one of ");
        hak_text_str(&line, row->unit);
        end_complaint(&line, row);
    } else if (text.bytes >= TEXT_MAX_BYTES) {
        complain(row, text, "is too long");
    } else {
        for (size_t i = 0; i < text.bytes; i++) row->room[i] = text.at[i];
        row->room[text.bytes] = '\0';
        *row->text = row->room;
    }
}

static void set(const struct row *row, struct piece value) {
    switch (row->type) {
    case BOOL:
        set_bool(row, value);
        break;
    case NUMBER:
        set_number(row, value);
        break;
    case TEXT:
        set_text(row, value);
        break;
    }
}

/* ---- names ---------------------------------------------------------------------------------------------- */

#define COMPARED_BYTES ((size_t)40) /* of an unknown name; longer ones are far from every known one */

static unsigned smaller(unsigned a, unsigned b) { return a < b ? a : b; }

static char upper(char c) { return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c; }

static bool same_letter(char a, char b) { return upper(a) == upper(b); }

/* Letters to insert, drop, replace or swap with their neighbour to make `a` into `b`, whatever their case; `b` has at
 * most COMPARED_BYTES. The three rows are those of the table for the last three letters of `a`. */
static unsigned distance(struct piece a, struct piece b) {
    uint8_t room[3][COMPARED_BYTES + 1];
    for (size_t j = 0; j <= b.bytes; j++) room[0][j] = (uint8_t)j;
    for (size_t i = 1; i <= a.bytes; i++) {
        uint8_t *row = room[i % 3];
        const uint8_t *last = room[(i + 2) % 3], *before = room[(i + 1) % 3];
        row[0] = (uint8_t)i;
        for (size_t j = 1; j <= b.bytes; j++) {
            bool differ = !same_letter(a.at[i - 1], b.at[j - 1]);
            unsigned least = smaller(smaller(last[j], row[j - 1]) + 1, last[j - 1] + differ);
            bool swapped = i > 1 && j > 1 && same_letter(a.at[i - 1], b.at[j - 2]) &&
                           same_letter(a.at[i - 2], b.at[j - 1]);
            if (swapped) least = smaller(least, before[j - 2] + 1);
            row[j] = (uint8_t)least;
        }
    }
    return room[a.bytes % 3][b.bytes];
}

/* The option that `name` may have been meant for, or NULL: at most a third of its letters are wrong. */
static const struct row *nearest(struct piece name) {
    const struct row *best = NULL;
    if (name.bytes > COMPARED_BYTES) return NULL;
    unsigned best_distance = (unsigned)name.bytes / 3 + 1;
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        unsigned d = distance(piece_of(row->name), name);
        if (d >= best_distance) continue;
        best_distance = d;
        best = row;
    }
    return best;
}

static HAK_COLD void complain_of_name(struct piece name) {
    struct hak_text line = {.used = 0};
    hak_text_head(&line);
    hak_text_str(&line, PREFIX);
    show(&line, name);
    hak_text_str(&line, " is not an option and ignored; ");
    const struct row *near = nearest(name);
    hak_text_str(&line, near != NULL ? "the nearest one is " PREFIX : PREFIX "HELP=1 lists those that are");
    if (near != NULL) hak_text_str(&line, near->name);
    hak_text_line(&line, STDERR);
}

/* ---- the environment ------------------------------------------------------------------------------------ */

/* Whether the environment had the option whose value is at `number`. */
static bool was_seen(const _Atomic uint64_t *number, uint64_t seen) {
    size_t i = 0;
    while (rows[i].number != number) i++;
    return (seen >> i & 1) != 0;
}

/* The part behind "HAKMEM_", or NULL for any other variable. */
static const char *behind_prefix(const char *variable) {
    for (size_t i = 0; i < PREFIX_BYTES; i++) {
        if (variable[i] != PREFIX[i]) return NULL;
    }
    return variable + PREFIX_BYTES;
}

/* Of a name that occurs twice the first counts, as with getenv(). */
static void read_variable(const char *text, uint64_t *seen) {
    struct piece name = {text, 0};
    while (text[name.bytes] != '=' && text[name.bytes] != '\0') name.bytes++;
    if (text[name.bytes] == '\0') return; /* no variable at all */
    for (size_t i = 0; i < ROWS; i++) {
        if (!same(name, piece_of(rows[i].name))) continue;
        if ((*seen >> i & 1) == 0) set(&rows[i], piece_of(text + name.bytes + 1));
        *seen |= UINT64_C(1) << i;
        return;
    }
    complain_of_name(name);
}

/* A smallest value over its largest one: the largest counts. A smallest value that is only the default gives way in
 * silence: nobody asked for it. */
static void order(_Atomic uint64_t *min, const char *min_name, const _Atomic uint64_t *max, const char *max_name,
                  uint64_t seen) {
    if (hak_load_rlx(min) <= hak_load_rlx(max)) return;
    hak_store_rlx(min, hak_load_rlx(max));
    if (!was_seen(min, seen)) return;
    struct hak_text line = {.used = 0};
    hak_text_head(&line);
    hak_text_str(&line, min_name);
    hak_text_str(&line, " is over ");
    hak_text_str(&line, max_name);
    hak_text_str(&line, "; used for both: ");
    hak_text_u64(&line, hak_load_rlx(max));
    hak_text_line(&line, STDERR);
}

/* Tables that double have a power of two of entries. */
static void round_to_power_of_two(_Atomic uint64_t *number, const char *name, uint64_t seen) {
    const uint64_t value = hak_load_rlx(number), rounded = hak_pow2_floor(value);
    if (rounded == value) return;
    hak_store_rlx(number, rounded);
    if (!was_seen(number, seen)) return;
    struct hak_text line = {.used = 0};
    hak_text_head(&line);
    hak_text_str(&line, name);
    hak_text_str(&line, " is no power of two; used: ");
    hak_text_u64(&line, rounded);
    hak_text_line(&line, STDERR);
}

/* ---- the printed table ---------------------------------------------------------------------------------- */

enum column { COLUMN_NAME, COLUMN_TYPE, COLUMN_UNIT, COLUMN_DEFAULT, COLUMN_VALUE, COLUMN_MEANING, COLUMNS };

static void number_cell(struct hak_text *cell, const struct row *row, uint64_t value) {
    if (row->type != TEXT) hak_text_u64(cell, value);
    else hak_text_str(cell, "-");
}

/* Appends the text of a cell; row NULL is the head. */
static void put_cell(struct hak_text *line, const struct row *row, enum column column) {
    static const char *const heads[COLUMNS] = {"NAME", "TYPE", "UNIT", "DEFAULT", "VALUE", "MEANING"};
    static const char *const types[] = {"bool", "number", "text"};
    if (row == NULL) {
        hak_text_str(line, heads[column]);
        return;
    }
    switch (column) {
    case COLUMN_NAME:
        hak_text_str(line, PREFIX), hak_text_str(line, row->name);
        break;
    case COLUMN_TYPE:
        hak_text_str(line, types[row->type]);
        break;
    case COLUMN_UNIT:
        hak_text_str(line, *row->unit != '\0' ? row->unit : "-");
        break;
    case COLUMN_DEFAULT:
        number_cell(line, row, row->def);
        break;
    case COLUMN_VALUE:
        if (row->type != TEXT) hak_text_u64(line, hak_load_rlx(row->number));
        else show(line, piece_of(*row->text != NULL ? *row->text : "-"));
        break;
    case COLUMN_MEANING:
    case COLUMNS:
        hak_text_str(line, row->help);
        break;
    }
}

static void widen(size_t widths[COLUMNS], const struct row *row) {
    for (int c = 0; c < COLUMNS; c++) {
        struct hak_text cell = {.used = 0};
        put_cell(&cell, row, (enum column)c);
        if (cell.used > widths[c]) widths[c] = cell.used;
    }
}

static void print_row(const size_t widths[COLUMNS], const struct row *row) {
    struct hak_text line = {.used = 0};
    hak_text_head(&line);
    for (int c = 0; c < COLUMNS; c++) {
        size_t end = line.used + widths[c] + 2;
        put_cell(&line, row, (enum column)c);
        while (c != COLUMN_MEANING && line.used < end && line.used < HAK_TEXT_BYTES - 1) hak_text_str(&line, " ");
    }
    hak_text_line(&line, STDERR);
}

static HAK_COLD void print_table(void) {
    size_t widths[COLUMNS] = {0};
    widen(widths, NULL);
    for (size_t i = 0; i < ROWS; i++) widen(widths, &rows[i]);
    print_row(widths, NULL);
    for (size_t i = 0; i < ROWS; i++) print_row(widths, &rows[i]);
}

static _Atomic uint32_t been_read; /* by the one thread that finds it 0 */

void hak_options_init(char **env) {
    uint64_t seen = 0;
    if (env == NULL || hak_sys_is_secure()) return;
    if (hak_xchg_acqrel(&been_read, 1) != 0) return; /* pairs with itself: the first caller reads, no other does */
    for (; *env != NULL; env++) {
        const char *text = behind_prefix(*env);
        if (text != NULL) read_variable(text, &seen);
    }
    order(&hak_options.TLS_SLOTS_MIN, PREFIX "TLS_SLOTS_MIN", &hak_options.TLS_SLOTS_MAX, PREFIX "TLS_SLOTS_MAX", seen);
    order(&hak_options.L25_SHARDS_MIN, PREFIX "L25_SHARDS_MIN", &hak_options.L25_SHARDS_MAX, PREFIX "L25_SHARDS_MAX",
          seen);
    round_to_power_of_two(&hak_options.L25_SHARDS_MIN, PREFIX "L25_SHARDS_MIN", seen);
    round_to_power_of_two(&hak_options.L25_SHARDS_MAX, PREFIX "L25_SHARDS_MAX", seen);
    round_to_power_of_two(&hak_options.BIGCACHE_BUCKETS_MAX, PREFIX "BIGCACHE_BUCKETS_MAX", seen);
    if (hak_option(HELP)) print_table();
}

void hak_options_reset_for_test(void) {
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        if (row->type == TEXT) *row->text = NULL;
        else hak_store_rlx(row->number, row->def);
    }
    hak_store_rlx(&been_read, 0);
}
