/* A file server that forgets its handles: calls on files below $STALE_BELOW fail with ESTALE, $STALE_RATE of a thousand
   at random, all while the file $STALE_ALL exists. Half of those that change something have done so before they fail. Each
   failure adds a byte to the file $STALE_LOG. Preloaded into every process of a run. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)

static unsigned next(void) {
  static __thread unsigned state;
  if (!state) state = (unsigned)(getpid() * 2654435761u ^ time(0)) | 1;
  state ^= state << 13, state ^= state >> 17, state ^= state << 5;
  return state;
}

static int below(int at, const char *path) {
  char link[64], found[4096];
  const char *top = getenv("STALE_BELOW");
  if (!top) return 0;
  if (!path || path[0] != '/') {
    if (at < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    long n = syscall(SYS_readlink, link, found, sizeof found - 1);
    if (n <= 0) return 0;
    found[n] = 0, path = found;
  }
  return !strncmp(path, top, strlen(top));
}

/* Whether the call fails. */
static int stale(int at, const char *path) {
  int saved = errno;
  if (!below(at, path)) return 0;
  const char *all = getenv("STALE_ALL"), *rate = getenv("STALE_RATE"), *log = getenv("STALE_LOG");
  if (!(all && !syscall(SYS_access, all, F_OK)) && (int)(next() % 1000) >= (rate ? atoi(rate) : 0)) {
    errno = saved;
    return 0;
  }
  int out = log ? syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT, 0644) : -1;
  if (out >= 0) syscall(SYS_write, out, ".", 1), syscall(SYS_close, out);
  return 1;
}

#define FAIL return errno = ESTALE, -1
#define LATE(call) do { if (next() & 1) (void)!(call); FAIL; } while (0)

int openat64(int at, const char *path, int flags, ...) {
  va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more);
  REAL(int, "openat64", int, const char *, int, ...);
  if (stale(at, path)) FAIL;
  return real(at, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
  va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more);
  REAL(int, "open64", const char *, int, ...);
  if (stale(-1, path)) FAIL;
  return real(path, flags, mode);
}
ssize_t read(int fd, void *into, size_t n) {
  REAL(ssize_t, "read", int, void *, size_t);
  if (stale(fd, 0)) FAIL;
  return real(fd, into, n);
}
ssize_t write(int fd, const void *from, size_t n) {
  REAL(ssize_t, "write", int, const void *, size_t);
  if (stale(fd, 0)) LATE(real(fd, from, n / 2));
  return real(fd, from, n);
}
int fsync(int fd) {
  REAL(int, "fsync", int);
  if (stale(fd, 0)) LATE(real(fd));
  return real(fd);
}
int fstat64(int fd, struct stat64 *into) {
  REAL(int, "fstat64", int, struct stat64 *);
  if (stale(fd, 0)) FAIL;
  return real(fd, into);
}
int fstatat64(int at, const char *path, struct stat64 *into, int flags) {
  REAL(int, "fstatat64", int, const char *, struct stat64 *, int);
  if (stale(at, path)) FAIL;
  return real(at, path, into, flags);
}
int renameat(int at, const char *path, int other, const char *to) {
  REAL(int, "renameat", int, const char *, int, const char *);
  if (stale(at, path)) LATE(real(at, path, other, to));
  return real(at, path, other, to);
}
int unlinkat(int at, const char *path, int flags) {
  REAL(int, "unlinkat", int, const char *, int);
  if (stale(at, path)) LATE(real(at, path, flags));
  return real(at, path, flags);
}
int mkdirat(int at, const char *path, mode_t mode) {
  REAL(int, "mkdirat", int, const char *, mode_t);
  if (stale(at, path)) LATE(real(at, path, mode));
  return real(at, path, mode);
}
int utimensat(int at, const char *path, const struct timespec times[2], int flags) {
  REAL(int, "utimensat", int, const char *, const struct timespec *, int);
  if (stale(at, path)) LATE(real(at, path, times, flags));
  return real(at, path, times, flags);
}
struct dirent64 *readdir64(DIR *dir) {
  REAL(struct dirent64 *, "readdir64", DIR *);
  if (stale(dirfd(dir), 0)) return errno = ESTALE, NULL;
  return real(dir);
}
