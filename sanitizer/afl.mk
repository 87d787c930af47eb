# afl: what AFL++ drives (make fuzz-afl): assertions, no sanitizer, fast. Its persistent loop is in libAFLDriver.
# Proves: on the inputs that the fuzzer comes upon, that the invariants and the targets' models hold.
# Does not prove: anything about memory errors that nothing asserts; the secondary instance runs aflasan.
afl_CC       := AFL_QUIET=1 AFL_LLVM_DENYLIST=sanitizer/coverage.ignore afl-clang-fast
afl_CXX      := AFL_QUIET=1 AFL_LLVM_DENYLIST=sanitizer/coverage.ignore afl-clang-fast++
afl_SWITCHES := HAK_DEBUG=1 HAK_TEST=1
afl_FLAGS    := -O2 -fno-omit-frame-pointer
afl_LDFLAGS  :=
afl_ENV      :=
afl_WRAP     :=
afl_KINDS    :=
