/* The same in C++: the operators, too, are hakmem's when it is linked. Prints "ok". */
#include <cstddef>
#include <cstdio>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

extern "C" int hak_is_owned(const void *block) __attribute__((weak));

static bool owned(const void *block) { return hak_is_owned != nullptr && hak_is_owned(block) != 0; }

static bool refuses_with_bad_alloc() {
    volatile std::size_t too_much = static_cast<std::size_t>(PTRDIFF_MAX) - 4096;
    try {
        ::operator delete(::operator new(too_much));
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

int main() {
    bool all_owned = true;
    auto number = std::make_unique<int>(7);
    std::vector<std::string> words(1000, std::string(100, 'w'));
    std::thread([&all_owned] {
        std::string text(10000, 't');
        all_owned = owned(text.data());
    }).join();
    all_owned = all_owned && owned(number.get()) && owned(words.data()) && owned(words[999].data());
    std::puts(!all_owned ? "a block is not hakmem's" : !refuses_with_bad_alloc() ? "no bad_alloc" : "ok");
    return all_owned ? 0 : 1;
}
