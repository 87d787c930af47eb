/* build: -shared -fPIC */
/* A C++ library for C programs: it brings a C++ runtime that only it can see, and tries operator new on it. */
#include <cstddef>
#include <cstdint>
#include <new>

namespace {

constexpr size_t huge = PTRDIFF_MAX; /* no request of this size can be met */
constexpr std::align_val_t wide{4096};

struct out_of_everything : std::bad_alloc {
    int number;
    explicit out_of_everything(int n) : number(n) {}
};

volatile size_t wanted; /* so that no compiler knows the size, nor removes what is not used */
void *volatile taken;
int calls;

void give_up_at_third() {
    if (++calls == 3) std::set_new_handler(nullptr);
}
void throw_at_second() {
    if (++calls == 2) throw out_of_everything(42);
}

enum form { PLAIN, ARRAY, ALIGNED, ALIGNED_ARRAY, FORMS };

void *take(int form) {
    switch (form) {
    case PLAIN:
        return ::operator new(wanted);
    case ARRAY:
        return ::operator new[](wanted);
    case ALIGNED:
        return ::operator new(wanted, wide);
    default:
        return ::operator new[](wanted, wide);
    }
}

void *take_nothrow(int form) {
    switch (form) {
    case PLAIN:
        return ::operator new(wanted, std::nothrow);
    case ARRAY:
        return ::operator new[](wanted, std::nothrow);
    case ALIGNED:
        return ::operator new(wanted, wide, std::nothrow);
    default:
        return ::operator new[](wanted, wide, std::nothrow);
    }
}

/* 'b': std::bad_alloc itself; 'd': the handler's own type, whole; 'n': NULL; 'p': a pointer; '?': anything else. */
char outcome(void *(*taker)(int), int form, std::new_handler handler) {
    wanted = huge;
    calls = 0;
    std::set_new_handler(handler);
    char result = '?';
    try {
        taken = taker(form);
        result = taken ? 'p' : 'n';
    } catch (const out_of_everything &e) {
        result = e.number == 42 ? 'd' : '?';
    } catch (const std::bad_alloc &) {
        result = 'b';
    } catch (...) {
    }
    std::set_new_handler(nullptr);
    return result;
}

} // namespace

extern "C" __attribute__((visibility("default"))) const char *cxx_plugin_failure() {
    for (int form = 0; form < FORMS; form++) {
        if (outcome(take, form, nullptr) != 'b') return "no handler: operator new does not throw std::bad_alloc";
        if (outcome(take, form, give_up_at_third) != 'b') return "the handler gives up: no std::bad_alloc";
        if (calls != 3) return "the handler is not called until it gives up";
        if (outcome(take, form, throw_at_second) != 'd') return "the handler's own exception does not come through";
        if (calls != 2) return "the handler is not called until it throws";
        if (outcome(take_nothrow, form, nullptr) != 'n') return "nothrow, no handler: not NULL";
        if (outcome(take_nothrow, form, give_up_at_third) != 'n') return "nothrow, the handler gives up: not NULL";
        if (calls != 3) return "nothrow: the handler is not called until it gives up";
        if (outcome(take_nothrow, form, throw_at_second) != 'n') return "nothrow, the handler throws: not NULL";
        if (calls != 2) return "nothrow: the handler is not called until it throws";
    }
    wanted = 100;
    for (int form = 0; form < FORMS; form++) {
        taken = take(form);
        if (!taken) return "no block of 100 bytes";
        if (form == PLAIN) ::operator delete(taken, wanted);
        if (form == ARRAY) ::operator delete[](taken);
        if (form == ALIGNED) ::operator delete(taken, wide);
        if (form == ALIGNED_ARRAY) ::operator delete[](taken, wanted, wide);
    }
    return nullptr;
}
