# tsan: ThreadSanitizer.
# Proves: on the executions that the tests produce, that every pair of conflicting accesses is ordered by a lock
#   or an atomic (happens-before), and that locks are released by who took them.
# Does not prove: anything about interleavings that did not happen, nor about weaker orders than the executed
#   ones; stand-alone fences are invisible to it, which is why the source has none. Nor about the forked children of a
#   process with several threads: ThreadSanitizer looks away there, and ends a child that starts a thread.
CC_TSAN       ?= clang-19
tsan_CC       := $(CC_TSAN)
tsan_CXX      := $(subst gcc,g++,$(subst clang,clang++,$(CC_TSAN)))
tsan_SWITCHES := HAK_DEBUG=1 HAK_TSAN=1 HAK_TEST=1
tsan_FLAGS    := -O1 -fno-omit-frame-pointer -fsanitize=thread
tsan_LDFLAGS  := -fsanitize=thread
tsan_ENV      := TSAN_OPTIONS=halt_on_error=1:external_symbolizer_path=/usr/bin/llvm-symbolizer-14:second_deadlock_stack=1:suppressions=$(CURDIR)/sanitizer/tsan.supp
tsan_WRAP     :=
tsan_KINDS    := unit api
