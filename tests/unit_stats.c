/* The statistics: what the figures are, and in how many writes and which form they come out. */
#include "api/stats.h"
#include "base/options.h"
#include "front/heap.h"
#include "hakmem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static struct hak_stats stats_now(void) {
    struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof stats};
    assert_int_equal(hak_stats_get(&stats), 0);
    return stats;
}

/* ---- what is printed, write by write ------------------------------------------------------------------------ */

struct written {
    int writes;
    char text[32768];
};

/* A socket that keeps the bounds of writes: ends[0] to read, ends[1] to write. */
static void open_record(int ends[2]) {
    int room = 1 << 20;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    assert_int_equal(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
}

static void close_record(int ends[2], struct written *out) {
    size_t used = 0;
    close(ends[1]);
    for (out->writes = 0;; out->writes++) {
        ssize_t n = read(ends[0], out->text + used, sizeof out->text - 1 - used);
        assert_true(n >= 0);
        if (n == 0) break;
        used += (size_t)n;
    }
    out->text[used] = '\0';
    close(ends[0]);
}

static void print_stats(enum hak_format format, struct written *out) {
    int ends[2];
    open_record(ends);
    assert_int_equal(hak_stats_print(ends[1], format), 0);
    close_record(ends, out);
}

/* Written out by hand: the form that other programs rely on. */
static void expected_json(char *out, size_t room, const struct hak_stats *s, const char *program) {
    static const char *const layers[] = {"tiny", "mid", "l25", "big"};
    size_t used = (size_t)snprintf(out, room, "{\"version\":1,\"pid\":%d,\"program\":\"%s\",\"layers\":{",
                                   (int)getpid(), program);
    for (int i = 0; i < HAK_LAYER_COUNT; i++) {
        const struct hak_layer_stats *l = &s->layer[i];
        used += (size_t)snprintf(
            out + used, room - used,
            "%s\"%s\":{\"live_bytes\":%llu,\"live_blocks\":%llu,\"cached_bytes\":%llu,\"mapped_bytes\":%llu,"
            "\"served_bytes\":%llu,\"served_blocks\":%llu,\"purged_bytes\":%llu}",
            i ? "," : "", layers[i], (unsigned long long)l->live_bytes, (unsigned long long)l->live_blocks,
            (unsigned long long)l->cached_bytes, (unsigned long long)l->mapped_bytes,
            (unsigned long long)l->served_bytes, (unsigned long long)l->served_blocks,
            (unsigned long long)l->purged_bytes);
    }
    used += (size_t)snprintf(out + used, room - used, "}");
#define FIELD(name)                                                                                                    \
    used += (size_t)snprintf(out + used, room - used, ",\"" #name "\":%llu", (unsigned long long)s->name)
    FIELD(metadata_bytes);
    FIELD(mappings);
    FIELD(threads);
    FIELD(heaps_parked);
    FIELD(superslabs);
    FIELD(slabs);
    FIELD(remote_frees);
    FIELD(adopted_slabs);
    FIELD(tls_refills);
    FIELD(tls_flushes);
    FIELD(tls_grows);
    FIELD(tls_shrinks);
    FIELD(l25_shards);
    FIELD(l25_expansions);
    FIELD(l25_lock_misses);
    FIELD(l25_requests);
    FIELD(big_buckets);
    FIELD(big_resizes);
    FIELD(big_hits);
    FIELD(big_misses);
    FIELD(big_evictions);
    FIELD(foreign_frees);
    snprintf(out + used, room - used, "}\n");
}

/* ---- hak_stats_get --------------------------------------------------------------------------------------------- */

static void wrong_requests_are_einval(void **state) {
    (void)state;
    struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof stats};
    assert_int_equal(hak_stats_get(NULL), EINVAL);
    stats.version = 0;
    assert_int_equal(hak_stats_get(&stats), EINVAL);
    stats.version = HAK_STATS_VERSION + 1;
    assert_int_equal(hak_stats_get(&stats), EINVAL);
    stats = (struct hak_stats){.version = HAK_STATS_VERSION, .size = 7};
    assert_int_equal(hak_stats_get(&stats), EINVAL);
    assert_int_equal(hak_stats_print(2, (enum hak_format)2), EINVAL);
}

static void a_callers_smaller_struct_is_filled_up_to_its_size(void **state) {
    (void)state;
    union {
        struct hak_stats stats;
        unsigned char bytes[sizeof(struct hak_stats) + 64];
    } small, large;
    size_t sizes[] = {8, 9, 64, offsetof(struct hak_stats, metadata_bytes), sizeof(struct hak_stats) - 8};
    hak_free(hak_malloc(1)); /* so that the figures are not all 0 */
    struct hak_stats now = stats_now();
    assert_true(now.metadata_bytes > 0);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        memset(&small, 0xee, sizeof small);
        small.stats.version = HAK_STATS_VERSION;
        small.stats.size = (uint32_t)sizes[i];
        assert_int_equal(hak_stats_get(&small.stats), 0);
        assert_int_equal(small.stats.size, sizes[i]);
        assert_memory_equal(small.bytes + 8, (unsigned char *)&now + 8, sizes[i] - 8);
        for (size_t at = sizes[i]; at < sizeof small; at++) assert_int_equal(small.bytes[at], 0xee);
    }
    memset(&large, 0xee, sizeof large);
    large.stats.version = HAK_STATS_VERSION;
    large.stats.size = sizeof large;
    assert_int_equal(hak_stats_get(&large.stats), 0);
    assert_memory_equal(large.bytes + 8, (unsigned char *)&now + 8, sizeof now - 8);
    for (size_t at = sizeof now; at < sizeof large; at++) assert_int_equal(large.bytes[at], 0xee);
}

/* Blocks of one size come and go: the layer's figures follow exactly. */
static void check_layer(enum hak_layer layer, size_t size, uint64_t at_most) {
    enum { BLOCKS = 24 };
    void *blocks[BLOCKS];
    hak_thread_flush();
    struct hak_layer_stats before = stats_now().layer[layer];
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = hak_malloc(size);
        assert_non_null(blocks[i]);
    }
    hak_thread_flush();
    struct hak_stats full = stats_now();
    struct hak_layer_stats held = full.layer[layer];
    assert_int_equal(held.live_blocks - before.live_blocks, BLOCKS);
    assert_in_range(held.live_bytes - before.live_bytes, BLOCKS * size, BLOCKS * at_most);
    assert_true(held.served_blocks - before.served_blocks >= BLOCKS);
    assert_true(held.served_bytes - before.served_bytes >= BLOCKS * size);
    uint64_t mapped = 0, live = 0;
    for (int i = 0; i < HAK_LAYER_COUNT; i++) {
        mapped += full.layer[i].mapped_bytes;
        live += full.layer[i].live_bytes;
    }
    assert_true(mapped >= live);
    for (int i = 0; i < BLOCKS; i++) hak_free(blocks[i]);
    hak_thread_flush();
    struct hak_layer_stats after = stats_now().layer[layer];
    assert_int_equal(after.live_blocks, before.live_blocks);
    assert_int_equal(after.live_bytes, before.live_bytes);
    assert_int_equal(after.served_blocks, held.served_blocks);
}

static void live_blocks_are_counted_by_layer(void **state) {
    (void)state;
    check_layer(HAK_LAYER_TINY, 100, 128);
    check_layer(HAK_LAYER_TINY, 1000, 1280);
    check_layer(HAK_LAYER_MID, 5000, 6144);
    check_layer(HAK_LAYER_L25, 100000, 131072);
    check_layer(HAK_LAYER_BIG, (3 << 20) - 100, (3 << 20) + (3 << 18));
}

static void given_back_memory_is_counted(void **state) {
    (void)state;
    struct hak_layer_stats before = stats_now().layer[HAK_LAYER_BIG];
    void *block = hak_malloc(5 << 20);
    assert_non_null(block);
    memset(block, 1, 5 << 20);
    hak_free(block);
    assert_true(stats_now().layer[HAK_LAYER_BIG].cached_bytes >= 5 << 20);
    assert_true(hak_purge() >= 5 << 20);
    struct hak_layer_stats after = stats_now().layer[HAK_LAYER_BIG];
    assert_int_equal(after.cached_bytes, 0);
    assert_int_equal(after.live_bytes, before.live_bytes);
    assert_true(after.purged_bytes - before.purged_bytes >= 5 << 20);
}

/* ---- hak_stats_print ------------------------------------------------------------------------------------------- */

static void json_is_one_line_in_one_write(void **state) {
    (void)state;
    static struct written out;
    static char expected[16384];
    struct hak_stats now = stats_now();
    print_stats(HAK_FORMAT_JSON, &out);
    expected_json(expected, sizeof expected, &now, program_invocation_short_name);
    assert_string_equal(out.text, expected);
    assert_int_equal(out.writes, 1);
}

static void a_strange_program_name_makes_valid_json(void **state) {
    (void)state;
    static struct written out;
    static char expected[16384], name[5000], escaped[2048];
    char *saved = program_invocation_short_name;
    struct hak_stats now = stats_now();

    program_invocation_short_name = name;
    strcpy(name, "a\"b\\c\n\x7f\xe9 ");
    print_stats(HAK_FORMAT_JSON, &out);
    expected_json(expected, sizeof expected, &now, "a\\\"b\\\\c\\u000a\\u007f\\u00e9 ");
    assert_string_equal(out.text, expected);

    memset(name, 1, sizeof name - 1); /* and is cut, so that the line goes out in one write */
    for (size_t i = 0; i < 255; i++) strcpy(escaped + 6 * i, "\\u0001");
    print_stats(HAK_FORMAT_JSON, &out);
    expected_json(expected, sizeof expected, &now, escaped);
    program_invocation_short_name = saved;
    assert_string_equal(out.text, expected);
    assert_int_equal(out.writes, 1);
}

static void text_is_one_write_per_line_each_with_the_head(void **state) {
    (void)state;
    static struct written out;
    char head[300], mappings[64], tiny[64];
    struct hak_stats now = stats_now();
    int lines = 0,
        head_bytes = snprintf(head, sizeof head, "hakmem[%d %s]: ", (int)getpid(), program_invocation_short_name);
    print_stats(HAK_FORMAT_TEXT, &out);
    for (char *line = out.text; *line; line = strchr(line, '\n') + 1, lines++) {
        assert_memory_equal(line, head, (size_t)head_bytes);
        assert_non_null(strchr(line, '\n'));
    }
    assert_int_equal(lines, 1 + HAK_LAYER_COUNT + 22);
    assert_int_equal(out.writes, lines);
    snprintf(mappings, sizeof mappings, "]: mappings         %15llu  mappings asked", (unsigned long long)now.mappings);
    snprintf(tiny, sizeof tiny, "]: tiny  %15llu%15llu%15llu", (unsigned long long)now.layer[0].live_bytes,
             (unsigned long long)now.layer[0].live_blocks, (unsigned long long)now.layer[0].cached_bytes);
    assert_non_null(strstr(out.text, mappings));
    assert_non_null(strstr(out.text, tiny));
    assert_non_null(strstr(out.text,
                           "]:            live_bytes    live_blocks   cached_bytes   mapped_bytes   served_bytes"
                           "  served_blocks   purged_bytes\n"));
}

static void a_figure_wider_than_its_column_stays_whole(void **state) {
    (void)state;
    static struct written out;
    const uint64_t petabyte = UINT64_C(1000000000000000);
    char *block = hak_malloc(100);
    hak_add_rlx(&hak_tls_heap->served_bytes[0], petabyte);
    uint64_t served = stats_now().layer[HAK_LAYER_TINY].served_bytes;
    char expected[64];
    print_stats(HAK_FORMAT_TEXT, &out);
    snprintf(expected, sizeof expected, " %" PRIu64 " ", served);
    assert_true(served > petabyte);
    assert_non_null(strstr(out.text, expected));
    assert_null(strstr(out.text, "  1000")); /* one space before it */
    hak_sub_rlx(&hak_tls_heap->served_bytes[0], petabyte);
    hak_free(block);
}

static void a_failed_write_is_reported(void **state) {
    (void)state;
    int full = open("/dev/full", O_WRONLY);
    assert_true(full >= 0);
    assert_int_equal(hak_stats_print(-1, HAK_FORMAT_TEXT), EBADF);
    assert_int_equal(hak_stats_print(-1, HAK_FORMAT_JSON), EBADF);
    assert_int_equal(hak_stats_print(full, HAK_FORMAT_TEXT), ENOSPC);
    assert_int_equal(hak_stats_print(full, HAK_FORMAT_JSON), ENOSPC);
    close(full);
}

static void *print_to_pipe(void *fd) {
    assert_int_equal(hak_stats_print(*(int *)fd, HAK_FORMAT_JSON), 0);
    return NULL;
}

/* Fills the pipe, so that whoever writes to it hangs. */
static void open_full_pipe(int ends[2]) {
    static char filling[1 << 16];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    while (write(ends[1], filling, sizeof filling) > 0 || write(ends[1], filling, 1) > 0) {
    }
    assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0);
}

static void drain_up_to_newline(int fd) {
    char drained[4096];
    ssize_t n;
    do {
        n = read(fd, drained, sizeof drained);
        assert_true(n > 0);
    } while (drained[n - 1] != '\n');
}

/* Whether a thread that has had `wait_us` to begin printing hangs with the buffer in its hands; if so, what we print
 * meanwhile must be whole all the same. */
static bool print_beside_a_hanging_thread(useconds_t wait_us) {
    static struct written out;
    static char expected[16384];
    int ends[2];
    pthread_t thread;
    open_full_pipe(ends);
    assert_int_equal(pthread_create(&thread, NULL, print_to_pipe, &ends[1]), 0);
    usleep(wait_us);
    struct hak_stats now = stats_now();
    print_stats(HAK_FORMAT_JSON, &out);
    expected_json(expected, sizeof expected, &now, program_invocation_short_name);
    assert_string_equal(out.text, expected);
    int full = open("/dev/full", O_WRONLY);
    assert_int_equal(hak_stats_print(full, HAK_FORMAT_JSON), ENOSPC); /* of its pieces only the first is tried */
    close(full);
    drain_up_to_newline(ends[0]);
    pthread_join(thread, NULL);
    close(ends[0]);
    close(ends[1]);
    return out.writes > 1;
}

static void another_thread_that_hangs_while_printing_does_not_hang_us(void **state) {
    (void)state;
    static struct written out;
    useconds_t wait_us = 1000;
    alarm(120);
    while (!print_beside_a_hanging_thread(wait_us)) wait_us += 5000; /* it was too slow: more time */
    print_stats(HAK_FORMAT_JSON, &out);
    assert_int_equal(out.writes, 1); /* the buffer is free again */
    alarm(0);
}

/* ---- at exit ----------------------------------------------------------------------------------------------------- */

static bool no_file_at_start; /* no further one may be open */

static void at_exit_with(char **env, struct written *out) {
    int err = dup(2), ends[2];
    open_record(ends);
    hak_options_reset_for_test();
    hak_options_init(env);
    dup2(ends[1], 2);
    struct rlimit files, none = {.rlim_cur = 0};
    getrlimit(RLIMIT_NOFILE, &files);
    none.rlim_max = files.rlim_max;
    if (no_file_at_start) setrlimit(RLIMIT_NOFILE, &none);
    hak_stats_at_start();
    setrlimit(RLIMIT_NOFILE, &files);
    hak_stats_at_exit();
    dup2(err, 2);
    close(err);
    close_record(ends, out);
    hak_options_reset_for_test();
}
#define AT_EXIT(out, ...) at_exit_with((char *[]){__VA_ARGS__, NULL}, out)

static void at_exit_the_options_decide_what_is_printed(void **state) {
    (void)state;
    static struct written out;
    static char expected[16384];
    AT_EXIT(&out, "HAKMEM_STATS=0");
    assert_string_equal(out.text, "");
    AT_EXIT(&out, "HAKMEM_STATS=1");
    assert_int_equal(out.writes, 1 + HAK_LAYER_COUNT + 22);
    struct hak_stats now = stats_now();
    AT_EXIT(&out, "HAKMEM_STATS=json");
    expected_json(expected, sizeof expected, &now, program_invocation_short_name);
    assert_string_equal(out.text, expected);
}

static void where_no_further_file_may_be_open_that_is_said_at_the_start(void **state) {
    (void)state;
    static struct written out;
    char expected[256];
    no_file_at_start = true;
    AT_EXIT(&out, "HAKMEM_STATS=1");
    no_file_at_start = false;
    snprintf(expected, sizeof expected, "hakmem[%d %s]: HAKMEM_STATS: too many open files; nothing will be printed\n",
             (int)getpid(), program_invocation_short_name);
    assert_string_equal(out.text, expected);
}

static void at_exit_one_line_is_appended_to_the_file(void **state) {
    (void)state;
    static struct written out;
    static char expected[16384], text[65536];
    char path[] = "/tmp/unit_stats.XXXXXX", variable[128];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "before\n", 7), 7);
    snprintf(variable, sizeof variable, "HAKMEM_STATS_FILE=%s", path);
    struct hak_stats now = stats_now();
    AT_EXIT(&out, variable);
    assert_string_equal(out.text, "");
    AT_EXIT(&out, variable);
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    assert_true(n > 0);
    text[n] = '\0';
    expected_json(expected, sizeof expected, &now, program_invocation_short_name);
    size_t bytes = strlen(expected);
    assert_memory_equal(text, "before\n", 7);
    assert_memory_equal(text + 7, expected, bytes);
    assert_string_equal(text + 7 + bytes, expected);
    close(fd);
    unlink(path);
}

static void a_file_that_cannot_be_written_is_named(void **state) {
    (void)state;
    static struct written out;
    char line[512];
    const char *paths[] = {"/nonexistent/file", "/dev/full"};
    for (size_t i = 0; i < 2; i++) {
        char variable[64];
        snprintf(variable, sizeof variable, "HAKMEM_STATS_FILE=%s", paths[i]);
        AT_EXIT(&out, variable);
        snprintf(line, sizeof line, "hakmem[%d %s]: HAKMEM_STATS_FILE: cannot append to %s\n", (int)getpid(),
                 program_invocation_short_name, paths[i]);
        assert_string_equal(out.text, line);
        assert_int_equal(out.writes, 1);
    }
}

/* ---- while others work --------------------------------------------------------------------------------------------
 */

static void *churn(void *arg) {
    uint64_t seed = (uintptr_t)arg;
    void *blocks[64] = {NULL};
    for (int round = 0; round < 3000; round++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t size = seed >> 33 & 0xff;
        size = size < 230 ? size * 8 : size < 250 ? size * 256 : size * 8000;
        unsigned at = seed >> 58;
        hak_free(blocks[at]);
        blocks[at] = hak_malloc(size);
    }
    for (int i = 0; i < 64; i++) hak_free(blocks[i]);
    return NULL;
}

static void counters_only_grow_while_threads_allocate(void **state) {
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    struct hak_stats before = stats_now();
    for (uintptr_t i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, churn, (void *)i), 0);
    for (int round = 0; round < 300; round++) {
        struct hak_stats now = stats_now();
        for (int i = 0; i < HAK_LAYER_COUNT; i++) {
            assert_true(now.layer[i].served_blocks >= before.layer[i].served_blocks);
            assert_true(now.layer[i].served_bytes >= before.layer[i].served_bytes);
            assert_true(now.layer[i].purged_bytes >= before.layer[i].purged_bytes);
        }
        assert_true(now.tls_refills >= before.tls_refills);
        assert_true(now.l25_requests >= before.l25_requests);
        assert_true(now.big_hits >= before.big_hits && now.big_misses >= before.big_misses);
        before = now;
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_requests_are_einval),
        cmocka_unit_test(a_callers_smaller_struct_is_filled_up_to_its_size),
        cmocka_unit_test(live_blocks_are_counted_by_layer),
        cmocka_unit_test(given_back_memory_is_counted),
        cmocka_unit_test(json_is_one_line_in_one_write),
        cmocka_unit_test(a_strange_program_name_makes_valid_json),
        cmocka_unit_test(text_is_one_write_per_line_each_with_the_head),
        cmocka_unit_test(a_figure_wider_than_its_column_stays_whole),
        cmocka_unit_test(a_failed_write_is_reported),
        cmocka_unit_test(another_thread_that_hangs_while_printing_does_not_hang_us),
        cmocka_unit_test(at_exit_the_options_decide_what_is_printed),
        cmocka_unit_test(where_no_further_file_may_be_open_that_is_said_at_the_start),
        cmocka_unit_test(at_exit_one_line_is_appended_to_the_file),
        cmocka_unit_test(a_file_that_cannot_be_written_is_named),
        cmocka_unit_test(counters_only_grow_while_threads_allocate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
