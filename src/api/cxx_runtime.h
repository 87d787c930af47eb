/* The C++ runtime of whoever calls operator new. hakmem must load where there is none, so it links to none: what the
 * whole program sees is found through weak references (operators.cc); this file finds the runtime of a plug-in that
 * was loaded into a C program and keeps its C++ library to itself. */
#ifndef HAK_API_CXX_RUNTIME_H
#define HAK_API_CXX_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the whole program sees all that throwing std::bad_alloc, or a catch, takes. */
bool hak_cxx_runtime_can_throw(void);
bool hak_cxx_runtime_can_catch(void);
/* std::get_new_handler as the whole program sees it, or NULL. */
void (*(*hak_cxx_runtime_get_new_handler(void))(void))(void);

/* The address of `symbol` as the object that `caller` lies in sees it, or NULL. May allocate: call it with no lock
 * held, on the way to an exception only. */
void *hak_cxx_runtime_find(const void *caller, const char *symbol);

/* Keeps the object that `inside` lies in loaded for good, unless it is the program itself. For a plug-in that hakmem is
 * linked into: its blocks, and the ends of threads that it watches, outlive dlclose(). */
void hak_cxx_runtime_keep_loaded(const void *inside);

/* Ends the process: there is no memory, and no C++ runtime to throw with. */
void hak_cxx_runtime_die(size_t size) __attribute__((noreturn));

#ifdef __cplusplus
}
#endif

#endif
