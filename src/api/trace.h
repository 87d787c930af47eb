/* Where blocks were allocated and freed: short stacks, each kept once under a number. ASan builds only (HAK_TRACE).
 * Stacks are found by frame pointers, as ASan's are: code that has none ends a stack early. */
#ifndef HAK_API_TRACE_H
#define HAK_API_TRACE_H

#include "base/config.h"

/* The number of the caller's stack, not 0. Numbers are never reused; all stacks for which there was no room have one.
 */
uint32_t hak_trace_here(void);
/* Whether it is a number that hak_trace_here() has returned, or may have. */
bool hak_trace_is_known(uint32_t number);
/* Prints a stack on stderr, a line per frame, from the public function on. */
void hak_trace_print(uint32_t number);

#endif
