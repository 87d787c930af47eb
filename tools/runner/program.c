/* The program file, before it starts: what cannot be preloaded is named with the reason, and so is an allocator
 * that the program brings along. The file is untrusted input: every offset is checked against its size. */
#define _GNU_SOURCE
#include "runner.h"

#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum { SCRIPT_DEPTH = 5 };

/* ---- a program file -------------------------------------------------------------------------------------- */

struct elf {
    const unsigned char *bytes; /* the file, mapped; never written */
    size_t size;
    const Elf64_Ehdr *header; /* NULL: not a 64-bit ELF file of this byte order */
};

static const void *elf_at(const struct elf *e, uint64_t offset, uint64_t length) {
    return offset <= e->size && length <= e->size - offset ? e->bytes + offset : NULL;
}

static bool file_map(struct elf *e, const char *path) {
    struct stat st;
    *e = (struct elf){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
        void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes != MAP_FAILED) *e = (struct elf){.bytes = bytes, .size = (size_t)st.st_size};
    }
    close(fd);
    const Elf64_Ehdr *h = elf_at(e, 0, sizeof *h);
    if (h && memcmp(h->e_ident, ELFMAG, SELFMAG) == 0 && h->e_ident[EI_CLASS] == ELFCLASS64) e->header = h;
    return e->bytes != NULL;
}

static void file_unmap(struct elf *e) {
    if (e->bytes) munmap((void *)(uintptr_t)e->bytes, e->size);
    *e = (struct elf){0};
}

static bool file_is_elf(const struct elf *e) { return e->size >= SELFMAG && memcmp(e->bytes, ELFMAG, SELFMAG) == 0; }

/* The string at `offset` of the string table section `table`, or "" if it is not wholly inside the file. */
static const char *elf_string(const struct elf *e, const Elf64_Shdr *table, uint64_t offset) {
    if (!table || offset >= table->sh_size || !elf_at(e, table->sh_offset, table->sh_size)) return "";
    const char *s = elf_at(e, table->sh_offset + offset, 1);
    return s && memchr(s, 0, table->sh_size - offset) ? s : "";
}

static const Elf64_Shdr *elf_section(const struct elf *e, size_t index) {
    const Elf64_Ehdr *h = e->header;
    if (!h || h->e_shentsize != sizeof(Elf64_Shdr) || index >= h->e_shnum || h->e_shoff % 8 != 0) return NULL;
    const unsigned char *table = elf_at(e, h->e_shoff, (uint64_t)h->e_shnum * sizeof(Elf64_Shdr));
    return table ? (const Elf64_Shdr *)(const void *)table + index : NULL;
}

/* The first section of this type and, in `*count`, how many entries of `entry` bytes it holds. */
static const void *elf_table(const struct elf *e, uint32_t type, size_t entry, size_t *count,
                             const Elf64_Shdr **strings) {
    const Elf64_Shdr *s;
    *count = 0;
    for (size_t i = 0; (s = elf_section(e, i)) != NULL; i++) {
        if (s->sh_type != type || s->sh_offset % 8 != 0 || !elf_at(e, s->sh_offset, s->sh_size)) continue;
        *count = s->sh_size / entry;
        *strings = elf_section(e, s->sh_link);
        return e->bytes + s->sh_offset;
    }
    return NULL;
}

/* The program that loads this one ("/lib64/ld-linux-x86-64.so.2"), or NULL: statically linked. */
static const char *elf_loader(const struct elf *e) {
    const Elf64_Ehdr *h = e->header;
    if (!h || h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phoff % 8 != 0) return NULL;
    const Elf64_Phdr *p = elf_at(e, h->e_phoff, (uint64_t)h->e_phnum * sizeof *p);
    for (size_t i = 0; p && i < h->e_phnum; i++) {
        const char *name = elf_at(e, p[i].p_offset, p[i].p_filesz);
        if (p[i].p_type == PT_INTERP && name && p[i].p_filesz > 1 && name[p[i].p_filesz - 1] == 0) return name;
    }
    return NULL;
}

/* A name that matches one of the `count` patterns: an allocator or a sanitizer, and how to call it. */
struct mark {
    const char *prefix, *meaning;
};

static const char *mark_find(const struct mark *marks, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strncmp(name, marks[i].prefix, strlen(marks[i].prefix)) == 0) return marks[i].meaning;
    return NULL;
}

/* The first library it is linked with that bears one of the marks; the meaning in `*meaning`. */
static const char *elf_needs(const struct elf *e, const struct mark *marks, size_t marks_count, const char **meaning) {
    size_t count;
    const Elf64_Shdr *strings = NULL;
    const Elf64_Dyn *d = elf_table(e, SHT_DYNAMIC, sizeof *d, &count, &strings);
    for (size_t i = 0; i < count; i++) {
        const char *name = d[i].d_tag == DT_NEEDED ? elf_string(e, strings, d[i].d_un.d_val) : "";
        if ((*meaning = mark_find(marks, marks_count, name)) != NULL) return name;
    }
    return NULL;
}

/* The first function that it defines itself and that bears one of the marks. */
static const char *elf_defines(const struct elf *e, uint32_t table, const struct mark *marks, size_t marks_count,
                               const char **meaning) {
    size_t count;
    const Elf64_Shdr *strings = NULL;
    const Elf64_Sym *s = elf_table(e, table, sizeof *s, &count, &strings);
    for (size_t i = 0; i < count; i++) {
        if (s[i].st_shndx == SHN_UNDEF || ELF64_ST_TYPE(s[i].st_info) != STT_FUNC) continue;
        const char *name = elf_string(e, strings, s[i].st_name);
        if ((*meaning = mark_find(marks, marks_count, name)) != NULL) return name;
    }
    return NULL;
}

/* Only what the dynamic linker sees comes before a preloaded library. */
static bool elf_exports(const struct elf *e, const char *function) {
    size_t count;
    const Elf64_Shdr *strings = NULL;
    const Elf64_Sym *s = elf_table(e, SHT_DYNSYM, sizeof *s, &count, &strings);
    for (size_t i = 0; i < count; i++)
        if (s[i].st_shndx != SHN_UNDEF && strcmp(elf_string(e, strings, s[i].st_name), function) == 0) return true;
    return false;
}

/* Whether hakmem is in the file: the libraries, and what was linked with hakmem.o. It stays where symbols were taken
 * out, and no other file has it. */
static bool has_hakmem(const struct elf *e) {
    const Elf64_Shdr *s, *names = e->header ? elf_section(e, e->header->e_shstrndx) : NULL;
    for (size_t i = 0; (s = elf_section(e, i)) != NULL; i++)
        if (strcmp(elf_string(e, names, s->sh_name), ".note.hakmem") == 0) return true;
    return false;
}

/* ---- what stands against preloading ---------------------------------------------------------------------- */

static const struct mark sanitizers[] = {
    {"libasan.", "AddressSanitizer"},        {"libclang_rt.asan", "AddressSanitizer"},
    {"libhwasan.", "HWAddressSanitizer"},    {"libtsan.", "ThreadSanitizer"},
    {"liblsan.", "LeakSanitizer"},           {"__asan_init", "AddressSanitizer"},
    {"__hwasan_init", "HWAddressSanitizer"}, {"__tsan_init", "ThreadSanitizer"},
    {"__msan_init", "MemorySanitizer"},      {"__lsan_init", "LeakSanitizer"},
};

static const struct mark allocator_libraries[] = {
    {"libjemalloc", "jemalloc"}, {"libtcmalloc", "tcmalloc"},
    {"libmimalloc", "mimalloc"}, {"libtbbmalloc", "tbbmalloc"},
    {"libhoard", "Hoard"},       {"libsnmallocshim", "snmalloc"},
    {"librpmalloc", "rpmalloc"}, {"libhardened_malloc", "hardened_malloc"},
    {"libscudo", "scudo"},
};

/* Allocators under names of their own, which no preloading can take over. */
static const struct mark allocator_functions[] = {
    {"je_malloc", "jemalloc"},        {"_rjem_malloc", "jemalloc"}, {"_rjem_je_malloc", "jemalloc"},
    {"tc_malloc", "tcmalloc"},        {"mi_malloc", "mimalloc"},    {"rpmalloc", "rpmalloc"},
    {"scudo_malloc", "scudo"},        {"sn_malloc", "snmalloc"},    {"runtime.mallocgc", "the Go heap"},
    {"scalable_malloc", "tbbmalloc"},
};

/* The kernel drops the environment of a program that gains rights: LD_PRELOAD and HAKMEM_* do nothing there. */
static const char *gains_rights(const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) return NULL;
    if ((st.st_mode & S_ISUID) && st.st_uid != getuid())
        return "it is set-user-ID, and such programs ignore LD_PRELOAD";
    if ((st.st_mode & S_ISGID) && (st.st_mode & S_IXGRP) && st.st_gid != getgid())
        return "it is set-group-ID, and such programs ignore LD_PRELOAD";
    if (getuid() != 0 && getxattr(path, "security.capability", NULL, 0) > 0)
        return "it has file capabilities, and such programs ignore LD_PRELOAD";
    return NULL;
}

/* Why the library cannot be preloaded into the program, in `why`; false: it can. */
static bool cannot_preload(const struct elf *program, const char *path, const struct elf *library, char *why,
                           size_t size) {
    const char *reason = gains_rights(path), *meaning;
    if (program->size < EI_NIDENT || program->bytes[EI_CLASS] != library->bytes[EI_CLASS] ||
        program->bytes[EI_DATA] != library->bytes[EI_DATA] || !program->header ||
        program->header->e_machine != library->header->e_machine)
        reason = "it is built for another architecture than the library";
    else if (!elf_loader(program))
        reason = "it is statically linked, so nothing can be preloaded; link it with hakmem.o instead";
    if (reason) {
        snprintf(why, size, "%s", reason);
        return true;
    }
    if (elf_needs(program, sanitizers, COUNT(sanitizers), &meaning) ||
        elf_defines(program, SHT_DYNSYM, sanitizers, COUNT(sanitizers), &meaning) ||
        elf_defines(program, SHT_SYMTAB, sanitizers, COUNT(sanitizers), &meaning)) {
        snprintf(why, size, "it is built with %s, which has to own malloc itself", meaning);
        return true;
    }
    struct elf self;
    const char *mine = file_map(&self, "/proc/self/exe") ? elf_loader(&self) : NULL;
    bool other_libc = mine && strcmp(base_name(mine), base_name(elf_loader(program))) != 0;
    if (other_libc)
        snprintf(why, size, "its C library (%s) is not the one that the library is built for (%s)",
                 base_name(elf_loader(program)), base_name(mine));
    file_unmap(&self);
    return other_libc;
}

/* Names an allocator of the program's own. It still starts: what it asks of malloc comes from hakmem. */
static void note_allocator(const struct elf *program, const char *path) {
    const char *meaning, *name;
    if (has_hakmem(program)) say("%s is linked with hakmem: that one serves it, not the library", path);
    else if (elf_exports(program, "malloc"))
        say("%s defines malloc itself: that allocator serves it, not hakmem", path);
    else if ((name = elf_needs(program, allocator_libraries, COUNT(allocator_libraries), &meaning)) != NULL)
        say("%s is linked with an allocator of its own, %s (%s): hakmem takes over malloc and its kin, not the "
            "functions with names of its own",
            path, meaning, name);
    else if ((name = elf_defines(program, SHT_SYMTAB, allocator_functions, COUNT(allocator_functions), &meaning)) !=
                 NULL ||
             (name = elf_defines(program, SHT_DYNSYM, allocator_functions, COUNT(allocator_functions), &meaning)) !=
                 NULL)
        say("%s carries an allocator of its own, %s (%s): hakmem serves only what it asks of malloc", path, meaning,
            name);
    else if (elf_exports(program, "PyObject_Malloc") && !getenv("PYTHONMALLOC"))
        say("%s carries an allocator of its own, pymalloc, for small objects: PYTHONMALLOC=malloc turns it off", path);
}

/* ---- from the command to the file ------------------------------------------------------------------------ */

int program_find(const char *name, char path[PATH_MAX]) {
    const char *list = getenv("PATH");
    int result = EXIT_NOT_FOUND;
    if (strchr(name, '/')) list = NULL;
    else if (!list) list = "/bin:/usr/bin";
    do {
        int length = list ? (int)strcspn(list, ":") : 0;
        int n = snprintf(path, PATH_MAX, "%.*s%s%s", length, list ? list : "", length > 0 ? "/" : "", name);
        struct stat st;
        if (n < PATH_MAX && stat(path, &st) == 0) {
            if (S_ISREG(st.st_mode) && access(path, X_OK) == 0) return 0;
            result = EXIT_CANNOT_RUN;
        }
        list = list ? list + length : NULL;
    } while (list && *list++ == ':');
    return result;
}

/* For a script: puts the program that runs it into `path`, also the one that env(1) would start. */
static bool script_interpreter(const struct elf *script, char path[PATH_MAX]) {
    char line[256] = "", *save = NULL;
    if (script->size < 3 || memcmp(script->bytes, "#!", 2) != 0) return false;
    size_t length = script->size - 2 < sizeof line ? script->size - 2 : sizeof line - 1;
    memcpy(line, script->bytes + 2, length);
    line[strcspn(line, "\n")] = 0;
    char *word = strtok_r(line, " \t", &save);
    if (word && strcmp(base_name(word), "env") == 0) do
            word = strtok_r(NULL, " \t", &save);
        while (word && (*word == '-' || strchr(word, '=')));
    return word && program_find(word, path) == 0;
}

/* For an ELF program: false if hakmem cannot be preloaded into it. A static one with hakmem inside needs no more. */
static bool examine_elf(const struct elf *program, const char *path, const struct elf *library) {
    char why[256];
    bool complete = has_hakmem(program) && !elf_loader(program) && !gains_rights(path);
    if (complete || !cannot_preload(program, path, library, why, sizeof why)) {
        note_allocator(program, path);
        return true;
    }
    say("%s: hakmem cannot be preloaded: %s", path, why);
    return false;
}

const char *library_fault(const char *path) {
    struct elf library;
    const char *fault = NULL;
    if (!file_map(&library, path) || !library.header || library.header->e_type != ET_DYN)
        fault = "not a 64-bit shared library";
    else if (!has_hakmem(&library)) fault = "not a build of hakmem";
    file_unmap(&library);
    return fault;
}

/* Maps the program at `path`, or what runs it; false if that is no ELF file. */
static bool map_program(struct elf *program, char path[PATH_MAX]) {
    for (int depth = 0; depth < SCRIPT_DEPTH && file_map(program, path); depth++) {
        if (file_is_elf(program)) return true;
        bool script = script_interpreter(program, path);
        file_unmap(program);
        if (!script) break;
    }
    return false;
}

bool program_examine(char path[PATH_MAX], const char *library) {
    struct elf program, lib;
    if (!map_program(&program, path)) return true;
    bool fine = file_map(&lib, library) && examine_elf(&program, path, &lib);
    file_unmap(&lib);
    file_unmap(&program);
    return fine;
}

bool program_examine_for_libc(char path[PATH_MAX]) {
    struct elf program;
    if (!map_program(&program, path)) return true;
    bool inside = has_hakmem(&program), own = inside || elf_exports(&program, "malloc");
    if (own)
        say("%s: --libc has no effect: it %s, before which no library can come", path,
            inside ? "is linked with hakmem" : "defines malloc itself");
    file_unmap(&program);
    return !own;
}
