/* A program that allocates while it is being relocated: from the resolver of an indirect function, before its
 * thread-local storage has its first values. */
#include "life_early.h"

int life_answer(void);

static int answer(void) { return 42; }

__attribute__((used)) __attribute__((used)) static int (*resolve_answer(void))(void) {
    life_early_make();
    return answer;
}

int life_answer(void) __attribute__((ifunc("resolve_answer")));

int main(void) { return life_answer() == 42 ? life_early_report() : 2; }
