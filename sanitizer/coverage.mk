# coverage: counts which lines and branches the tests execute (make coverage).
# Proves: that a line was never executed, so that no test can have checked it.
# Does not prove: that an executed line was checked.
coverage_CC       := gcc
coverage_CXX      := g++
coverage_SWITCHES := HAK_DEBUG=1 HAK_TEST=1
coverage_FLAGS    := -O0 --coverage -fprofile-update=atomic
coverage_LDFLAGS  := --coverage
coverage_ENV      :=
coverage_WRAP     :=
coverage_KINDS    := unit api
