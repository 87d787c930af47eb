/* build: -pthread */
/* fork() against the C library's stream locks: a reader holds a stream's lock and allocates, fflush(NULL) takes all
 * of them, fork() takes them too. An allocator whose fork handlers take its own locks first deadlocks here. */
#include "support/life.h"

static struct life_table table;

static void *getline_body(void *arg) {
    FILE *stream = arg;
    while (!atomic_load(&table.stop)) {
        char *text = NULL;
        size_t room = 0;
        if (getline(&text, &room, stream) < 0) {
            rewind(stream);
        }
        free(text);
    }
    return NULL;
}

static void *flush_body(void *arg) {
    (void)arg;
    while (!atomic_load(&table.stop)) {
        fflush(NULL);
    }
    return NULL;
}

static FILE *text_stream(void) {
    int fd = memfd_create("text", MFD_CLOEXEC);
    FILE *stream = fd < 0 ? NULL : fdopen(fd, "r+");
    assert_non_null(stream);
    for (int i = 1; i < 300; ++i) {
        fprintf(stream, "%*d\n", i * 7, i);
    }
    rewind(stream);
    return stream;
}

static int child_body(void) {
    alarm(LIFE_HANG_SECONDS);
    char *text = NULL;
    size_t room = 0;
    FILE *stream = fopen("/proc/self/maps", "re");
    if (stream == NULL || getline(&text, &room, stream) <= 0) {
        return 1;
    }
    fclose(stream);
    free(text);
    return life_table_empty(&table) == 0 ? 0 : 2;
}

static void fork_and_streams_do_not_deadlock(void **state) {
    (void)state;
    FILE *streams[] = {text_stream(), text_stream()};
    pthread_t threads[5];
    life_table_open(&table, 512, 100000);
    life_start(&threads[0], 1, getline_body, streams[0]);
    life_start(&threads[1], 1, getline_body, streams[1]);
    life_start(&threads[2], 1, flush_body, NULL);
    life_start(&threads[3], 2, life_table_churn, &table);
    double end = life_seconds() + (double)life_scale(2, 10);
    size_t children = 0;
    int status = 0;
    while (status == 0 && (life_seconds() < end || children < 20)) {
        pid_t pid = fork();
        if (pid == 0) {
            _exit(child_body());
        }
        status = life_wait(pid);
        ++children;
    }
    atomic_store(&table.stop, true);
    life_join(threads, 5);
    assert_int_equal(status, 0);
    fclose(streams[0]);
    fclose(streams[1]);
    assert_int_equal(life_table_close(&table), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fork_and_streams_do_not_deadlock),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
