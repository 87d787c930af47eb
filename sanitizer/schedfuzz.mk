# schedfuzz: what libFuzzer drives to choose schedules (fuzz/sched/fuzz_schedule.c): schedasan with coverage counters.
# Proves and does not prove: as schedasan, on the inputs that the fuzzer comes upon.
schedfuzz_CC       := clang-14
schedfuzz_CXX      := clang++-14
schedfuzz_SWITCHES := HAK_DEBUG=1 HAK_TEST=1 HAK_ASAN=1 HAK_SCHED=1
schedfuzz_FLAGS    := -O1 -fno-omit-frame-pointer -Wno-shadow -Wno-conversion -Wno-sign-conversion \
                      -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fsanitize-coverage-ignorelist=sanitizer/coverage.ignore
schedfuzz_LDFLAGS  := -fsanitize=address,undefined
schedfuzz_ENV      := ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:external_symbolizer_path=/usr/bin/llvm-symbolizer-14 \
                      UBSAN_OPTIONS=print_stacktrace=1
