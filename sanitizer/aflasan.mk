# aflasan: the same for the secondary instance of AFL++: ASan and UBSan.
# Proves and does not prove: as asan, on the inputs that the fuzzer comes upon.
# abort_on_error is what AFL++ wants; it is poison for libFuzzer with TSan, which is not here.
aflasan_CC       := AFL_QUIET=1 AFL_LLVM_DENYLIST=sanitizer/coverage.ignore AFL_USE_ASAN=1 AFL_USE_UBSAN=1 afl-clang-fast
aflasan_CXX      := AFL_QUIET=1 AFL_LLVM_DENYLIST=sanitizer/coverage.ignore AFL_USE_ASAN=1 AFL_USE_UBSAN=1 afl-clang-fast++
aflasan_SWITCHES := HAK_DEBUG=1 HAK_ASAN=1 HAK_TEST=1
aflasan_FLAGS    := -O1 -fno-omit-frame-pointer
aflasan_LDFLAGS  :=
aflasan_ENV      := ASAN_OPTIONS=abort_on_error=1:symbolize=0:detect_leaks=0
aflasan_WRAP     :=
aflasan_KINDS    :=
