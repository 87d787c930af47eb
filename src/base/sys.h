/* The operating system, as far as hakmem uses it. sys_linux.c is the only file that includes an OS header.
 *
 * It lies on the lowest floor because locks (futex) and the log (write) need it. Every function that can fail
 * says how, keeps errno, and can be made to fail by a test (hak_sys_set_fault_for_test). */
#ifndef HAK_BASE_SYS_H
#define HAK_BASE_SYS_H

#include "base/config.h"

/* Bytes of an OS page: 4, 16 or 64 KiB; read once at the first call. */
size_t hak_sys_page_bytes(void);

/* Maps `bytes` (whole pages) of private zero memory, readable and writable. NULL on failure. */
void *hak_sys_map(size_t bytes);
/* Unmaps whole pages. False if the kernel refused (mapping limit): the range is then still mapped, but what it holds
 * may be lost. A huge page of which a part goes, here and below, is taken apart first: else the part is not free for
 * others before memory is short. */
bool hak_sys_unmap(void *ptr, size_t bytes);
/* Gives the pages' memory back. True if it did: they then read as zero. False: what they hold may be lost. */
bool hak_sys_purge(void *ptr, size_t bytes);
/* Asks that 2 MiB, at a multiple of that, are one huge page. False if that was not taken note of, or if huge pages have
 * another size here. */
bool hak_sys_make_huge(void *ptr, size_t bytes);
/* Asks that pages are no part of huge pages from now on, which are resident as a whole. */
void hak_sys_keep_small(void *ptr, size_t bytes);
/* Makes pages inaccessible (`access` false) or readable and writable (true). */
bool hak_sys_protect(void *ptr, size_t bytes, bool access);
/* Makes pages read-only, at the very end of the process. Valgrind builds. */
void hak_sys_seal(void *ptr, size_t bytes);
/* Grows or shrinks a mapping where it is. SPLIT: parts of it differ (a locked page, say), so it cannot be moved either.
 */
enum hak_sys_remap { HAK_REMAP_DONE, HAK_REMAP_NO_ROOM, HAK_REMAP_SPLIT };
enum hak_sys_remap hak_sys_remap_in_place(void *ptr, size_t old_bytes, size_t new_bytes);
/* Moves the pages of a mapping over the mapping at `target` of `new_bytes`, replacing it. On failure the old one
 * is as before, but `target` may be unmapped already, and then be anybody's: the caller must let go of it. */
bool hak_sys_remap_to(void *ptr, size_t old_bytes, void *target, size_t new_bytes);
/* Asks that a forked child sees zeroes here. */
bool hak_sys_wipe_on_fork(void *ptr, size_t bytes);

/* Sleeps while `*word` is `expected` (may wake early), and wakes up to `count` sleepers. */
void hak_sys_futex_wait(const void *word, uint32_t expected);
void hak_sys_futex_wake(const void *word, int count);

/* Milliseconds of a clock that only goes forward. */
uint64_t hak_sys_now_ms(void);
/* Microseconds of one, which takes longer to read and tells more than ticks of some milliseconds. */
uint64_t hak_sys_now_us(void);
/* A value that differs between live threads: the thread pointer, a multiple of 16. */
uintptr_t hak_sys_thread(void);
uint32_t hak_sys_pid(void);
/* Tells the CPU that this is a spin. */
HAK_INLINE void hak_sys_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Writes all of `text`, in one write() unless the system takes less. Returns 0 or errno. */
int hak_sys_write(int fd, const char *text, size_t bytes);
/* Opens `path` for appending, creating it; -1 on failure. */
int hak_sys_open_append(const char *path);
/* Whether that will work. Creates a file, but opens no pipe: that would wait for its reader, and then send it away. */
bool hak_sys_can_append(const char *path);
void hak_sys_close(int fd);
/* A second descriptor for the same file, out of the way of the program's own as far as it may be, and closed by exec;
 * -1 on failure. */
int hak_sys_duplicate(int fd);

/* Program name, or "?" before the C library is up. */
const char *hak_sys_program(void);
/* Where the main program is loaded: the address of its ELF header. */
const void *hak_sys_program_base(void);
/* True in set-user-ID and similar programs, where the environment is not to be trusted. */
bool hak_sys_is_secure(void);
/* The environment, or NULL before the C library is up. */
char **hak_sys_environ(void);

/* What lies at an address, from /proc/self/maps. */
enum hak_sys_place { HAK_PLACE_UNKNOWN, HAK_PLACE_UNMAPPED, HAK_PLACE_STACK, HAK_PLACE_FILE, HAK_PLACE_ANONYMOUS };
/* Fills `path` (NUL-terminated, cut to `bytes`) for HAK_PLACE_FILE. UNKNOWN if the maps cannot be read. */
enum hak_sys_place hak_sys_place_of(const void *ptr, char *path, size_t bytes);

_Noreturn void hak_sys_abort(void);

/* Fault injection (test builds only): called before each call above that asks the kernel for memory; a result
 * other than 0 is the errno it fails with. */
enum hak_sys_call {
    HAK_SYS_MAP,
    HAK_SYS_UNMAP,
    HAK_SYS_PURGE,
    HAK_SYS_PROTECT,
    HAK_SYS_REMAP,
    HAK_SYS_WIPE,
    HAK_SYS_HUGE
};
typedef int hak_sys_fault(enum hak_sys_call call, size_t bytes);
void hak_sys_set_fault_for_test(hak_sys_fault *fault);
/* Stops the clock at `ms` (0: back to the real one), so that decay can be tested. Test builds only. */
void hak_sys_set_now_for_test(uint64_t ms);
/* Pages of `bytes` (0: the real ones): what hakmem would do on another system. Before the first call only. */
void hak_sys_set_page_bytes_for_test(size_t bytes);

#endif
