/* The threads back-end: a system thread for each virtual one. The turn is a word per thread and a raw futex, neither of
 * which ThreadSanitizer sees: a hand-over by any primitive that it knows would order everything and hide every race.
 * Not compiled with ThreadSanitizer. */
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "engine.h"

static int turn[SCHED_THREADS_MAX + 1];
static pthread_t threads[SCHED_THREADS_MAX];

static long raw_futex(int *word, int operation, int value) {
    long result;
#if defined(__x86_64__)
    register long timeout __asm__("r10") = 0;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(SYS_futex), "D"(word), "S"(operation), "d"(value), "r"(timeout)
                     : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = SYS_futex;
    register long x0 __asm__("x0") = (long)word;
    register long x1 __asm__("x1") = operation;
    register long x2 __asm__("x2") = value;
    register long x3 __asm__("x3") = 0;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    result = x0;
#else
#error "a raw system call is needed here"
#endif
    return result;
}

static void give_turn(unsigned to) {
    __atomic_store_n(&turn[to], 1, __ATOMIC_SEQ_CST);
    raw_futex(&turn[to], FUTEX_WAKE_PRIVATE, 1);
}

static void await_turn(unsigned self) {
    while (__atomic_load_n(&turn[self], __ATOMIC_SEQ_CST) == 0) raw_futex(&turn[self], FUTEX_WAIT_PRIVATE, 0);
    __atomic_store_n(&turn[self], 0, __ATOMIC_SEQ_CST);
}

static void *thread_main(void *arg) {
    unsigned self = (unsigned)(uintptr_t)arg;
    await_turn(self);
    engine_thread_main(self);
    return NULL;
}

static void start(unsigned count) {
    for (unsigned i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, thread_main, (void *)(uintptr_t)i) != 0)
            sched_finding("no thread could be started");
}

static void hand_over(unsigned from, unsigned to) {
    give_turn(to);
    await_turn(from);
}

static void leave(unsigned from, unsigned to) {
    (void)from;
    give_turn(to);
}

static void finish(unsigned count) {
    for (unsigned i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

const struct engine_backend engine_threads = {.start = start, .hand_over = hand_over, .leave = leave, .finish = finish};
