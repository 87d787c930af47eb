/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* Freeing keeps errno, also where the system refuses to take the memory back: at the limit of mappings, and when each
 * such call fails. The memory is then kept and used again. */
#include "support/api_blackbox.h"
#include "support/api_child.h"
#include "support/api_refuse.h"

enum { PER_SIZE = 60 };

static const size_t sizes[] = {8,      100,    1000,    4000,    12000,   32000,   40000,    100000,
                               260000, 600000, 1048576, 1100000, 2500000, 5000000, 17000000, 70000000};

static unsigned char *blocks[API_COUNT(sizes)][PER_SIZE];

/* Few of the largest: 16 sizes x 60 blocks are enough address space as it is. */
static size_t count_of(size_t size) { return size > 2000000 ? 8 : PER_SIZE; }

static bool is_aligned_block(size_t index) { return index % 3 == 2; }

static bool fill_all(void) {
    for (size_t s = 0; s < API_COUNT(sizes); s++) {
        for (size_t i = 0; i < count_of(sizes[s]); i++) {
            blocks[s][i] = is_aligned_block(i) ? api.memalign(4096, sizes[s]) : api.malloc(sizes[s]);
            if (!blocks[s][i]) {
                return false;
            }
            blocks[s][i][0] = blocks[s][i][sizes[s] - 1] = 1;
        }
    }
    return true;
}

static void free_by(size_t form, const struct api *it, void *block, size_t size) {
    if (!it->free_sized && form >= 2) {
        form = 0;
    }
    switch (form) {
    case 1:
        (void)!it->realloc(block, 0);
        break;
    case 2:
        it->free_sized(block, size);
        break;
    case 3:
        it->free_aligned_sized(block, 4096, size);
        break;
    case 4:
        it->cfree(block);
        break;
    default:
        it->free(block);
        break;
    }
}

/* Frees every block, every other one first so that holes arise. Returns how often errno was changed. */
static int free_all(void) {
    static const int values[] = {0, 77, ENOMEM, EINVAL};
    int changed = 0;
    for (size_t half = 0; half < 2; half++) {
        for (size_t s = 0; s < API_COUNT(sizes); s++) {
            for (size_t i = half; i < count_of(sizes[s]); i += 2) {
                int kept = values[i % API_COUNT(values)];
                errno = kept;
                free_by(is_aligned_block(i) ? 3 + i % 2 : i / 3 % 3, i % 4 && hak.version ? &api_prefixed : &api,
                        blocks[s][i], sizes[s]);
                changed += errno != kept;
            }
        }
    }
    return changed;
}

static void every_form_of_free_keeps_errno(void **state) {
    (void)state;
    for (int round = 0; round < 3; round++) {
        assert_true(fill_all());
        assert_int_equal(free_all(), 0);
    }
}

/* Splits one mapping into as many as the system allows. */
static char *use_up_mappings(size_t *pages) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *pages = 0;
    size_t room = (size_t)200000;
    char *area = mmap(NULL, room * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    api_child_check(area != MAP_FAILED);
    while (*pages + 2 < room && mprotect(area + *pages * page, page, PROT_READ) == 0) {
        *pages += 2;
    }
    return area;
}

static void free_at_the_limit(void *argument) {
    (void)argument;
    size_t pages;
    api_child_check(fill_all());
    char *area = use_up_mappings(&pages);
    api_child_check(errno == ENOMEM && pages > 1000);
    api_child_check(free_all() == 0);
    api_flush();
    api_purge();
    api_child_check(munmap(area, 200000 * (size_t)sysconf(_SC_PAGESIZE)) == 0);
    for (int round = 0; round < 3; round++) {
        api_child_check(fill_all());
        api_child_check(free_all() == 0);
        api_purge();
    }
}

static void free_keeps_errno_at_the_limit_of_mappings(void **state) {
    (void)state;
    api_child_succeeds(free_at_the_limit, NULL, "all mappings in use");
}

static void free_while_refused(void *error) {
    static const unsigned calls[] = {SYS_munmap, SYS_madvise, SYS_mremap, SYS_mprotect};
    api_child_check(fill_all());
    api_refuse(calls, API_COUNT(calls), *(unsigned *)error);
    api_child_check(free_all() == 0);
    api_purge();
    /* What could not be given back must serve the next rounds, 1 GB each: address space does not go on growing. */
    size_t before = 0;
    for (int round = 0; round < 20; round++) {
        api_child_check(fill_all());
        api_child_check(free_all() == 0);
        api_purge();
        if (round == 3) {
            before = api_address_space();
        }
    }
    api_child_check(!hak.version || api_address_space() < before + ((size_t)1 << 30));
}

static void free_keeps_errno_and_memory_when_the_system_takes_none_back(void **state) {
    (void)state;
    static unsigned errors[] = {ENOMEM, EINVAL, EAGAIN};
    for (size_t i = 0; i < API_COUNT(errors); i++) {
        api_child_succeeds(free_while_refused, &errors[i], strerror((int)errors[i]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_of_free_keeps_errno),
        cmocka_unit_test(free_keeps_errno_at_the_limit_of_mappings),
        cmocka_unit_test(free_keeps_errno_and_memory_when_the_system_takes_none_back),
    };
    api_start();
    return cmocka_run_group_tests_name("errno", tests, NULL, NULL);
}
