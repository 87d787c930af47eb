/* The fibers back-end: all virtual threads on the calling system thread, announced to AddressSanitizer. */
#include <sys/mman.h>

#include "engine.h"

#define STACK_BYTES (256UL << 10)

#if HAK_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
typedef void *fiber_context; /* the stack pointer */
#else
#include <ucontext.h>
typedef ucontext_t fiber_context;
#endif

static struct fiber {
    fiber_context context;
    void *stack;
    size_t stack_bytes;
    void *fake_stack; /* AddressSanitizer's */
} fibers[SCHED_THREADS_MAX + 1];

static void before_switch(struct fiber *from, const struct fiber *to, bool for_good) {
#if HAK_ASAN
    __sanitizer_start_switch_fiber(for_good ? NULL : &from->fake_stack, to->stack, to->stack_bytes);
#else
    (void)from, (void)to, (void)for_good;
#endif
}

/* `from` is the fiber that was left: the main one's stack is first learned here. */
static void after_switch(struct fiber *self, struct fiber *from) {
#if HAK_ASAN
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(self->fake_stack, &bottom, &bytes);
    if (from == &fibers[ENGINE_MAIN]) {
        from->stack = (void *)(uintptr_t)bottom;
        from->stack_bytes = bytes;
    }
#else
    (void)self, (void)from;
#endif
}

static unsigned left; /* the fiber that switched last */

static void enter(unsigned thread) {
    after_switch(&fibers[thread], &fibers[left]);
    engine_thread_main(thread);
}

#if defined(__x86_64__)
/* A switch of our own: swapcontext() makes two system calls. What a call must preserve is pushed, the stacks change
 * places, and what the other fiber had pushed is popped. */
__attribute__((naked, noinline)) static void swap_stacks(__attribute__((unused)) void **save,
                                                         __attribute__((unused)) void *load) {
    __asm__("push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
            "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
            "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret");
}
__attribute__((naked)) static void first_step(void) { __asm__("mov %ebx, %edi\n call *%r12"); }

static void prepare(struct fiber *fiber, unsigned thread) {
    void **top = (void **)((char *)fiber->stack + fiber->stack_bytes) - 2;
    *--top = (void *)(uintptr_t)first_step; /* where swap_stacks returns to */
    *--top = NULL;                          /* rbp */
    *--top = (void *)(uintptr_t)thread;     /* rbx */
    *--top = (void *)(uintptr_t)enter;      /* r12 */
    *--top = NULL;
    *--top = NULL;
    *--top = NULL;
    fiber->context = top;
}
static void swap(struct fiber *from, const struct fiber *to) { swap_stacks(&from->context, to->context); }
#else
static void prepare(struct fiber *fiber, unsigned thread) {
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = fiber->stack_bytes;
    fiber->context.uc_link = NULL;
    makecontext(&fiber->context, (void (*)(void))(uintptr_t)enter, 1, thread);
}
static void swap(struct fiber *from, const struct fiber *to) { swapcontext(&from->context, &to->context); }
#endif

static void start(unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        struct fiber *fiber = &fibers[i];
        if (fiber->stack == NULL) {
            fiber->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            fiber->stack_bytes = STACK_BYTES;
            if (fiber->stack == MAP_FAILED) sched_finding("no memory for a fiber's stack");
        }
        fiber->fake_stack = NULL;
        prepare(fiber, i);
    }
}

static void hand_over(unsigned from, unsigned to) {
    world_leave_thread(from);
    before_switch(&fibers[from], &fibers[to], false);
    left = from;
    swap(&fibers[from], &fibers[to]);
    after_switch(&fibers[from], &fibers[left]);
    world_enter_thread(from);
}

static void leave(unsigned from, unsigned to) {
    world_leave_thread(from);
    before_switch(&fibers[from], &fibers[to], true);
    left = from;
    swap(&fibers[from], &fibers[to]);
}

static void finish(unsigned count) { (void)count; }

const struct engine_backend engine_fibers = {.start = start, .hand_over = hand_over, .leave = leave, .finish = finish};
