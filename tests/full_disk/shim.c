/* A disk that is full on demand: preloaded into a process, it refuses writes under one folder with ENOSPC.
 * Without being armed it does nothing. It does not see what libc writes by itself (stdio). Built by disk.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static volatile int armed = 0; /* 0 off, 1 by count, 2 each write once */
static char similar[2][PATH_MAX]; /* under these, each kind of write once */
static long left = 0, writes = 0;
static int full = 0;
static char last[PATH_MAX + 64];
#define MOST 65536
static uint64_t seen[MOST];
static long known = 0;
static uint64_t record = 0; /* what was written last to a ledger */

/* Arm: by count, the write after so many is refused, and all after it; each: the first that was never refused is. */
void full_disk_arm(const char *where, const char *kinds, const char *kinds_too, int how, long after) {
    pthread_mutex_lock(&lock);
    snprintf(similar[0], sizeof similar[0], "%s", kinds);
    snprintf(similar[1], sizeof similar[1], "%s", kinds_too);
    snprintf(folder, sizeof folder, "%s/", where);
    left = after, writes = 0, full = 0, last[0] = 0, armed = how;
    pthread_mutex_unlock(&lock);
}
void full_disk_forget(void) { known = 0; }
long full_disk_disarm(void) { armed = 0; return writes; }
int full_disk_was_full(void) { return full; }
const char *full_disk_last(void) { return last; }

static uint64_t hash(uint64_t h, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)text[i]) * 1099511628211ULL;
    return h;
}

/* A line of the outbox is known by its method, kind and step: times, sizes and digests differ from try to try. */
static uint64_t line_key(uint64_t h, const char *data, size_t n) {
    char text[2048];
    size_t m = n < sizeof text - 1 ? n : sizeof text - 1;
    memcpy(text, data, m), text[m] = 0;
    char *from = strstr(text, "\"method\""), *to = from ? strstr(from, "\"size\"") : 0;
    if (to) h = hash(h, from, (size_t)(to - from));
    char *step = strstr(text, "\"step\""), *end = step ? strpbrk(step, ",}") : 0;
    if (end) h = hash(h, step, (size_t)(end - step));
    return h;
}

/* 1: refuse; 2: take a part of it only, and refuse what comes after. */
static int refused(const char *path, const char *call, long place, const char *data, size_t n) {
    if (strncmp(path, folder, strlen(folder))) return 0;
    pthread_mutex_lock(&lock);
    int answer = 0;
    if (!armed) answer = 0;
    else if (full) answer = 1;
    else {
        writes++;
        if (armed == 1) {
            if (left-- <= 0) full = 1;
        } else {
            const char *name = strrchr(path, '/') + 1;
            size_t length = strlen(path);
            int each = 1;
            for (int i = 0; i < 2; i++)
                if (similar[i][0] && !strncmp(path, similar[i], strlen(similar[i]))) each = 0;
            /* A part beside its file has eight random digits at its end. */
            if (name[0] == '.' && length > 9 && path[length - 9] == '.') length -= 9;
            uint64_t h = hash(14695981039346656037ULL, call, strlen(call));
            /* A kind of write is the same for every day, file and run: those are told apart by their digits. */
            for (size_t i = 0; i < length; i++)
                if (each || !strchr("0123456789abcdef", path[i])) h = hash(h, path + i, 1);
            if (!strcmp(name, "outbox.jsonl") && data) h = line_key(h, data, n);
            else if (!strcmp(name, "ledger.jsonl")) {
                /* What is noted again after a restart is the same record at another place. */
                if (data) record = hash(14695981039346656037ULL, data, n);
                h = hash(h, (const char *)&record, sizeof record);
            } else if (each) h = hash(h, (const char *)&place, sizeof place);
            long i = 0;
            while (i < known && seen[i] != h) i++;
            if (i == known && known < MOST) seen[known++] = h, full = 1;
        }
        if (full) {
            answer = n > 1 ? 2 : 1;
            snprintf(last, sizeof last, "%s %s", call, path);
        }
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

static int refused_fd(int fd, const char *call, const char *data, size_t n) {
    if (!armed) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0) return 0;
    path[size] = 0;
    struct stat found;
    if (fstat(fd, &found) || !S_ISREG(found.st_mode)) return 0;
    return refused(path, call, (long)found.st_size, data, n);
}

static int refused_at(int dir, const char *path, const char *call) {
    if (!armed || !path) return 0;
    char whole[2 * PATH_MAX], base[PATH_MAX], link[64];
    if (path[0] == '/') return refused(path, call, 0, 0, 0);
    if (dir == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t size = readlink(link, base, sizeof base - 1);
    if (size <= 0) return 0;
    base[size] = 0;
    snprintf(whole, sizeof whole, "%s/%s", base, path);
    return refused(whole, call, 0, 0, 0);
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define NO_ROOM do { errno = ENOSPC; return -1; } while (0)

ssize_t write(int fd, const void *data, size_t n) {
    REAL(write);
    int answer = refused_fd(fd, "write", data, n);
    if (answer == 1) NO_ROOM;
    return real(fd, data, answer == 2 ? n / 2 : n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    REAL(pwrite);
    int answer = refused_fd(fd, "write", 0, n);
    if (answer == 1) NO_ROOM;
    return real(fd, data, answer == 2 ? n / 2 : n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    REAL(pwrite64);
    int answer = refused_fd(fd, "write", 0, n);
    if (answer == 1) NO_ROOM;
    return real(fd, data, answer == 2 ? n / 2 : n, at);
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(writev);
    if (refused_fd(fd, "write", 0, 0)) NO_ROOM;
    return real(fd, parts, n);
}
ssize_t sendfile(int out, int in, off_t *at, size_t n) {
    REAL(sendfile);
    if (refused_fd(out, "write", 0, 0)) NO_ROOM;
    return real(out, in, at, n);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t n) {
    REAL(sendfile64);
    if (refused_fd(out, "write", 0, 0)) NO_ROOM;
    return real(out, in, at, n);
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t n, unsigned flags) {
    REAL(copy_file_range);
    if (refused_fd(out, "write", 0, 0)) NO_ROOM;
    return real(in, from, out, to, n, flags);
}
int fsync(int fd) {
    REAL(fsync);
    if (refused_fd(fd, "fsync", 0, 0)) NO_ROOM;
    return real(fd);
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    if (armed && access(path, F_OK) && refused_at(AT_FDCWD, path, "mkdir")) NO_ROOM;
    return real(path, mode);
}
int rename(const char *from, const char *to) {
    REAL(rename);
    if (refused_at(AT_FDCWD, to, "rename")) NO_ROOM;
    return real(from, to);
}
int link(const char *from, const char *to) {
    REAL(link);
    if (refused_at(AT_FDCWD, to, "link")) NO_ROOM;
    return real(from, to);
}
#define OPEN(name)                                                                      \
    int name(const char *path, int flags, ...) {                                        \
        REAL(name);                                                                     \
        mode_t mode = 0;                                                                \
        if (flags & O_CREAT) {                                                          \
            va_list rest;                                                               \
            va_start(rest, flags), mode = va_arg(rest, mode_t), va_end(rest);           \
            if (armed && access(path, F_OK) && refused_at(AT_FDCWD, path, "open")) NO_ROOM; \
        }                                                                               \
        return real(path, flags, mode);                                                 \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name)                                                                    \
    int name(int dir, const char *path, int flags, ...) {                               \
        REAL(name);                                                                     \
        mode_t mode = 0;                                                                \
        if (flags & O_CREAT) {                                                          \
            va_list rest;                                                               \
            va_start(rest, flags), mode = va_arg(rest, mode_t), va_end(rest);           \
            if (armed && faccessat(dir, path, F_OK, 0) && refused_at(dir, path, "open")) NO_ROOM; \
        }                                                                               \
        return real(dir, path, flags, mode);                                            \
    }
OPENAT(openat)
OPENAT(openat64)
