#include "api/cxx_runtime.h"

#include "base/log.h"
#include "base/sys.h"

#define WEAK __attribute__((weak, visibility("default")))

/* Only whether they are there is asked; a C++ file could not, because its compiler takes them for granted. */
WEAK extern const char thrower[] __asm__("__cxa_throw");
WEAK extern const char exception_memory[] __asm__("__cxa_allocate_exception");
WEAK extern const char catch_begin[] __asm__("__cxa_begin_catch");
WEAK extern const char catch_end[] __asm__("__cxa_end_catch");
WEAK extern const char personality[] __asm__("__gxx_personality_v0");
WEAK extern const char bad_alloc_type[] __asm__("_ZTISt9bad_alloc");
WEAK extern const char bad_alloc_table[] __asm__("_ZTVSt9bad_alloc");
WEAK extern const char bad_alloc_destructor[] __asm__("_ZNSt9bad_allocD1Ev");
WEAK void (*get_new_handler(void))(void) __asm__("_ZSt15get_new_handlerv");

bool hak_cxx_runtime_can_throw(void) {
    return thrower != NULL && exception_memory != NULL && personality != NULL && bad_alloc_type != NULL &&
           bad_alloc_table != NULL && bad_alloc_destructor != NULL;
}

bool hak_cxx_runtime_can_catch(void) { return catch_begin != NULL && catch_end != NULL && personality != NULL; }

void (*(*hak_cxx_runtime_get_new_handler(void))(void))(void) { return get_new_handler; }

/* <dlfcn.h>, but weak: a static program has none of it, and must not be made to have it. dlopen and dlclose are
 * looked up, because the linker warns of a mere reference to dlopen in a static program. */
#define LOADED_ONLY 5   /* RTLD_NOLOAD | RTLD_LAZY */
#define KEPT 0x1005     /* the same | RTLD_NODELETE */
#define EVERYWHERE NULL /* RTLD_DEFAULT */
struct object {         /* Dl_info */
    const char *file;
    void *base;
    const char *symbol;
    void *address;
};
WEAK int dladdr(const void *address, struct object *object);
WEAK void *dlsym(void *handle, const char *symbol);
typedef void *open_object(const char *file, int mode);
typedef int close_object(void *handle);

HAK_COLD void *hak_cxx_runtime_find(const void *caller, const char *symbol) {
    struct object object = {.file = NULL};
    if (dladdr == NULL || dlsym == NULL || dladdr(caller, &object) == 0 || object.file == NULL) return NULL;
    open_object *open = (open_object *)dlsym(EVERYWHERE, "dlopen");
    close_object *close = (close_object *)dlsym(EVERYWHERE, "dlclose");
    void *handle = open == NULL || close == NULL ? NULL : open(object.file, LOADED_ONLY);
    if (handle == NULL) return NULL;
    void *found = dlsym(handle, symbol); /* looks into what the object depends on, too */
    close(handle);                       /* the caller is on the stack: the object stays */
    return found;
}

HAK_COLD void hak_cxx_runtime_keep_loaded(const void *inside) {
    struct object object = {.file = NULL};
    if (dladdr == NULL || dlsym == NULL || dladdr(inside, &object) == 0 || object.file == NULL) return;
    if (hak_sys_program_base() == object.base) return;
    open_object *open = (open_object *)dlsym(EVERYWHERE, "dlopen");
    if (open != NULL) open(object.file, KEPT);
}

_Noreturn HAK_COLD void hak_cxx_runtime_die(size_t size) {
    struct hak_text line = {.used = 0};
    hak_text_head(&line);
    hak_text_str(&line, "operator new(");
    hak_text_u64(&line, size);
    hak_text_str(&line, "): out of memory, and there is no C++ runtime to throw std::bad_alloc");
    hak_text_line(&line, 2);
    hak_sys_abort();
}
