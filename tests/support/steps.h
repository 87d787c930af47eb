/* A thread that runs step by step (x86's trap flag): after each instruction it gets SIGTRAP. */
#ifndef TESTS_SUPPORT_STEPS_H
#define TESTS_SUPPORT_STEPS_H

#if defined(__x86_64__) && !(HAK_ASAN || HAK_TSAN || HAK_MSAN || HAK_VALGRIND)
#define CAN_STEP 1
#define set_trap_flag() __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc")
#define clear_trap_flag() __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc")
#else
#define CAN_STEP 0 /* another machine; or the tool has a say in signals and instructions */
#define set_trap_flag() ((void)0)
#define clear_trap_flag() ((void)0)
#endif

#endif
