# sched: every atomic operation and system call is a scheduling point of a deterministic scheduler (fuzz/sched/).
# Proves: that the kernels hold under every schedule that was tried; all of them up to two preemptions for each.
# Does not prove: anything about weak memory orders (schedtsan), nor about interleavings of plain accesses in between.
sched_CC       := gcc
sched_CXX      := g++
sched_SWITCHES := HAK_DEBUG=1 HAK_TEST=1 HAK_SCHED=1
sched_FLAGS    := -O2 -fno-omit-frame-pointer -Wno-shadow -Wno-conversion -Wno-sign-conversion
sched_LDFLAGS  :=
