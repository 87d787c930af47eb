/* Makes the kernel refuse given system calls of this process from now on, for good: call it in a child only. */
#ifndef API_REFUSE_H
#define API_REFUSE_H

#include "api_child.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

enum { API_REFUSED_MAX = 8 };

static inline void api_refuse(const unsigned *calls, size_t count, unsigned error) {
    struct sock_filter filter[API_REFUSED_MAX + 3];
    size_t n = 0;
    api_child_check(count <= API_REFUSED_MAX);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < count; i++) {
        /* On a match, skip the rest of the list and the permission. */
        filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], (unsigned char)(count - i), 0);
    }
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error);
    struct sock_fprog program = {(unsigned short)n, filter};
    api_child_check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    api_child_check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

#endif
