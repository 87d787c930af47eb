/* build: -rdynamic */
/* The system refuses: each call that hakmem makes of it, at each place of the source, with each error. A scenario runs
 * once to learn which places there are. Then it runs anew for each place and error, where the first call from there
 * fails, or all of them do: every request is met or refused with ENOMEM, and all is well again once the system is.
 * The places are compared with those in the machine code, so that a new call without a test fails here; the table goes
 * out as comments. */
#include "support/api_child.h"
#include "support/os_calls.h"

#include <linux/memfd.h>
#include <sys/wait.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* ---- the scenario, in a process of its own ---- */

#define must(condition) api_child_check(condition)

/* Whether requests may be refused. */
static bool may_fail(void) { return atomic_load(&os_page->phase) != OS_RECOVERY; }

static void *met_or_refused(void *ptr) {
    must(ptr != NULL || (may_fail() && errno == ENOMEM));
    if (ptr == NULL) atomic_fetch_add(&os_page->without_memory, 1);
    return ptr;
}

/* Each page of a block says whose it is. */
static void stamp(char *ptr, size_t bytes) {
    for (size_t at = 0; at + sizeof ptr <= bytes; at += 4096)
        memcpy(ptr + at, &(uintptr_t){(uintptr_t)bytes + at}, sizeof ptr);
}
static bool is_stamped(const char *ptr, size_t bytes, size_t upto) {
    for (size_t at = 0; at + sizeof ptr <= bytes && at + sizeof ptr <= upto; at += 4096)
        if (memcmp(ptr + at, &(uintptr_t){(uintptr_t)bytes + at}, sizeof ptr) != 0) return false;
    return true;
}
static bool is_zero(const char *ptr, size_t bytes) {
    return bytes == 0 || (ptr[0] == 0 && memcmp(ptr, ptr + 1, bytes - 1) == 0);
}

static void release(void *ptr) {
    errno = 4711;
    api.free(ptr);
    must(errno == 4711);
}

/* Takes a block through its life: it grows, shrinks, and keeps what was in it. */
static void one_block(size_t bytes) {
    char *ptr = met_or_refused(api.malloc(bytes));
    if (ptr == NULL) return;
    for (size_t now = bytes, i = 0; i < 3; i++) {
        size_t next = i == 2 ? bytes / 2 + 16 : now * 2;
        stamp(ptr, now);
        char *moved = met_or_refused(api.realloc(ptr, next));
        must(is_stamped(moved != NULL ? moved : ptr, now, next));
        if (moved == NULL) continue;
        ptr = moved;
        now = next;
    }
    release(ptr);
}

static const size_t sizes[] = {1, 16, 100, 1000, 3000, 20000, 40 * KIB, 300 * KIB, 3 * MIB / 2};

static void blocks_of_all_layers(void) {
    char *held[API_COUNT(sizes)];
    for (size_t i = 0; i < API_COUNT(sizes); i++) {
        held[i] = met_or_refused(api.calloc(1, sizes[i]));
        if (held[i] == NULL) continue;
        must(is_zero(held[i], sizes[i]));
        stamp(held[i], sizes[i]);
    }
    for (size_t i = 0; i < API_COUNT(sizes); i++) one_block(sizes[i]);
    for (size_t i = 0; i < API_COUNT(sizes); i++) {
        must(held[i] == NULL || is_stamped(held[i], sizes[i], sizes[i]));
        release(held[i]);
    }
    void *wide = NULL;
    int error = api.posix_memalign(&wide, 4 * MIB, 100);
    must(error == 0 || (error == ENOMEM && may_fail()));
    release(wide);
    api.malloc_trim(0);
}

/* The kernel lays mappings from above: the second cannot grow where it is, and a shrunk one can. */
static void pages_are_moved(void) {
    char *first = met_or_refused(api.malloc(4 * MIB)), *second = met_or_refused(api.malloc(5 * MIB));
    if (second != NULL) {
        stamp(second, 5 * MIB);
        char *moved = met_or_refused(api.realloc(second, 20 * MIB));
        must(is_stamped(moved != NULL ? moved : second, 5 * MIB, 5 * MIB));
        release(moved != NULL ? moved : second);
    }
    release(first);
}

/* Of 4 MiB in small blocks one stays: a superslab that was a huge page gives all back but a part. */
static void huge_pages_are_split(void) {
    static char *held[4000];
    for (size_t i = 0; i < API_COUNT(held); i++) held[i] = met_or_refused(api.malloc(1000));
    for (size_t i = 0; i < API_COUNT(held) - 1; i++) release(held[i]);
    api.malloc_trim(0);
    release(held[API_COUNT(held) - 1]);
}

static void *short_life(void *argument) {
    (void)argument;
    blocks_of_all_layers();
    return met_or_refused(api.malloc(100));
}

static void threads_come_and_go(void) {
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        void *left = NULL;
        int error = pthread_create(&thread, NULL, short_life, NULL);
        must(error == 0 || may_fail()); /* it asks for memory */
        if (error != 0) continue;
        must(pthread_join(thread, &left) == 0);
        release(left);
    }
}

static int in_a_child(void (*body)(void)) {
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        body();
        _exit(0);
    }
    must(pid > 0 && waitpid(pid, &status, 0) == pid);
    return status;
}

static char of_the_program[64];
static void free_of_the_program(void) { api.free(of_the_program + 16); }
static void free_of_the_stack(void) { api.free(__builtin_frame_address(0)); }
static void free_of_nobody(void) { api.free((void *)0x7eadbeef0000); }
static void free_of_another(void) {
    char *pages = (char *)os_call(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    api.free(pages + 16);
}

static void misuse_is_found_without_the_system(void) {
    must(WTERMSIG(in_a_child(free_of_the_program)) == SIGABRT);
    /* Where the map of the process cannot be read, nobody knows whose a pointer is: it is reported and left alone. */
    int of_stack = in_a_child(free_of_the_stack), of_nobody = in_a_child(free_of_nobody);
    must(of_stack == 0 ? may_fail() : WTERMSIG(of_stack) == SIGABRT);
    must(of_nobody == 0 ? may_fail() : WTERMSIG(of_nobody) == SIGABRT);
    int of_another = in_a_child(free_of_another);
    must(of_another == 0 || (may_fail() && WTERMSIG(of_another) == SIGABRT));
}

static void everything(void) {
    char *pin = met_or_refused(api.malloc(40 * KIB)); /* its chunk stays mapped, and what is free there is purged */
    blocks_of_all_layers();
    pages_are_moved();
    huge_pages_are_split();
    threads_come_and_go();
    must(in_a_child(blocks_of_all_layers) == 0);
    misuse_is_found_without_the_system();
    release(pin);
}

/* Its first request comes when the process is ending: see pthread_key_delete(). */
static void *late_thread(void *argument) {
    (void)argument;
    while (!atomic_load(&os_page->ends)) os_raw(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
    void *ptr = met_or_refused(api.malloc(100));
    pause();
    return ptr;
}

static int scenario(void) {
    must(os_the_page() != NULL);
    alarm(60); /* only a hang takes that long */
    api_bind_all(true);
    atomic_store(&os_page->phase, OS_MAIN);
    everything();
    atomic_store(&os_page->phase, OS_RECOVERY);
    blocks_of_all_layers();
    misuse_is_found_without_the_system();
    pthread_t thread;
    must(pthread_create(&thread, NULL, late_thread, NULL) == 0);
    atomic_store(&os_page->phase, OS_EXIT);
    exit(0);
}

/* ---- the machine code ---- */

/* The places that the library has. */
struct known {
    uint64_t place;
    char function[64], caller[64], source[64];
};
static struct known known[2 * OS_CALLS_SITES];
static size_t known_count;

static void read_known(void) {
    char command[4096];
    snprintf(command, sizeof command, "'%s/tests/support/os_call_sites.sh' '%s'", getenv("HAK_ROOT"),
             getenv("HAK_LIB"));
    FILE *list = popen(command, "r");
    assert_non_null(list);
    for (struct known *at = known;
         fscanf(list, "%lx %63s %63s %63s", &at->place, at->function, at->caller, at->source) == 4; at++)
        assert_true(++known_count < API_COUNT(known));
    assert_int_equal(pclose(list), 0);
    assert_true(known_count > 20);
}

static const struct known *known_at(uint64_t place) {
    for (size_t i = 0; i < known_count; i++)
        if (known[i].place == place) return &known[i];
    return NULL;
}

static bool was_reached(uint64_t place) {
    for (struct os_site *site = os_page->sites; atomic_load(&site->place) != 0; site++)
        if (atomic_load(&site->place) == place) return true;
    return false;
}

/* The compiler may have made two of one place of the source: it is enough that one was reached. */
static bool is_reached(const struct known *wanted) {
    for (size_t i = 0; i < known_count; i++)
        if (strcmp(known[i].source, wanted->source) == 0 && strcmp(known[i].function, wanted->function) == 0 &&
            was_reached(known[i].place))
            return true;
    return false;
}

/* What the library has, but the scenario cannot reach. */
static bool is_out_of_reach(const struct known *there) {
    bool for_guards = strcmp(there->function, "mprotect") == 0;            /* of the checked build */
    bool for_plugins = strcmp(there->caller, "hak_sys_program_base") == 0; /* with hakmem inside: embedded.c */
    return for_plugins || (for_guards && api_build != API_CHECKED);
}

/* ---- plans ---- */

static void run_again(void *log) {
    char *const arguments[] = {program_invocation_name, (char *)"scenario", NULL};
    (void)log;
    setenv("HAKMEM_STATS", "json", 1);
    setenv("HAKMEM_STATS_FILE", "/dev/null", 1);
    setenv("HAKMEM_PURGE_DELAY_MS", "0", 1);
    setenv("HAKMEM_HUGE_BYTES", "1M", 1);
    execv("/proc/self/exe", arguments);
    _exit(127);
}

/* What the scenario has noted, and how it ended. */
static struct api_child run(const struct os_plan *plan) {
    os_page->plan = *plan;
    atomic_store(&os_page->phase, OS_START);
    atomic_store(&os_page->failed, 0);
    atomic_store(&os_page->reached, 0);
    atomic_store(&os_page->ends, false);
    return api_run_child(run_again, NULL);
}

static void no_call_is_refused(void **state) {
    (void)state;
    struct api_child child = run(&(struct os_plan){.place = 0});
    if (child.status != 0) fail_msg("wait status 0x%x, %s", (unsigned)child.status, child.text);
    assert_int_equal(atomic_load(&os_page->without_memory), 0);
}

static bool is(const struct os_site *site, const char *function) { return strcmp(site->function, function) == 0; }

/* The kernel has no reason to refuse a wake, and who sleeps would have nobody else to wake it. */
static bool never_fails(const struct os_site *site) { return is(site, "futex wake"); }

static const struct {
    int error;
    const char *name, *only; /* NULL: of every function */
} errors[] = {
    {ENOMEM, "ENOMEM", NULL},  {EINVAL, "EINVAL", NULL}, {EAGAIN, "EAGAIN", NULL}, {EFAULT, "EFAULT", "mremap"},
    {EINTR, "EINTR", "write"}, {0, "0", "write"},        {0, "0", "read"},         {EINTR, "EINTR", "futex wait"}};

/* Refuses one call from the place, or all, after `spared` of them; the place may not be reached so often. */
static void refuse(const struct os_site *site, size_t with, bool lasts, uint32_t spared) {
    struct os_plan plan = {
        .place = atomic_load(&site->place), .error = errors[with].error, .lasts = lasts, .spared = spared};
    plan.spares_start = is(site, "mmap"); /* without memory no program starts */
    struct api_child child = run(&plan);
    if (child.status != 0 || (atomic_load(&os_page->failed) == 0 && spared == 0))
        fail_msg("%s from 0x%lx, %s%s after %u: wait status 0x%x, %u refused, %s", site->function,
                 (unsigned long)plan.place, errors[with].name, lasts ? " every time" : "", spared,
                 (unsigned)child.status, atomic_load(&os_page->failed), child.text);
}

/* The first error comes once, late and every time, the others every time: hakmem looks at none of them but EFAULT. */
static void refuse_with_all(const struct os_site *site, const char *caller, const char *source) {
    uint32_t before = atomic_load(&os_page->without_memory);
    const uint32_t late = is(site, "mprotect") ? 12 : 2; /* a guard is laid and taken off by the same call */
    printf("# %-20s %-22s %-16s", site->function, caller, source);
    for (size_t i = 0; i < API_COUNT(errors); i++) {
        if (errors[i].only != NULL && !is(site, errors[i].only)) continue;
        bool may_last = errors[i].error != EINTR || !is(site, "write"); /* it is tried again and again */
        if (i == 0 || !may_last) refuse(site, i, false, 0);
        for (uint32_t spared = 2; i == 0 && spared <= late; spared += 2) refuse(site, i, true, spared);
        if (may_last) refuse(site, i, true, 0);
        printf(" %s", errors[i].name);
    }
    printf("; %u requests answered with NULL\n", atomic_load(&os_page->without_memory) - before);
}

static void each_place_may_be_refused(void **state) {
    (void)state;
    for (struct os_site *site = os_page->sites; atomic_load(&site->place) != 0; site++) {
        const struct known *at = known_at(atomic_load(&site->place));
        if (at != NULL && !never_fails(site)) refuse_with_all(site, at->caller, at->source);
        if (is(site, "pthread_atfork")) refuse_with_all(site, "boot", "boot.c"); /* by a jump */
    }
}

static void no_place_is_without_a_test(void **state) {
    (void)state;
    for (size_t i = 0; i < known_count; i++)
        if (!is_reached(&known[i]) && !is_out_of_reach(&known[i]))
            fail_msg("%s at %s was never refused", known[i].function, known[i].source);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "scenario") == 0) return scenario();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_call_is_refused),
        cmocka_unit_test(each_place_may_be_refused),
        cmocka_unit_test(no_place_is_without_a_test),
    };
    api_start();
    int fd = memfd_create("os_calls", 0);
    assert_true(fd >= 0 && dup2(fd, OS_CALLS_FD) == OS_CALLS_FD && ftruncate(fd, sizeof *os_page) == 0);
    os_page = mmap(NULL, sizeof *os_page, PROT_READ | PROT_WRITE, MAP_SHARED, OS_CALLS_FD, 0);
    assert_true(os_page != MAP_FAILED);
    os_page->parent = getpid();
    read_known();
    return cmocka_run_group_tests_name("calls of the system", tests, NULL, NULL);
}
