/* build: -shared -fPIC -pthread */
/* A C++ library for blackbox_cxx_threads: objects whose destructors free at the end of a thread and of the process. */
#include <atomic>
#include <cstdlib>
#include <future>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

std::atomic<long> alive{0};

/* Fills itself through every usual container, and is missed by `alive` if its destructor does not run. */
class Hoard {
  public:
    Hoard() : numbers(1000, 7), large(200000, 'x') {
        for (int i = 0; i < 100; ++i) {
            names[i] = std::string(static_cast<size_t>(i) * 5 + 1, 'n');
        }
        alive.fetch_add(1);
    }
    ~Hoard() {
        std::vector<std::unique_ptr<std::string>> last;
        for (auto &entry : names) {
            last.push_back(std::make_unique<std::string>(entry.second + "at the end"));
        }
        alive.fetch_sub(1);
    }
    Hoard(const Hoard &) = delete;
    Hoard &operator=(const Hoard &) = delete;
    long sum() const { return numbers.at(999) + static_cast<long>(names.at(99).size()); }

  private:
    std::map<int, std::string> names;
    std::vector<long> numbers;
    std::string large;
};

thread_local Hoard hoard_of_thread;
Hoard hoard_of_process;

long thrown_and_caught() {
    try {
        throw std::runtime_error(std::string(300, 'e'));
    } catch (const std::exception &error) {
        return static_cast<long>(std::string(error.what()).size());
    }
}

} // namespace

extern "C" {
long life_cxx_thread_locals(int threads);
long life_cxx_async(int tasks);

/* Threads with thread-local objects, four at a time: the number of objects left, which must be 0. */
long life_cxx_thread_locals(int threads) {
    long before = alive.load();
    std::atomic<long> wrong{0};
    for (int done = 0; done < threads; done += 4) {
        std::vector<std::thread> group;
        for (int i = 0; i < 4; ++i) {
            group.emplace_back([&wrong] {
                if (hoard_of_thread.sum() != 503 || thrown_and_caught() != 300) {
                    ++wrong;
                }
            });
        }
        for (auto &thread : group) {
            thread.join();
        }
    }
    return alive.load() - before + wrong.load();
}

/* Tasks whose results cross threads: 0 if each result is right. */
long life_cxx_async(int tasks) {
    long wrong = 0;
    for (int done = 0; done < tasks; done += 8) {
        std::vector<std::future<std::string>> results;
        for (int i = 0; i < 8; ++i) {
            results.push_back(
                std::async(std::launch::async, [i] { return std::string(static_cast<size_t>(100 * i), 'r'); }));
        }
        for (size_t i = 0; i < 8; ++i) {
            wrong += results[i].get().size() == 100 * i ? 0 : 1;
        }
    }
    return wrong;
}
}
