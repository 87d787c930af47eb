/* build: -shared -fPIC */
/* A plug-in with thread-local storage that the C library must allocate for each thread, and free after the thread's
 * last destructor has run. */
int life_tls_touch(int value);

static _Thread_local int numbers[2000] = {1};

int life_tls_touch(int value) {
    numbers[value % 2000] += value;
    return numbers[0];
}
