/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* What cannot be had gives NULL and ENOMEM, from every entry point, and costs nothing. */
#include "support/api_blackbox.h"
#include "support/api_child.h"

enum { MAX_SIZES = 512, SENTINEL = 77 };

static size_t sizes[MAX_SIZES];
static size_t size_count;

static void add_size(size_t size) {
    assert_true(size_count < MAX_SIZES);
    sizes[size_count++] = size;
}

/* All that no 47-bit address space can hold, around every edge that arithmetic can slip at. */
static int make_sizes(void **state) {
    (void)state;
    static const size_t near[] = {0, 1, 2, 7, 8, 15, 16, 17, 63, 64, 255, 4095, 4096, 4097, 65535, 65536, 1 << 21};
    for (size_t i = 0; i < API_COUNT(near); i++) {
        add_size(SIZE_MAX - near[i]);
        add_size((size_t)PTRDIFF_MAX - near[i]);
        add_size((size_t)PTRDIFF_MAX + 1 + near[i]);
    }
    for (unsigned shift = 47; shift < 64; shift++) {
        add_size(((size_t)1 << shift) - 1);
        add_size((size_t)1 << shift);
        add_size(((size_t)1 << shift) + 1);
    }
    return 0;
}

#define must_be_enomem(call, ...)                                                                                      \
    do {                                                                                                               \
        errno = SENTINEL;                                                                                              \
        void *got_ = (call);                                                                                           \
        int errno_ = errno;                                                                                            \
        if (got_ != NULL || errno_ != ENOMEM) {                                                                        \
            char with_[64];                                                                                            \
            snprintf(with_, sizeof with_, __VA_ARGS__);                                                                \
            fail_msg("%s gave %p, errno %d with %s", #call, got_, errno_, with_);                                      \
        }                                                                                                              \
    } while (0)

static void plain_allocation_of_too_much_gives_enomem(void **state) {
    (void)state;
    api_each(it) {
        for (size_t i = 0; i < size_count; i++) {
            size_t n = sizes[i];
            must_be_enomem(it->malloc(n), "%zu", n);
            must_be_enomem(it->calloc(1, n), "%zu", n);
            must_be_enomem(it->calloc(n, 1), "%zu", n);
            must_be_enomem(it->calloc(n / 2 + 1, 2), "%zu", n);
            must_be_enomem(it->realloc(NULL, n), "%zu", n);
            must_be_enomem(it->reallocarray(NULL, 1, n), "%zu", n);
            must_be_enomem(it->reallocarray(NULL, n, 1), "%zu", n);
            must_be_enomem(it->valloc(n), "%zu", n);
            must_be_enomem(it->pvalloc(n), "%zu", n);
        }
    }
}

static void must_refuse_memalign(const struct api *it, size_t alignment, size_t size) {
    void *memptr = NULL;
    must_be_enomem(it->memalign(alignment, size), "%zu, %zu", alignment, size);
    must_be_enomem(it->aligned_alloc(alignment, size), "%zu, %zu", alignment, size);
    if (it->posix_memalign(&memptr, alignment, size) != ENOMEM) {
        fail_msg("posix_memalign(%zu, %zu) did not return ENOMEM", alignment, size);
    }
}

static void aligned_allocation_of_too_much_gives_enomem(void **state) {
    (void)state;
    api_each(it) {
        for (size_t alignment = sizeof(void *); alignment <= (size_t)1 << 30; alignment *= 2) {
            for (size_t i = 0; i < size_count; i++) {
                must_refuse_memalign(it, alignment, sizes[i]);
            }
        }
    }
}

static void alignment_past_the_address_space_gives_enomem(void **state) {
    (void)state;
    static const size_t small[] = {0, 1, 8, 16, 1024, 4096, 65536, 1 << 20, 1 << 24};
    api_each(it) {
        for (unsigned shift = 47; shift < 64; shift++) {
            for (size_t i = 0; i < API_COUNT(small); i++) {
                must_refuse_memalign(it, (size_t)1 << shift, small[i]);
            }
        }
    }
}

static void product_that_overflows_gives_enomem(void **state) {
    (void)state;
    static const size_t pairs[][2] = {
        {SIZE_MAX / 2 + 1, 2},
        {SIZE_MAX / 3 + 1, 3},
        {SIZE_MAX / 3 + 2, 3},
        {SIZE_MAX / 16 + 1, 16},
        {SIZE_MAX / 16 + 2, 16},
        {SIZE_MAX / 24 + 1, 24},
        {(size_t)1 << 32, (size_t)1 << 32},
        {((size_t)1 << 32) + 1, (size_t)1 << 32},
        {((size_t)1 << 33) + 1, (size_t)1 << 31},
        {SIZE_MAX, SIZE_MAX},
        {SIZE_MAX, 2},
        {SIZE_MAX / 4096 + 1, 4096},
        {(size_t)1 << 63, (size_t)1 << 63},
        {SIZE_MAX - 1, SIZE_MAX - 1},
        {SIZE_MAX / 1000 + 1, 1000},
    };
    api_each(it) {
        char *block = it->malloc(100);
        memset(block, 0x5A, 100);
        for (size_t i = 0; i < API_COUNT(pairs); i++) {
            size_t a = pairs[i][0];
            size_t b = pairs[i][1];
            must_be_enomem(it->calloc(a, b), "%zu, %zu", a, b);
            must_be_enomem(it->calloc(b, a), "%zu, %zu", b, a);
            must_be_enomem(it->reallocarray(NULL, a, b), "%zu, %zu", a, b);
            must_be_enomem(it->reallocarray(NULL, b, a), "%zu, %zu", b, a);
            must_be_enomem(it->reallocarray(block, a, b), "%zu, %zu", a, b);
            must_be_enomem(it->reallocarray(block, b, a), "%zu, %zu", b, a);
        }
        for (size_t i = 0; i < 100; i++) {
            assert_int_equal(block[i], 0x5A);
        }
        it->free(block);
    }
}

static void hakmem_s_own_calls_of_too_much_give_enomem(void **state) {
    (void)state;
    api_need(hak.version);
    for (size_t i = 0; i < size_count; i++) {
        size_t n = sizes[i];
        must_be_enomem(hak.rezalloc(NULL, n), "%zu", n);
        must_be_enomem(hak.malloc_at_least(n).ptr, "%zu", n);
        assert_int_equal(hak.malloc_at_least(n).size, 0);
        if (n > PTRDIFF_MAX) {
            assert_int_equal(hak.good_size(n), 0);
        }
    }
}

static void refused_requests_cost_nothing(void **state) {
    (void)state;
    size_t before = 0;
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < size_count; i++) {
            assert_null(api.malloc(sizes[i]));
            assert_null(api.memalign((size_t)1 << 21, sizes[i]));
            assert_null(api.calloc(1, sizes[i]));
        }
        if (round == 0) {
            before = api_address_space();
        }
    }
    assert_in_range(api_address_space(), 0, before + ((size_t)1 << 20));
}

/* One way to ask for n bytes; each must set errno by itself once memory has run out. */
static void *get_malloc(size_t n) { return api.malloc(n); }
static void *get_calloc(size_t n) { return api.calloc(1, n); }
static void *get_realloc(size_t n) { return api.realloc(NULL, n); }
static void *get_memalign(size_t n) { return api.memalign(256, n); }
static void *get_aligned_alloc(size_t n) { return api.aligned_alloc(64, n); }
static void *get_valloc(size_t n) { return api.valloc(n); }
static void *get_posix_memalign(size_t n) {
    void *block = NULL;
    errno = api.posix_memalign(&block, 32, n);
    return block;
}

static void *(*const ways[])(size_t) = {get_malloc,        get_calloc, get_realloc,       get_memalign,
                                        get_aligned_alloc, get_valloc, get_posix_memalign};

/* With 64 MiB of address space to go, asks for more and more of one size until refused; all ways must say ENOMEM
 * then, the blocks must still be usable, and after they are freed the size can be had again. */
static void exhaust(void *argument) {
    size_t size = *(size_t *)argument;
    size_t room = (size_t)64 << 20;
    size_t count = 0;
    char **blocks = api_books(room / 16 * 2 * sizeof(char *));
    struct rlimit limit = {api_address_space() + room, api_address_space() + room};
    api_child_check(setrlimit(RLIMIT_AS, &limit) == 0);
    errno = SENTINEL;
    while ((blocks[count] = api.malloc(size)) != NULL) {
        blocks[count++][0] = 1;
        api_child_check(count < room / 16 * 2);
        errno = SENTINEL;
    }
    api_child_check(errno == ENOMEM);
    api_child_check(count * size > room / 4);
    for (size_t i = 0; i < API_COUNT(ways); i++) {
        errno = SENTINEL;
        api_child_check(ways[i](size * 4) != NULL || errno == ENOMEM);
    }
    errno = SENTINEL;
    api_child_check(api.realloc(blocks[0], room * 2) == NULL && errno == ENOMEM);
    for (size_t i = 0; i < count; i++) {
        api_child_check(blocks[i][0] == 1);
        api.free(blocks[i]);
    }
    void *again = api.malloc(size);
    api_child_check(again != NULL);
    api.free(again);
}

static void running_out_of_memory_gives_enomem_in_every_layer(void **state) {
    (void)state;
    static size_t of_each_layer[] = {16, 200, 1024, 5000, 30000, 100000, 700000, 3000000};
    for (size_t i = 0; i < API_COUNT(of_each_layer); i++) {
        char what[64];
        snprintf(what, sizeof what, "blocks of %zu bytes", of_each_layer[i]);
        api_child_succeeds(exhaust, &of_each_layer[i], what);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_allocation_of_too_much_gives_enomem),
        cmocka_unit_test(aligned_allocation_of_too_much_gives_enomem),
        cmocka_unit_test(alignment_past_the_address_space_gives_enomem),
        cmocka_unit_test(product_that_overflows_gives_enomem),
        cmocka_unit_test(hakmem_s_own_calls_of_too_much_give_enomem),
        cmocka_unit_test(refused_requests_cost_nothing),
        cmocka_unit_test(running_out_of_memory_gives_enomem_in_every_layer),
    };
    api_start();
    return cmocka_run_group_tests_name("enomem", tests, make_sizes, NULL);
}
