/* A user's program with the mistake that its argument names: what do the memory tools say of it? It knows only the
 * standard names, and is compiled for each tool by tests/reports.bats. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* volatile: no compiler may know better than the tool at run time. */
static volatile char sink;
static char *volatile shared;

__attribute__((noinline)) static char *make_block(size_t bytes) {
    char *block = malloc(bytes);
    if (block == NULL) exit(3);
    memset(block, 1, bytes);
    return block;
}

__attribute__((noinline)) static void drop_block(char *block) { free(block); }

static void overflow(size_t bytes) { ((volatile char *)make_block(bytes))[bytes] = 1; }

/* But for the quarantine, somebody else would have the block by then. */
static void use_after_free(size_t bytes) {
    static char *volatile others[100];
    shared = make_block(bytes);
    drop_block(shared);
    for (int i = 0; i < 100; i++) others[i] = make_block(bytes);
    sink = shared[bytes / 2];
    for (int i = 0; i < 100; i++) drop_block(others[i]);
}

static void double_free(size_t bytes) {
    shared = make_block(bytes);
    drop_block(shared);
    drop_block(shared);
}

static void uninitialised(size_t bytes) {
    drop_block(make_block(bytes));
    shared = malloc(bytes);
    if (shared[bytes / 2] == 17) sink = 1;
}

static void leak(size_t bytes) {
    drop_block(make_block(bytes));
    make_block(bytes)[0] = 2;
}

/* Three blocks in a ring, and no way in. */
static void ring(size_t bytes) {
    char **a = (char **)make_block(bytes), **b = (char **)make_block(bytes), **c = (char **)make_block(bytes);
    a[0] = (char *)b;
    b[0] = (char *)c;
    c[0] = (char *)a;
}

static void reachable(size_t bytes) {
    char **first = (char **)make_block(bytes);
    first[0] = make_block(bytes);
    shared = (char *)first;
}

static void *use(void *block) {
    for (int i = 0; i < 1000; i++) ((volatile char *)block)[0] ^= 1;
    return NULL;
}

static void race(size_t bytes) {
    pthread_t threads[2];
    shared = make_block(bytes);
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, use, shared);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    drop_block(shared);
}

static void *use_and_drop(void *block) {
    use(block);
    drop_block(block);
    return NULL;
}

/* Correct: blocks change hands through free and malloc alone. */
static void hand_over(size_t bytes) {
    for (int i = 0; i < 20; i++) {
        pthread_t threads[2];
        for (int t = 0; t < 2; t++) pthread_create(&threads[t], NULL, use_and_drop, make_block(bytes));
        use_and_drop(make_block(bytes));
        for (int t = 0; t < 2; t++) pthread_join(threads[t], NULL);
    }
}

static void correct(size_t bytes) {
    char *block = make_block(bytes), *copy = strdup("copy");
    block = realloc(block, 2 * bytes);
    if (block == NULL || copy == NULL || block[bytes - 1] != 1) exit(3);
    free(copy);
    drop_block(block);
    hand_over(bytes);
}

static const struct {
    const char *name;
    void (*make)(size_t bytes);
} mistakes[] = {
    {"overflow", overflow},
    {"use_after_free", use_after_free},
    {"double_free", double_free},
    {"uninitialised", uninitialised},
    {"leak", leak},
    {"ring", ring},
    {"reachable", reachable},
    {"race", race},
    {"hand_over", hand_over},
    {"correct", correct},
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc == 3 && i < sizeof mistakes / sizeof *mistakes; i++)
        if (strcmp(argv[1], mistakes[i].name) == 0) {
            mistakes[i].make(strtoul(argv[2], NULL, 10));
            return 0;
        }
    return 2;
}
