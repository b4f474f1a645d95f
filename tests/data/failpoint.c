/* Ends a process at one of the calls by which it changes its disk: before the
 * call, or in the middle of what it writes. Loaded by LD_PRELOAD, because only
 * from inside are the calls of all threads counted in one order. What is asked
 * for comes in the environment; tests/src/failpoint.rs sets it.
 *
 *   FAILPOINT_BELOW  the directory in which calls count
 *   FAILPOINT_LOG    file that gets a line for each of them
 *   FAILPOINT_AT     the number of the call, from 1 on, that is not made
 *   FAILPOINT_TORN   if set, a write is made by half
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static unsigned long calls, at;
static const char *below;
static int torn, log_file = -1;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void prepare(void)
{
    const char *number = getenv("FAILPOINT_AT"), *log = getenv("FAILPOINT_LOG");
    below = getenv("FAILPOINT_BELOW");
    at = number ? strtoul(number, NULL, 10) : 0;
    torn = getenv("FAILPOINT_TORN") != NULL;
    if (log)
        log_file = NEXT(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* Counts a call that changes this path. Once the time has come, no thread
 * returns from here: the mutex stays locked. */
static void reached(const char *call, const char *path, int fd, const void *bytes, size_t len,
                    off_t offset)
{
    char line[PATH_MAX + 64];
    size_t start = below ? strlen(below) : 0;
    if (start == 0 || strncmp(path, below, start) != 0)
        return;
    pthread_mutex_lock(&one_at_a_time);
    int size = snprintf(line, sizeof line, "%s %s\n", call, path + start);
    if (log_file >= 0 && NEXT(write)(log_file, line, size) != size)
        abort();
    if (++calls == at) {
        if (torn && bytes)
            NEXT(pwrite64)(fd, bytes, len / 2, offset);
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    pthread_mutex_unlock(&one_at_a_time);
}

static void reached_fd(const char *call, int fd, const void *bytes, size_t len, off_t offset)
{
    char link[32], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return;
    path[size] = 0;
    reached(call, path, fd, bytes, len, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset)
{
    reached_fd("pwrite", fd, bytes, len, offset);
    return NEXT(pwrite64)(fd, bytes, len, offset);
}

ssize_t write(int fd, const void *bytes, size_t len)
{
    reached_fd("write", fd, NULL, 0, 0);
    return NEXT(write)(fd, bytes, len);
}

int fsync(int fd)
{
    reached_fd("fsync", fd, NULL, 0, 0);
    return NEXT(fsync)(fd);
}

int fdatasync(int fd)
{
    reached_fd("fdatasync", fd, NULL, 0, 0);
    return NEXT(fdatasync)(fd);
}

int ftruncate64(int fd, off64_t len)
{
    reached_fd("ftruncate", fd, NULL, 0, 0);
    return NEXT(ftruncate64)(fd, len);
}

int rename(const char *from, const char *to)
{
    reached("rename", from, -1, NULL, 0, 0);
    return NEXT(rename)(from, to);
}

int unlink(const char *path)
{
    reached("unlink", path, -1, NULL, 0, 0);
    return NEXT(unlink)(path);
}

int unlinkat(int dir, const char *name, int flags)
{
    reached_fd("unlink", dir, NULL, 0, 0);
    return NEXT(unlinkat)(dir, name, flags);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
    reached("link", to, -1, NULL, 0, 0);
    return NEXT(linkat)(from_dir, from, to_dir, to, flags);
}

int mkdir(const char *path, mode_t mode)
{
    reached("mkdir", path, -1, NULL, 0, 0);
    return NEXT(mkdir)(path, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (flags & O_CREAT)
        reached("create", path, -1, NULL, 0, 0);
    return NEXT(open64)(path, flags, mode);
}
