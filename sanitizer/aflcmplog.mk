# aflcmplog: tells AFL++ what is compared with what, for targets whose input is text or has magic numbers.
# Proves nothing by itself.
aflcmplog_CC       := AFL_QUIET=1 AFL_LLVM_DENYLIST=sanitizer/coverage.ignore AFL_LLVM_CMPLOG=1 afl-clang-fast
aflcmplog_CXX      := AFL_QUIET=1 AFL_LLVM_DENYLIST=sanitizer/coverage.ignore AFL_LLVM_CMPLOG=1 afl-clang-fast++
aflcmplog_SWITCHES := HAK_DEBUG=1 HAK_TEST=1
aflcmplog_FLAGS    := -O2 -fno-omit-frame-pointer
aflcmplog_LDFLAGS  :=
aflcmplog_ENV      :=
aflcmplog_WRAP     :=
aflcmplog_KINDS    :=
