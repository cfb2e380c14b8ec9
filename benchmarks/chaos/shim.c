/* Preloaded into a command: file operations below one folder fail, and the clock jumps, when another process says so.
 *
 * CHAOS_CONTROL names a file that is mapped and holds a `struct control`; CHAOS_PREFIX is the folder.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t clock_offset_s; /* added to the time of day */
    int32_t error;          /* errno of the failures; 0: none */
    int32_t remaining;      /* failures left to give; negative: without end */
    int32_t one_in;         /* every so many operations fail */
    int32_t calls;          /* operations seen since `error` was set */
    int32_t failures;       /* failures given */
};

static struct control *control;
static const char *prefix;
static size_t prefix_length;

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("CHAOS_CONTROL");
    prefix = getenv("CHAOS_PREFIX");
    if (name == NULL || prefix == NULL) return;
    prefix_length = strlen(prefix);
    int file = open(name, O_RDWR);
    if (file < 0) return;
    void *memory = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory != MAP_FAILED) control = memory;
}

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

/* Whether an operation on this path is to fail; sets errno. */
static int fails(const char *path) {
    if (control == NULL || control->error == 0 || control->remaining == 0) return 0;
    if (path == NULL || strncmp(path, prefix, prefix_length) != 0) return 0;
    if (__atomic_fetch_add(&control->calls, 1, __ATOMIC_SEQ_CST) % control->one_in != 0) return 0;
    if (control->remaining > 0 && __atomic_fetch_sub(&control->remaining, 1, __ATOMIC_SEQ_CST) <= 0) {
        control->remaining = 0;
        return 0;
    }
    __atomic_fetch_add(&control->failures, 1, __ATOMIC_SEQ_CST);
    errno = control->error;
    return 1;
}

static int file_fails(int file) {
    char link[64], path[4096];
    if (control == NULL || control->error == 0 || file <= 2) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0) return 0;
    path[size] = 0;
    return fails(path);
}

/* A path as it was given may be relative. */
static int name_fails(const char *path) {
    char whole[8192], here[4096];
    if (control == NULL || control->error == 0 || path == NULL) return 0;
    if (path[0] == '/') return fails(path);
    if (getcwd(here, sizeof here) == NULL) return 0;
    snprintf(whole, sizeof whole, "%s/%s", here, path);
    return fails(whole);
}

ssize_t write(int file, const void *data, size_t size) {
    return file_fails(file) ? -1 : REAL(write)(file, data, size);
}
ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    return file_fails(file) ? -1 : REAL(pwrite)(file, data, size, at);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    return file_fails(file) ? -1 : REAL(pwrite64)(file, data, size, at);
}
int fsync(int file) { return file_fails(file) ? -1 : REAL(fsync)(file); }
int fdatasync(int file) { return file_fails(file) ? -1 : REAL(fdatasync)(file); }
int rename(const char *from, const char *to) { return name_fails(to) ? -1 : REAL(rename)(from, to); }
int mkdir(const char *path, mode_t mode) { return name_fails(path) ? -1 : REAL(mkdir)(path, mode); }

#define OPEN(name)                                                                                   \
    int name(const char *path, int flags, ...) {                                                     \
        va_list rest;                                                                                \
        va_start(rest, flags);                                                                       \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                      \
        va_end(rest);                                                                                \
        if ((flags & O_ACCMODE) != O_RDONLY && name_fails(path)) return -1;                          \
        return REAL(name)(path, flags, mode);                                                        \
    }
OPEN(open)
OPEN(open64)

/* The clock jumps for Python and SQLite alone: others wait for a time of day, and the kernel's has not jumped. */
static int64_t jump(void *caller) {
    if (control == NULL || control->clock_offset_s == 0) return 0;
    Dl_info object;
    if (dladdr(caller, &object) == 0 || object.dli_fname == NULL) return 0;
    const char *slash = strrchr(object.dli_fname, '/');
    const char *name = slash ? slash + 1 : object.dli_fname;
    int moved = strncmp(name, "python", 6) == 0 || strncmp(name, "libpython", 9) == 0 || strstr(name, "sqlite") != NULL;
    return moved ? control->clock_offset_s : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = REAL(clock_gettime)(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += jump(__builtin_return_address(0));
    return status;
}
time_t time(time_t *to) {
    time_t now = REAL(time)(NULL) + jump(__builtin_return_address(0));
    if (to != NULL) *to = now;
    return now;
}
int gettimeofday(struct timeval *now, void *zone) {
    int status = REAL(gettimeofday)(now, zone);
    now->tv_sec += jump(__builtin_return_address(0));
    return status;
}
int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
    struct timespec real_time = *until;
    real_time.tv_sec -= jump(__builtin_return_address(0));
    return REAL(sem_timedwait)(semaphore, &real_time);
}
