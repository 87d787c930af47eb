# schedtsan: the scheduler of `sched` with a system thread for each virtual one, under ThreadSanitizer, which does not see
# how the turn is handed on.
# Proves: that the allocator orders by its own means what one thread writes and another reads, in each schedule tried.
# Does not prove: anything about schedules that were not tried.
schedtsan_CC       := clang-14
schedtsan_CXX      := clang++-14
schedtsan_SWITCHES := HAK_DEBUG=1 HAK_TEST=1 HAK_TSAN=1 HAK_SCHED=1
schedtsan_FLAGS    := -O1 -fno-omit-frame-pointer -Wno-shadow -Wno-conversion -Wno-sign-conversion -fsanitize=thread
schedtsan_LDFLAGS  := -fsanitize=thread
