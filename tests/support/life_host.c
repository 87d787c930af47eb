/* A program that loads hakmem while it runs, although it does not run on it:
 *   life_host cycle LIBRARY COUNT     loads a library with hakmem inside, uses it in two threads, unloads it, and lets
 * the other thread end only then; COUNT times, without growth life_host crowded HAKMEM FILES... loads all FILES, which
 * stay, then libhakmem.so, and uses it in threads Prints "ok", or what is wrong. */
#include "life.h"

static pthread_barrier_t gate;
static size_t (*work)(void);

static void *user_body(void *arg) {
    *(size_t *)arg = work();
    pthread_barrier_wait(&gate); /* used */
    pthread_barrier_wait(&gate); /* unloaded */
    return NULL;
}

static const char *cycle_once(const char *path) {
    pthread_t user;
    size_t right = 0;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return dlerror();
    }
    *(void **)&work = dlsym(library, "life_embedded_work");
    if (work == NULL || pthread_create(&user, NULL, user_body, &right) != 0) {
        return "no function or no thread";
    }
    size_t right_here = work();
    pthread_barrier_wait(&gate);
    dlclose(library);
    pthread_barrier_wait(&gate);
    pthread_join(user, NULL);
    return right == 8 && right_here == 8 ? NULL : "a block was not served";
}

static const char *cycle(const char *path, long count) {
    /* Freed memory that is kept for reuse comes and goes with its age, and each layer may keep 4 MiB; 2,000 rounds show
     * a leak of 4 KiB each. */
    enum { SETTLE = 20, MAX_MAPPINGS = 10, MAX_RSS = 8 * LIFE_MIB };
    size_t rss = 0;
    size_t mappings = 0;
    pthread_barrier_init(&gate, NULL, 2);
    for (long i = 0; i < count; ++i) {
        const char *wrong = cycle_once(path);
        if (wrong != NULL) {
            return wrong;
        }
        rss = i == SETTLE ? life_rss() : rss;
        mappings = i == SETTLE ? life_mappings() : mappings;
        if (i > SETTLE &&
            (life_growth(rss, life_rss()) >= MAX_RSS || life_growth(mappings, life_mappings()) >= MAX_MAPPINGS)) {
            printf("# after %ld rounds rss grew by %zu KiB, mappings by %zu\n", i, life_growth(rss, life_rss()) >> 10,
                   life_growth(mappings, life_mappings()));
            return "unloading leaks";
        }
    }
    return NULL;
}

static void *(*late_malloc)(size_t);
static void (*late_free)(void *);

static void *late_body(void *arg) {
    (void)arg;
    for (size_t size = 1; size < 4000000; size = size * 2 + 1) {
        char *block = late_malloc(size);
        if (block == NULL) {
            return (void *)1;
        }
        memset(block, 7, size);
        late_free(block);
    }
    return NULL;
}

static const char *crowded(const char *hakmem, char **files) {
    for (; *files != NULL; ++files) {
        if (dlopen(*files, RTLD_NOW) == NULL) {
            return dlerror();
        }
    }
    void *library = dlopen(hakmem, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return dlerror();
    }
    *(void **)&late_malloc = dlsym(library, "hak_malloc");
    *(void **)&late_free = dlsym(library, "hak_free");
    pthread_t threads[4];
    void *wrong = late_body(NULL);
    life_start(threads, 4, late_body, NULL);
    for (int i = 0; i < 4; ++i) {
        void *result = NULL;
        pthread_join(threads[i], &result);
        wrong = result != NULL ? result : wrong;
    }
    dlclose(library);
    return wrong == NULL ? NULL : "a block was not served";
}

int main(int argc, char **argv) {
    alarm(LIFE_HANG_SECONDS);
    const char *wrong = argc < 4                          ? "too few arguments"
                        : strcmp(argv[1], "crowded") == 0 ? crowded(argv[2], argv + 3)
                                                          : cycle(argv[2], strtol(argv[3], NULL, 10));
    puts(wrong == NULL ? "ok" : wrong);
    return wrong == NULL ? 0 : 1;
}
