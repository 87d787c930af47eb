/* Misuse that the call itself finds, where it takes a state that a program seldom has. One line names function, pointer
 * and kind, and the process ends. */
#include "support/inside.h"
#include "support/prefixed.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include "base/log.h"
#include "front/heap.h"
#include "pages/region.h"

static void **shared_block; /* with the parent, which wants to know the address */

static void *take_block(void *where) {
    *(void **)where = hak_malloc(64);
    *(void **)where = hak_malloc(64);
    return NULL;
}

static void misaligned_in_a_block_of_another_thread(void *argument) {
    char *ptr = NULL;
    (void)argument;
    set_option(PREWARM, 0);  /* or our bin would keep it */
    hak_free(hak_malloc(1)); /* so that our heap is not the one that is parked */
    run_thread(take_block, &ptr);
    hak_free(*shared_block = ptr + 8);
}

static void inside_a_run_that_is_free(void *argument) {
    (void)argument;
    char *stays = hak_malloc(200 * KIB), *ptr = hak_malloc(200 * KIB);
    must(stays != NULL && ptr != NULL);
    hak_free(ptr);
    hak_free(*shared_block = ptr + 64 * KIB);
}

static void *free_slab(void) {
    static void *blocks[200]; /* of three slabs: the last of a class is kept */
    for (unsigned i = 0; i < 200; i++) must((blocks[i] = hak_malloc(1000)) != NULL);
    for (unsigned i = 0; i < 200; i++) hak_free(blocks[i]);
    hak_thread_flush();
    for (unsigned i = 0; i < 200; i++)
        if (hak_region_lookup(blocks[i]).kind == HAK_KIND_FREE_SLAB) return blocks[i];
    must(!"a slab is free");
    return NULL;
}

static void size_of_a_block_whose_slab_is_free(void *argument) {
    (void)argument;
    hak_malloc_usable_size(*shared_block = free_slab());
}

static void resize_of_a_block_whose_slab_is_free(void *argument) {
    (void)argument;
    must(hak_realloc(*shared_block = free_slab(), 2000) != NULL);
}

static void free_of_a_block_whose_slab_is_free(void *argument) {
    (void)argument;
    hak_free(*shared_block = free_slab());
}

static void memory_of_another_allocator_where_that_is_fatal(void *argument) {
    (void)argument;
    set_option(FOREIGN_ABORT, 1);
    char *pages = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    hak_free(*shared_block = pages + 16);
}

static void nobody_knows_whose_where_that_is_fatal(void *argument) {
    (void)argument;
    set_option(FOREIGN_ABORT, 1);
    char *pages = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const struct rlimit none = {0, 0};
    must(setrlimit(RLIMIT_NOFILE, &none) == 0); /* the map of the process cannot be read */
    hak_free(*shared_block = pages + 16);
}

/* Where another block would start if the slab were a little longer. */
static void behind_the_last_block_of_a_slab(void *argument) {
    (void)argument;
    char *ptr = hak_malloc(48 - (HAK_EXACT ? HAK_EXACT_SLACK : 0));
    const struct hak_slab *slab = hak_region_lookup(ptr).descriptor;
    char *tail = slab->base + (size_t)slab->blocks * slab->block_bytes;
    must(slab->block_bytes == 48 && tail + 16 <= slab->base + HAK_SLAB_BYTES);
    hak_malloc_usable_size(*shared_block = tail);
}

/* It would be good enough as it is. */
static void resize_from_inside_a_block(void *argument) {
    (void)argument;
    char *ptr = hak_malloc(1000);
    must(hak_realloc(*shared_block = ptr + 16, 900) != NULL);
}

static void each_is_named_by_one_line(void **state) {
    (void)state;
    static const struct {
        void (*body)(void *);
        const char *function, *kind;
    } ways[] = {
        {misaligned_in_a_block_of_another_thread, "free", "invalid pointer: not the start of a block"},
        {inside_a_run_that_is_free, "free", "pointer into free memory"},
        {size_of_a_block_whose_slab_is_free, "malloc_usable_size", "pointer into free memory"},
        {resize_of_a_block_whose_slab_is_free, "realloc", "pointer into free memory"},
        {resize_from_inside_a_block, "realloc", "invalid pointer: not the start of a block"},
        {free_of_a_block_whose_slab_is_free, "free", "pointer into free memory"},
        {memory_of_another_allocator_where_that_is_fatal, "free",
         "not a hakmem block: it belongs to another allocator"},
        {nobody_knows_whose_where_that_is_fatal, "free", "not a hakmem block: it belongs to another allocator"},
        {behind_the_last_block_of_a_slab, "malloc_usable_size", "invalid pointer: not the start of a block"},
    };
    for (size_t i = 0; i < COUNT(ways); i++) {
        char line[256];
        struct ended ended = run_heard(ways[i].body, NULL);
        snprintf(line, sizeof line, "hakmem[%d unit_misuse]: %s(%p): %s\n", (int)ended.pid, ways[i].function,
                 *shared_block, ways[i].kind);
        if (HAK_TRACE) ended.text[strcspn(ended.text, "\n") + 1] = '\0'; /* how it came about stands behind it */
        assert_string_equal(ended.text, line);
        assert_true(WIFSIGNALED(ended.status) && WTERMSIG(ended.status) == SIGABRT);
    }
}

/* ---- the line itself ---- */

static void a_line_that_is_too_long_is_cut(void **state) {
    (void)state;
    struct hak_text text = {.used = 0};
    char written[2 * HAK_TEXT_BYTES];
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    for (int i = 0; i < 100; i++) hak_text_str(&text, "0123456789");
    hak_text_u64(&text, 42); /* no room at all */
    assert_int_equal(hak_text_line(&text, ends[1]), 0);
    assert_int_equal(text.used, 0);
    close(ends[1]);
    assert_int_equal(read(ends[0], written, sizeof written), HAK_TEXT_BYTES);
    for (int i = 0; i < HAK_TEXT_BYTES - 1; i++) assert_int_equal(written[i], '0' + i % 10);
    assert_int_equal(written[HAK_TEXT_BYTES - 1], '\n');
    assert_int_equal(read(ends[0], written, sizeof written), 0);
    close(ends[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_named_by_one_line),
        cmocka_unit_test(a_line_that_is_too_long_is_cut),
    };
    shared_block = mmap(NULL, sizeof *shared_block, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared_block != MAP_FAILED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
