# valgrind: Memcheck, told by client requests where blocks begin and end.
# Proves: on the tested paths, no use of free, foreign or uninitialised memory, no lost block, in the machine code
#   that gcc really made (no instrumentation by the compiler).
# Does not prove: races (Memcheck runs one thread at a time).
valgrind_CC       := gcc
valgrind_CXX      := g++
valgrind_SWITCHES := HAK_DEBUG=1 HAK_VALGRIND=1 HAK_TEST=1
valgrind_FLAGS    := -O1 -fno-omit-frame-pointer
valgrind_LDFLAGS  :=
valgrind_ENV      :=
valgrind_WRAP     := valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --fair-sched=yes \
                     --suppressions=$(CURDIR)/sanitizer/valgrind.supp
valgrind_KINDS    := api
