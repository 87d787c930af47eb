/* A program whose first constructor allocates, before any library's own constructor of a higher number. */
#include "life_early.h"

__attribute__((constructor(101))) static void first(void) { life_early_make(); }

int main(void) { return life_early_report(); }
