/* What the tests of the L2.5 pool and of BigCache share: the lines that were logged, and whitebox.h. */
#ifndef TESTS_SUPPORT_STORES_H
#define TESTS_SUPPORT_STORES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/whitebox.h"

/* ---- what goes to stderr between these two ---- */

static int stderr_saved = -1, stderr_file;

static UNUSED void capture_stderr(void) {
    stderr_saved = dup(2);
    stderr_file = memfd_create("stderr", 0);
    assert_true(stderr_file >= 0 && dup2(stderr_file, 2) == 2);
}

static UNUSED void captured_stderr(char *text, size_t size) {
    ssize_t length = pread(stderr_file, text, size - 1, 0);
    text[length < 0 ? 0 : length] = '\0';
    dup2(stderr_saved, 2);
    close(stderr_saved);
    close(stderr_file);
    stderr_saved = -1;
}

/* For a teardown: a test that failed in between still gets to say why. */
static UNUSED void end_capture(void) {
    char text[4096];
    if (stderr_saved < 0) {
        return;
    }
    captured_stderr(text, sizeof text);
    fputs(text, stderr);
}

#endif
