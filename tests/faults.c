/* Lets one system call that writes below a folder fail, or kills the process in its place.

   Preloaded (LD_PRELOAD); counted are the calls that tests/test_faults.py names. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char below[PATH_MAX];
static long at = -1, count;
static int error, lasting;

/* error 0: kill. lasting: every later call fails as well. */
void faults_set(const char *folder, long number, int code, int from_then_on) {
  strncpy(below, folder, sizeof below - 1);
  at = number; count = 0; error = code; lasting = from_then_on;
}
long faults_count(void) { return count; }

static int strikes(const char *path) {
  char whole[PATH_MAX * 2] = "";
  if (!below[0] || !path) return 0;
  if (path[0] != '/' && getcwd(whole, PATH_MAX)) strcat(whole, "/");
  strncat(whole, path, PATH_MAX - 1);
  if (strncmp(whole, below, strlen(below))) return 0;
  long now = __atomic_fetch_add(&count, 1, __ATOMIC_SEQ_CST);
  if (at < 0 || !(now == at || (lasting && now > at))) return 0;
  if (!error) kill(getpid(), SIGKILL);
  errno = error;
  return 1;
}

static int strikes_fd(int fd) {
  char link[64], path[PATH_MAX];
  if (!below[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  return strikes(path);
}

#define REAL(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))
ssize_t write(int fd, const void *b, size_t n) {
  return strikes_fd(fd) ? -1 : REAL(ssize_t, "write", int, const void *, size_t)(fd, b, n);
}
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) {
  return strikes_fd(fd) ? -1 : REAL(ssize_t, "pwrite", int, const void *, size_t, off_t)(fd, b, n, o);
}
ssize_t pwrite64(int fd, const void *b, size_t n, off_t o) { return pwrite(fd, b, n, o); }
ssize_t writev(int fd, const struct iovec *v, int n) {
  return strikes_fd(fd) ? -1 : REAL(ssize_t, "writev", int, const struct iovec *, int)(fd, v, n);
}
size_t fwrite(const void *b, size_t s, size_t n, FILE *f) {
  return strikes_fd(fileno(f)) ? 0 : REAL(size_t, "fwrite", const void *, size_t, size_t, FILE *)(b, s, n, f);
}
ssize_t sendfile(int o, int i, off_t *p, size_t n) {
  return strikes_fd(o) ? -1 : REAL(ssize_t, "sendfile", int, int, off_t *, size_t)(o, i, p, n);
}
ssize_t sendfile64(int o, int i, off_t *p, size_t n) { return sendfile(o, i, p, n); }
int fsync(int fd) { return strikes_fd(fd) ? -1 : REAL(int, "fsync", int)(fd); }
int fdatasync(int fd) { return strikes_fd(fd) ? -1 : REAL(int, "fdatasync", int)(fd); }
int rename(const char *a, const char *b) {
  return strikes(b) ? -1 : REAL(int, "rename", const char *, const char *)(a, b);
}
int renameat(int x, const char *a, int y, const char *b) {
  return strikes(b) ? -1 : REAL(int, "renameat", int, const char *, int, const char *)(x, a, y, b);
}
int mkdir(const char *p, mode_t m) {
  return strikes(p) ? -1 : REAL(int, "mkdir", const char *, mode_t)(p, m);
}
int mkdirat(int d, const char *p, mode_t m) {
  return strikes(p) ? -1 : REAL(int, "mkdirat", int, const char *, mode_t)(d, p, m);
}
