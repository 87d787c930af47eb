/* The C++ operators new and delete, in all forms ([new.delete] of C++17); but the fast path of plain new is in
 * malloc.c.
 *
 * hakmem is loaded into C programs too, so nothing here needs a C++ runtime: the build makes every reference to one
 * weak, and cxx_runtime.h says what is there. Where one is, a new_handler runs, std::bad_alloc is thrown, and what a
 * handler throws passes through untouched.
 *
 * A program may replace one form and rely on the others to call it, as the standard says of the default forms: so a
 * derived form looks whether the one it derives from is ours (two loads and a compare), and only then takes the short
 * way. All are weak, so that a replacement also works where hakmem is linked in. */
#if !HAK_TEST

#include "api/cxx_runtime.h"
#include "hakmem.h"

#include <new>

#define HIDDEN __attribute__((visibility("hidden")))
#define COLD __attribute__((cold, noinline))
#define EXPORT __attribute__((weak, visibility("default")))
#define EXPORT_AS(internal) __attribute__((weak, visibility("default"), alias(internal)))
#define CALLER __builtin_return_address(0)

extern "C" {
/* Of alloc.h, which is for C only. */
HIDDEN void *hak_alloc(size_t size, size_t align, bool zero, uintptr_t site);
HIDDEN void hak_release(void *ptr, const char *function);
HIDDEN void hak_release_aligned(void *ptr, size_t align, const char *function);
HIDDEN void hak_release_sized(void *ptr, size_t size, size_t align, const char *function);

HIDDEN void *hak_operator_new(size_t size);
HIDDEN void *hak_operator_new_slow(size_t size, uintptr_t site);
HIDDEN void *hak_operator_new_aligned(size_t size, std::align_val_t alignment);
HIDDEN void *hak_operator_new_array(size_t size);
HIDDEN void *hak_operator_new_array_aligned(size_t size, std::align_val_t alignment);
HIDDEN void hak_operator_delete(void *ptr) noexcept;
HIDDEN void hak_operator_delete_aligned(void *ptr, std::align_val_t alignment) noexcept;
HIDDEN void hak_operator_delete_array(void *ptr) noexcept;
HIDDEN void hak_operator_delete_array_aligned(void *ptr, std::align_val_t alignment) noexcept;
}

/* The forms that others derive from have two names, so that a replacement of one shows. */
EXPORT void *operator new(size_t size); /* malloc.c */
EXPORT_AS("hak_operator_new_aligned") void *operator new(size_t size, std::align_val_t alignment);
EXPORT_AS("hak_operator_new_array") void *operator new[](size_t size);
EXPORT_AS("hak_operator_new_array_aligned") void *operator new[](size_t size, std::align_val_t alignment);
EXPORT_AS("hak_operator_delete") void operator delete(void *ptr) noexcept;
EXPORT_AS("hak_operator_delete_aligned") void operator delete(void *ptr, std::align_val_t alignment) noexcept;
EXPORT_AS("hak_operator_delete_array") void operator delete[](void *ptr) noexcept;
EXPORT_AS("hak_operator_delete_array_aligned") void operator delete[](void *ptr, std::align_val_t alignment) noexcept;

namespace {

using get_handler = std::new_handler();
using nothrow_new = void *(size_t, const std::nothrow_t &) noexcept;
using nothrow_aligned_new = void *(size_t, std::align_val_t, const std::nothrow_t &) noexcept;

constexpr size_t min_align = 16;
constexpr size_t plain = 0; /* in place of an alignment: none was asked for */

/* A function of the runtime that only the caller's object sees. */
template <class Function> Function *find(const void *caller, const char *symbol) {
    return reinterpret_cast<Function *>(hak_cxx_runtime_find(caller, symbol));
}

/* hak_malloc() has a hit in the thread's cache inlined; BigCache files blocks over 1 MiB under who asked. */
void *allocate(size_t size, size_t alignment, const void *caller) {
    constexpr size_t large = static_cast<size_t>(1) << 20;
    if (alignment == plain && __builtin_expect(size <= large, 1)) return hak_malloc(size);
    if ((alignment & (alignment - 1)) != 0) return nullptr;
    return hak_alloc(size, alignment == plain ? min_align : alignment, false, reinterpret_cast<uintptr_t>(caller));
}

/* Only the checked build has a use for the operator's name and for the size; the other has the fast path of free. */
void release(void *ptr, const char *function) {
    if (HAK_CHECKED) hak_release(ptr, function);
    else hak_free(ptr);
}
void release_aligned(void *ptr, size_t alignment, const char *function) {
    if (HAK_CHECKED) hak_release_aligned(ptr, alignment, function);
    else hak_free(ptr);
}
void release(void *ptr, size_t size, size_t alignment, const char *function) {
    if (HAK_CHECKED) hak_release_sized(ptr, size, alignment, function);
    else hak_free(ptr);
}

[[noreturn]] void fail(size_t size, const void *caller) {
    if (hak_cxx_runtime_can_throw()) throw std::bad_alloc();
    auto *thrower = find<void()>(caller, "_ZSt17__throw_bad_allocv");
    if (thrower != nullptr) thrower();
    hak_cxx_runtime_die(size);
}

/* No memory: asks the new_handler for some until there is, or none is set, or it throws. Nothing here needs to be
 * cleaned up when it does, so this needs no personality routine either. */
COLD void *allocate_slow(size_t size, size_t alignment, const void *caller) {
    bool possible = (alignment & (alignment - 1)) == 0;
    auto *getter = hak_cxx_runtime_get_new_handler();
    if (getter == nullptr) getter = find<get_handler>(caller, "_ZSt15get_new_handlerv");
    while (possible) {
        std::new_handler handler = getter != nullptr ? getter() : nullptr;
        if (handler == nullptr) break;
        handler();
        void *ptr = allocate(size, alignment, caller);
        if (ptr != nullptr) return ptr;
    }
    fail(size, caller);
}

/* The nothrow forms where there is no memory. A plug-in's runtime catches for us: its own nothrow form calls our
 * throwing one. Without any runtime nobody can have set a handler. */
COLD void *allocate_nothrow_slow(size_t size, size_t alignment, const void *caller) {
    if (hak_cxx_runtime_can_catch()) {
        try {
            return allocate_slow(size, alignment, caller);
        } catch (...) {
            return nullptr;
        }
    }
    if (alignment == plain) {
        nothrow_new *ours = &::operator new;
        auto *theirs = find<nothrow_new>(caller, "_ZnwmRKSt9nothrow_t");
        return theirs != nullptr && theirs != ours ? theirs(size, std::nothrow_t()) : nullptr;
    }
    nothrow_aligned_new *ours = &::operator new;
    auto *theirs = find<nothrow_aligned_new>(caller, "_ZnwmSt11align_val_tRKSt9nothrow_t");
    return theirs != nullptr && theirs != ours
               ? theirs(size, static_cast<std::align_val_t>(alignment), std::nothrow_t())
               : nullptr;
}

/* Whether the forms that others derive from are still ours. */
bool new_is_ours() { return static_cast<void *(*)(size_t)>(&::operator new) == &hak_operator_new; }
bool new_array_is_ours() {
    return static_cast<void *(*)(size_t)>(&::operator new[]) == &hak_operator_new_array && new_is_ours();
}
bool new_aligned_is_ours() {
    return static_cast<void *(*)(size_t, std::align_val_t)>(&::operator new) == &hak_operator_new_aligned;
}
bool new_array_aligned_is_ours() {
    return static_cast<void *(*)(size_t, std::align_val_t)>(&::operator new[]) == &hak_operator_new_array_aligned &&
           new_aligned_is_ours();
}
bool delete_is_ours() { return static_cast<void (*)(void *)>(&::operator delete) == &hak_operator_delete; }
bool delete_array_is_ours() {
    return static_cast<void (*)(void *)>(&::operator delete[]) == &hak_operator_delete_array && delete_is_ours();
}
bool delete_aligned_is_ours() {
    return static_cast<void (*)(void *, std::align_val_t)>(&::operator delete) == &hak_operator_delete_aligned;
}
bool delete_array_aligned_is_ours() {
    return static_cast<void (*)(void *, std::align_val_t)>(&::operator delete[]) ==
               &hak_operator_delete_array_aligned &&
           delete_aligned_is_ours();
}

void *allocate_nothrow(size_t size, size_t alignment, const void *caller) {
    void *ptr = allocate(size, alignment, caller);
    return ptr != nullptr ? ptr : allocate_nothrow_slow(size, alignment, caller);
}

size_t number(std::align_val_t alignment) { return static_cast<size_t>(alignment); }

} // namespace

/* ---- the forms that others derive from ------------------------------------------------------------------- */

/* Whatever operator new has no block at hand for. */
void *hak_operator_new_slow(size_t size, uintptr_t site) {
    const void *caller = reinterpret_cast<const void *>(site);
    void *ptr = allocate(size, plain, caller);
    return __builtin_expect(ptr != nullptr, 1) ? ptr : allocate_slow(size, plain, caller);
}
void *hak_operator_new_aligned(size_t size, std::align_val_t alignment) {
    void *ptr = allocate(size, number(alignment), CALLER);
    return __builtin_expect(ptr != nullptr, 1) ? ptr : allocate_slow(size, number(alignment), CALLER);
}
void *hak_operator_new_array(size_t size) { return ::operator new(size); }
void *hak_operator_new_array_aligned(size_t size, std::align_val_t alignment) {
    return ::operator new(size, alignment);
}
void hak_operator_delete(void *ptr) noexcept { release(ptr, "operator delete"); }
void hak_operator_delete_aligned(void *ptr, std::align_val_t alignment) noexcept {
    release_aligned(ptr, number(alignment), "operator delete");
}
void hak_operator_delete_array(void *ptr) noexcept {
    if (delete_is_ours()) release(ptr, "operator delete[]");
    else ::operator delete(ptr);
}
void hak_operator_delete_array_aligned(void *ptr, std::align_val_t alignment) noexcept {
    if (delete_aligned_is_ours()) release_aligned(ptr, number(alignment), "operator delete[]");
    else ::operator delete(ptr, alignment);
}

/* ---- nothrow ---------------------------------------------------------------------------------------------- */

EXPORT void *operator new(size_t size, const std::nothrow_t &) noexcept {
    if (new_is_ours()) return allocate_nothrow(size, plain, CALLER);
    try {
        return ::operator new(size);
    } catch (...) {
        return nullptr;
    }
}

EXPORT void *operator new[](size_t size, const std::nothrow_t &) noexcept {
    if (new_array_is_ours()) return allocate_nothrow(size, plain, CALLER);
    try {
        return ::operator new[](size);
    } catch (...) {
        return nullptr;
    }
}

EXPORT void *operator new(size_t size, std::align_val_t alignment, const std::nothrow_t &) noexcept {
    if (new_aligned_is_ours()) return allocate_nothrow(size, number(alignment), CALLER);
    try {
        return ::operator new(size, alignment);
    } catch (...) {
        return nullptr;
    }
}

EXPORT void *operator new[](size_t size, std::align_val_t alignment, const std::nothrow_t &) noexcept {
    if (new_array_aligned_is_ours()) return allocate_nothrow(size, number(alignment), CALLER);
    try {
        return ::operator new[](size, alignment);
    } catch (...) {
        return nullptr;
    }
}

EXPORT void operator delete(void *ptr, const std::nothrow_t &) noexcept { ::operator delete(ptr); }
EXPORT void operator delete[](void *ptr, const std::nothrow_t &) noexcept { ::operator delete[](ptr); }
EXPORT void operator delete(void *ptr, std::align_val_t alignment, const std::nothrow_t &) noexcept {
    ::operator delete(ptr, alignment);
}
EXPORT void operator delete[](void *ptr, std::align_val_t alignment, const std::nothrow_t &) noexcept {
    ::operator delete[](ptr, alignment);
}

/* ---- sized: the size is checked in the checked build, and of no use to a replacement ------------------------ */

EXPORT void operator delete(void *ptr, size_t size) noexcept {
    if (delete_is_ours()) release(ptr, size, min_align, "operator delete");
    else ::operator delete(ptr);
}
EXPORT void operator delete[](void *ptr, size_t size) noexcept {
    if (delete_array_is_ours()) release(ptr, size, min_align, "operator delete[]");
    else ::operator delete[](ptr);
}
EXPORT void operator delete(void *ptr, size_t size, std::align_val_t alignment) noexcept {
    if (delete_aligned_is_ours()) release(ptr, size, number(alignment), "operator delete");
    else ::operator delete(ptr, alignment);
}
EXPORT void operator delete[](void *ptr, size_t size, std::align_val_t alignment) noexcept {
    if (delete_array_aligned_is_ours()) release(ptr, size, number(alignment), "operator delete[]");
    else ::operator delete[](ptr, alignment);
}

#endif
