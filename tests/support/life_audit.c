/* build: -shared -fPIC */
/* An auditing library (LD_AUDIT) that only says that it is there: the loader works differently under one. */
#include <link.h>

unsigned int la_version(unsigned int version) { return version; }
