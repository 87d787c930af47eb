/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* Blocks that the C library allocates for its caller come from hakmem, and freeing them is no misuse. */
#include "support/api_child.h"

#include <dirent.h>
#include <fnmatch.h>
#include <glob.h>
#include <locale.h>
#include <netdb.h>
#include <regex.h>
#include <search.h>
#include <wchar.h>
#include <wordexp.h>

/* Ours, and free() takes it. */
static void take(void *block) {
    api_child_check(block != NULL);
    api_child_check(!hak.version || hak.is_owned(block));
    api.free(block);
}

static void strings(void *unused) {
    (void)unused;
    char *text = NULL;
    take(strdup("duplicated"));
    take(strndup("duplicated", 5));
    take(wcsdup(L"wide"));
    api_child_check(asprintf(&text, "%d %s %5000d", 42, "printed", 7) == 5011);
    take(text);
    take(getcwd(NULL, 0));
    take(realpath("/proc/self/../self/exe", NULL));
    take(canonicalize_file_name("/tmp/."));
}

static void line_readers(void *unused) {
    (void)unused;
    char *line = NULL;
    size_t room = 0;
    FILE *file = tmpfile();
    api_child_check(file != NULL);
    for (int i = 0; i < 3000; i++) {
        fprintf(file, "%0*d\n", i, i);
    }
    rewind(file);
    for (int i = 0; i < 3000; i++) {
        api_child_check(getline(&line, &room, file) == (i ? i : 1) + 1);
        api_child_check(!hak.version || api.malloc_usable_size(line) >= room);
    }
    take(line);
    line = NULL;
    rewind(file);
    api_child_check(getdelim(&line, &room, '9', file) > 0);
    take(line);
    fclose(file);
}

static void memory_streams(void *unused) {
    (void)unused;
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    api_child_check(stream != NULL);
    for (int i = 0; i < 50000; i++) {
        fprintf(stream, "%d,", i);
    }
    fclose(stream);
    api_child_check(length == 288890 && text[length] == '\0' && strncmp(text, "0,1,2,", 6) == 0);
    take(text);
    wchar_t *wide = NULL;
    stream = open_wmemstream(&wide, &length);
    api_child_check(stream != NULL && fputws(L"wide text", stream) >= 0);
    fclose(stream);
    api_child_check(length == 9);
    take(wide);
    text = NULL;
    api_child_check((stream = fmemopen(NULL, 10000, "w+")) != NULL);
    api_child_check(fputs("in memory", stream) >= 0);
    fclose(stream);
    FILE *file = fopen("/proc/self/maps", "r");
    api_child_check(file != NULL && setvbuf(file, NULL, _IOFBF, 1 << 20) == 0 && getc(file) != EOF);
    fclose(file);
}

static void addresses(void *unused) {
    (void)unused;
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    api_child_check(getaddrinfo("127.0.0.1", "80", &hints, &found) == 0);
    api_child_check(!hak.version || hak.is_owned(found));
    freeaddrinfo(found);
    found = NULL;
    api_child_check(getaddrinfo("localhost", "80", NULL, &found) == 0);
    api_child_check(!hak.version || hak.is_owned(found));
    freeaddrinfo(found);
}

static void directories_and_patterns(void *unused) {
    (void)unused;
    struct dirent **entries = NULL;
    int count = scandir("/proc/self", &entries, NULL, alphasort);
    api_child_check(count > 20);
    for (int i = 0; i < count; i++) {
        take(entries[i]);
    }
    take(entries);
    glob_t paths;
    api_child_check(glob("/proc/self/*", 0, NULL, &paths) == 0 && paths.gl_pathc > 20);
    globfree(&paths);
    wordexp_t words;
    api_child_check(wordexp("one $HOME \"three four\"", &words, WRDE_NOCMD) == 0 && words.we_wordc >= 2);
    wordfree(&words);
    regex_t expression;
    api_child_check(regcomp(&expression, "^(a|b)*[[:digit:]]{1,20}(c+|d?)*$", REG_EXTENDED) == 0);
    api_child_check(regexec(&expression, "ababab12345cccd", 0, NULL, 0) == 0);
    regfree(&expression);
}

static int compare_ints(const void *a, const void *b) {
    return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

static void keep(void *unused) { (void)unused; }

static void tables(void *unused) {
    (void)unused;
    static int numbers[300000];
    void *root = NULL;
    for (int i = 0; i < 300000; i++) {
        numbers[i] = (int)((unsigned)i * 7919u % 300000u);
    }
    for (int i = 0; i < 1000; i++) {
        api_child_check(tsearch(&numbers[i], &root, compare_ints) != NULL);
    }
    tdestroy(root, keep);
    qsort(numbers, 300000, sizeof numbers[0], compare_ints); /* takes a scratch area */
    api_child_check(numbers[0] == 0 && numbers[299999] == 299999);
    api_child_check(hcreate(1000) != 0);
    ENTRY entry = {(char *)(uintptr_t) "key", NULL};
    api_child_check(hsearch(entry, ENTER) != NULL);
    hdestroy();
}

static void environment_and_locale(void *unused) {
    (void)unused;
    char name[32];
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "HAKTEST_%d", i);
        api_child_check(setenv(name, "some value", 1) == 0);
    }
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "HAKTEST_%d", i);
        api_child_check(unsetenv(name) == 0);
    }
    api_child_check(clearenv() == 0);
    api_child_check(setlocale(LC_ALL, "C.UTF-8") != NULL);
    locale_t locale = newlocale(LC_ALL_MASK, "C.UTF-8", NULL);
    api_child_check(locale != NULL);
    freelocale(locale);
}

static void programs(void *unused) {
    (void)unused;
    FILE *pipe_end = popen("echo from a program", "r");
    char *line = NULL;
    size_t room = 0;
    api_child_check(pipe_end && getline(&line, &room, pipe_end) == 15);
    take(line);
    api_child_check(pclose(pipe_end) == 0);
    void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
    api_child_check(library && dlsym(library, "cos") && !dlsym(library, "no such function") && dlerror());
    api_child_check(dlclose(library) == 0);
}

#define BLOCKS_TEST(body)                                                                                              \
    static void blocks_of_##body##_are_ours(void **state) {                                                            \
        (void)state;                                                                                                   \
        api_child_succeeds(body, NULL, #body);                                                                         \
    }

BLOCKS_TEST(strings)
BLOCKS_TEST(line_readers)
BLOCKS_TEST(memory_streams)
BLOCKS_TEST(addresses)
BLOCKS_TEST(directories_and_patterns)
BLOCKS_TEST(tables)
BLOCKS_TEST(environment_and_locale)
BLOCKS_TEST(programs)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_strings_are_ours),
        cmocka_unit_test(blocks_of_line_readers_are_ours),
        cmocka_unit_test(blocks_of_memory_streams_are_ours),
        cmocka_unit_test(blocks_of_addresses_are_ours),
        cmocka_unit_test(blocks_of_directories_and_patterns_are_ours),
        cmocka_unit_test(blocks_of_tables_are_ours),
        cmocka_unit_test(blocks_of_environment_and_locale_are_ours),
        cmocka_unit_test(blocks_of_programs_are_ours),
    };
    api_start();
    return cmocka_run_group_tests_name("libc blocks", tests, NULL, NULL);
}
