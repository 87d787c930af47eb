/* hakmem linked into a plug-in: dlclose() must not take it away, because blocks and the ends of threads that it watches
 * outlive the plug-in's use. Part of hakmem.o and libhakmem.a only; the shared libraries are linked with -z nodelete.
 */
#include "api/cxx_runtime.h"

__attribute__((constructor(102))) static void stay_loaded(void) {
    static const char inside;
    hak_cxx_runtime_keep_loaded(&inside);
}
