/* build: -Wno-unknown-warning-option -Wno-sized-deallocation -Wno-free-nonheap-object */
/* A program that replaces only the array operators: the other array forms must call them, and the plain forms must not.
 * Its blocks begin 64 bytes behind those of malloc, so whatever passed one to free() directly would end the process. */
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

extern "C" {
#include <setjmp.h>

#include <cmocka.h>
}

namespace {

constexpr size_t header = 64;
int made, freed, made_aligned, freed_aligned;
volatile size_t wanted = 100, huge = PTRDIFF_MAX;
constexpr std::align_val_t wide{64};

struct refused : std::bad_alloc {};

void *make(void *block) {
    if (!block) throw refused();
    return static_cast<char *>(block) + header;
}
size_t with_header(size_t size) { return size > PTRDIFF_MAX / 2 ? PTRDIFF_MAX : size + header; }
void unmake(void *block, int *count) {
    if (!block) return;
    ++*count;
    free(static_cast<char *>(block) - header);
}

int reset(void **) {
    made = freed = made_aligned = freed_aligned = 0;
    return 0;
}

} // namespace

void *operator new[](size_t size) {
    void *block = make(malloc(with_header(size)));
    made++;
    return block;
}
void operator delete[](void *block) noexcept { unmake(block, &freed); }
void *operator new[](size_t size, std::align_val_t) {
    void *block = make(aligned_alloc(64, with_header(size)));
    made_aligned++;
    return block;
}
void operator delete[](void *block, std::align_val_t) noexcept { unmake(block, &freed_aligned); }

namespace {

void the_other_array_forms_call_them(void **) {
    ::operator delete[](::operator new[](wanted, std::nothrow), std::nothrow);
    ::operator delete[](::operator new[](wanted), wanted);
    assert_int_equal(made, 2);
    assert_int_equal(freed, 2);
    ::operator delete[](::operator new[](wanted, wide, std::nothrow), wide, std::nothrow);
    ::operator delete[](::operator new[](wanted, wide), wanted, wide);
    assert_int_equal(made_aligned, 2);
    assert_int_equal(freed_aligned, 2);
}

void what_they_throw_is_null_in_the_nothrow_forms(void **) {
    assert_null(::operator new[](huge, std::nothrow));
    assert_null(::operator new[](huge, wide, std::nothrow));
    assert_int_equal(made + made_aligned, 0);
}

void the_plain_forms_do_not(void **) {
    ::operator delete(::operator new(wanted));
    ::operator delete(::operator new(wanted, std::nothrow), std::nothrow);
    ::operator delete(::operator new(wanted), wanted);
    ::operator delete(::operator new(wanted, wide), wide);
    ::operator delete(::operator new(wanted, wide), wanted, wide);
    assert_int_equal(made + freed + made_aligned + freed_aligned, 0);
}

} // namespace

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_other_array_forms_call_them, reset),
        cmocka_unit_test_setup(what_they_throw_is_null_in_the_nothrow_forms, reset),
        cmocka_unit_test_setup(the_plain_forms_do_not, reset),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
