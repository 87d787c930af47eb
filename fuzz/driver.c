/* Replays files through a target, without a fuzzer and with any compiler: TARGET FILE_OR_DIRECTORY... ("-": standard
 * input). Says which file comes next, so that the last line names the one that fails. Each file is copied to a buffer
 * of its own size, so that a tool sees a read behind its end. A timer interrupts the target every millisecond, as
 * libFuzzer's does every 13 seconds: a system call in which its first thread waits ends with EINTR now and then. */
#include "base/config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

static unsigned replayed;

_Noreturn static void give_up(const char *path) {
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    exit(2);
}

/* Reads all of `fd`; the caller frees it. */
static uint8_t *read_all(int fd, const char *path, size_t *bytes) {
    size_t room = 4096, used = 0;
    uint8_t *data = malloc(room);
    if (data == NULL) give_up(path);
    for (;;) {
        ssize_t n = read(fd, data + used, room - used);
        if (n < 0) give_up(path);
        if (n == 0) break;
        used += (size_t)n;
        if (used == room && (data = realloc(data, room *= 2)) == NULL) give_up(path);
    }
    *bytes = used;
    if ((data = realloc(data, used + (used == 0))) == NULL) give_up(path);
    return data;
}

static void on_alarm(int number) { (void)number; }

/* Not under ThreadSanitizer: it runs handlers in the middle of pthread_join, where the C library frees the stack of the
 * thread that ended, and then waits for the lock of its own that the free holds. */
static void set_timer(suseconds_t microseconds) {
    const struct itimerval timer = {.it_interval.tv_usec = microseconds, .it_value.tv_usec = microseconds};
    const struct sigaction action = {.sa_handler = on_alarm}; /* no SA_RESTART */
    if (HAK_TSAN) return;
    if (sigaction(SIGALRM, &action, NULL) != 0 || setitimer(ITIMER_REAL, &timer, NULL) != 0) give_up("SIGALRM");
}

static void replay(int fd, const char *path) {
    size_t bytes;
    uint8_t *data = read_all(fd, path, &bytes);
    printf("%s\n", path);
    fflush(stdout);
    set_timer(1000);
    LLVMFuzzerTestOneInput(data, bytes);
    set_timer(0);
    free(data);
    replayed++;
}

static void replay_path(const char *path);

static int is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static void replay_directory(const char *path) {
    struct dirent **entries;
    int count = scandir(path, &entries, is_visible, alphasort);
    if (count < 0) give_up(path);
    for (int i = 0; i < count; i++) {
        char inside[4096];
        snprintf(inside, sizeof inside, "%s/%s", path, entries[i]->d_name);
        replay_path(inside);
        free(entries[i]);
    }
    free(entries);
}

static void replay_path(const char *path) {
    struct stat status;
    int fd = strcmp(path, "-") == 0 ? dup(0) : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0) give_up(path);
    if (S_ISDIR(status.st_mode)) replay_directory(path);
    else replay(fd, path);
    close(fd);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s FILE_OR_DIRECTORY...\n", argv[0]);
        return 2;
    }
    if (LLVMFuzzerInitialize != NULL) LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) replay_path(argv[i]);
    printf("%u inputs\n", replayed);
    return 0;
}
