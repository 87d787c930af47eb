# schedasan: the scheduler of `sched` under AddressSanitizer and UndefinedBehaviorSanitizer.
# Proves: as `sched`, and that no schedule tried touches memory that is free.
# Does not prove: anything about weak memory orders (schedtsan).
schedasan_CC       := clang-14
schedasan_CXX      := clang++-14
schedasan_SWITCHES := HAK_DEBUG=1 HAK_TEST=1 HAK_ASAN=1 HAK_SCHED=1
schedasan_FLAGS    := -O1 -fno-omit-frame-pointer -Wno-shadow -Wno-conversion -Wno-sign-conversion -fsanitize=address,undefined -fno-sanitize-recover=all
schedasan_LDFLAGS  := -fsanitize=address,undefined
