/* The names of the C library, as second names of the prefixed functions: one function, no jump between them.
 * Test builds leave them out: there the sanitizer owns malloc. */
#ifndef HAK_API_LIBC_NAMES_H
#define HAK_API_LIBC_NAMES_H

#if defined(__has_attribute) && __has_attribute(copy)
#define HAK_COPY_ATTRIBUTES(target) __attribute__((copy(target)))
#else
#define HAK_COPY_ATTRIBUTES(target)
#endif

#if HAK_TEST
#define HAK_LIBC_NAME(name, target) _Static_assert(1, "no libc names in test builds")
#else
/* NOLINTBEGIN(bugprone-macro-parentheses): a declarator cannot be enclosed */
#define HAK_LIBC_NAME(name, target)                                                                                    \
    extern __typeof(target) name __attribute__((alias(#target), visibility("default"))) HAK_COPY_ATTRIBUTES(target)
/* NOLINTEND(bugprone-macro-parentheses) */
#endif

#endif
