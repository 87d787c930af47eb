/* What is linked with hakmem instead of running on a preload library. The tests of static linking build it in many
 * ways; compiled here it shows that it is C that every compiler takes. Prints "ok", or what is wrong. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Weak, so that the program links without hakmem too and can say so. */
extern int hak_is_owned(const void *block) __attribute__((weak));

/* Volatile, so that the compiler cannot remove pairs of malloc and free. */
static void *(*volatile allocate)(size_t) = malloc;
static void (*volatile release)(void *) = free;

static const char *owned(const void *block) {
    return hak_is_owned == NULL ? "hakmem is not linked" : hak_is_owned(block) ? NULL : "the block is not hakmem's";
}

static const char *every_size(void) {
    for (size_t size = 1; size < 8000000; size = size * 3 + 1) {
        char *block = allocate(size);
        if (block == NULL) {
            return "malloc failed";
        }
        const char *wrong = owned(block);
        memset(block, 1, size);
        release(block);
        if (wrong != NULL) {
            return wrong;
        }
    }
    return NULL;
}

/* Blocks of the C library itself come from hakmem as well. */
static const char *library_blocks(void) {
    char *copy = strdup("a string of the C library");
    const char *wrong = owned(copy);
    free(copy);
    return wrong;
}

static void *thread_body(void *arg) {
    *(const char **)arg = every_size();
    return NULL;
}

static const char *threads(void) {
    pthread_t thread[4];
    const char *wrong[4] = {NULL, NULL, NULL, NULL};
    for (int i = 0; i < 4; ++i) {
        if (pthread_create(&thread[i], NULL, thread_body, &wrong[i]) != 0) {
            return "pthread_create failed";
        }
    }
    for (int i = 0; i < 4; ++i) {
        pthread_join(thread[i], NULL);
    }
    for (int i = 0; i < 4; ++i) {
        if (wrong[i] != NULL) {
            return wrong[i];
        }
    }
    return NULL;
}

static const char *forked(void) {
    int status = 0;
    void *before = allocate(100);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(120);
        release(before);
        _exit(every_size() == NULL && threads() == NULL ? 0 : 1);
    }
    release(before);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        return "the forked child failed";
    }
    return NULL;
}

int main(void) {
    static const char *(*const steps[])(void) = {every_size, library_blocks, threads, forked};
    alarm(120);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); ++i) {
        const char *wrong = steps[i]();
        if (wrong != NULL) {
            puts(wrong);
            return 1;
        }
    }
    puts("ok");
    return 0;
}
