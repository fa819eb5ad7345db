/* Preloaded into a process: counts the calls that change files under some folders, and makes the
 * n-th of them the last (SIGKILL before it, or half-way through a write) or fail (ENOSPC).
 *
 * Calls that change nothing (reading, opening to read) are neither counted nor touched. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, TORN, FULL, FULL_FROM };
#define MOST 65536

static char root[4096];
static size_t root_length;
static atomic_long calls;
static long fatal;
static int mode = COUNT;
static char kinds[MOST]; /* one letter a call, in order */

void shim_arm(const char *folder, int what, long at) {
    root_length = strlen(folder);
    memcpy(root, folder, root_length + 1);
    mode = what;
    fatal = at;
    atomic_store(&calls, 0);
}

long shim_calls(void) { return atomic_load(&calls); }
char shim_kind(long at) { return at > 0 && at < MOST ? kinds[at] : 0; }

static int inside(const char *path) {
    return root_length && path && strncmp(path, root, root_length) == 0;
}

static int inside_fd(int fd) {
    char name[32], path[4096];
    if (!root_length || fd < 0) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(name, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return inside(path);
}

static int inside_at(int fd, const char *path) {
    return path && (path[0] == '/' || fd == AT_FDCWD ? inside(path) : inside_fd(fd));
}

/* 0: go on; -1: fail with ENOSPC; 1: write half, then die. Does not return where the process dies.
 */
static int meet(char kind) {
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (number < MOST) kinds[number] = kind;
    int now = mode == FULL_FROM ? number >= fatal : number == fatal;
    if (!now || mode == COUNT) return 0;
    if (mode == TORN && kind == 'w') return 1;
    if (mode == KILL || mode == TORN) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    /* what frees space, or renames, still works on a full disk */
    return strchr("womls", kind) ? -1 : 0;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

#define NEXT(name, type, ...) \
    static type (*next)(__VA_ARGS__); \
    if (!next) next = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define FAIL_IF_FULL(kind) \
    if (meet(kind) < 0) { errno = ENOSPC; return -1; }

static int makes(int flags) { return flags & (O_CREAT | O_TRUNC); }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        NEXT(#name, int, const char *, int, ...); \
        va_list rest; va_start(rest, flags); mode_t bits = va_arg(rest, mode_t); va_end(rest); \
        if (makes(flags) && inside(path)) FAIL_IF_FULL('o') \
        return next(path, flags, bits); \
    }
#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        NEXT(#name, int, int, const char *, int, ...); \
        va_list rest; va_start(rest, flags); mode_t bits = va_arg(rest, mode_t); va_end(rest); \
        if (makes(flags) && inside_at(at, path)) FAIL_IF_FULL('o') \
        return next(at, path, flags, bits); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *bytes, size_t size) {
    NEXT("write", ssize_t, int, const void *, size_t);
    if (inside_fd(fd)) {
        int met = meet('w');
        if (met < 0) { errno = ENOSPC; return -1; }
        if (met > 0) { next(fd, bytes, size / 2); die(); }
    }
    return next(fd, bytes, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    NEXT("writev", ssize_t, int, const struct iovec *, int);
    if (inside_fd(fd)) {
        int met = meet('w');
        if (met < 0) { errno = ENOSPC; return -1; }
        if (met > 0) { next(fd, parts, (count + 1) / 2); die(); }
    }
    return next(fd, parts, count);
}

#define PWRITE(name, offset_type) \
    ssize_t name(int fd, const void *bytes, size_t size, offset_type offset) { \
        NEXT(#name, ssize_t, int, const void *, size_t, offset_type); \
        if (inside_fd(fd)) { \
            int met = meet('w'); \
            if (met < 0) { errno = ENOSPC; return -1; } \
            if (met > 0) { next(fd, bytes, size / 2, offset); die(); } \
        } \
        return next(fd, bytes, size, offset); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define BY_FD(name, kind) \
    int name(int fd) { \
        NEXT(#name, int, int); \
        if (inside_fd(fd)) FAIL_IF_FULL(kind) \
        return next(fd); \
    }
BY_FD(fsync, 'f')
BY_FD(fdatasync, 'f')

#define TRUNCATE(name, offset_type) \
    int name(int fd, offset_type size) { \
        NEXT(#name, int, int, offset_type); \
        if (inside_fd(fd)) FAIL_IF_FULL('t') \
        return next(fd, size); \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define TRUNCATE_PATH(name, offset_type) \
    int name(const char *path, offset_type size) { \
        NEXT(#name, int, const char *, offset_type); \
        if (inside(path)) FAIL_IF_FULL('t') \
        return next(path, size); \
    }
TRUNCATE_PATH(truncate, off_t)
TRUNCATE_PATH(truncate64, off64_t)

#define BY_PATH(name, kind) \
    int name(const char *path) { \
        NEXT(#name, int, const char *); \
        if (inside(path)) FAIL_IF_FULL(kind) \
        return next(path); \
    }
BY_PATH(unlink, 'u')
BY_PATH(rmdir, 'u')

int unlinkat(int at, const char *path, int flags) {
    NEXT("unlinkat", int, int, const char *, int);
    if (inside_at(at, path)) FAIL_IF_FULL('u')
    return next(at, path, flags);
}

int mkdir(const char *path, mode_t bits) {
    NEXT("mkdir", int, const char *, mode_t);
    if (inside(path)) FAIL_IF_FULL('m')
    return next(path, bits);
}

int mkdirat(int at, const char *path, mode_t bits) {
    NEXT("mkdirat", int, int, const char *, mode_t);
    if (inside_at(at, path)) FAIL_IF_FULL('m')
    return next(at, path, bits);
}

#define TWO_PATHS(name, kind) \
    int name(const char *from, const char *to) { \
        NEXT(#name, int, const char *, const char *); \
        if (inside(to)) FAIL_IF_FULL(kind) \
        return next(from, to); \
    }
TWO_PATHS(rename, 'r')
TWO_PATHS(link, 'l')
TWO_PATHS(symlink, 's')

int renameat(int at, const char *from, int to_at, const char *to) {
    NEXT("renameat", int, int, const char *, int, const char *);
    if (inside_at(to_at, to)) FAIL_IF_FULL('r')
    return next(at, from, to_at, to);
}

int linkat(int at, const char *from, int to_at, const char *to, int flags) {
    NEXT("linkat", int, int, const char *, int, const char *, int);
    if (inside_at(to_at, to)) FAIL_IF_FULL('l')
    return next(at, from, to_at, to, flags);
}
