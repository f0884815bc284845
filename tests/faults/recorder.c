/* Records, in their order, the changes that a program makes to the files of one directory, and lets chosen calls fail.
 *
 * Preloaded (LD_PRELOAD) into a program by the fault tests; knows nothing of databases. What it is told:
 *
 *   RECORD_DIR   the directory, without symbolic links; its files are recorded, files below it are not
 *   RECORD_LOG   the file that the record is appended to
 *   RECORD_ACKS  a file outside of the directory; what the program writes there is recorded as an acknowledgement
 *
 * One entry of the log is a line `operation inode offset length name`, followed by `length` bytes: what was written,
 * what was acknowledged, the new name of a rename. It is made after the call succeeded; a sync that failed is entered as
 * `unsynced`. Files whose names end in -shm are not recorded (SQLite makes them anew after a power cut), but their calls
 * count, and can fail, as all others.
 * What slips past (mmap, sendfile, ...) is noticed by whoever compares a replay of the log with the files.
 *
 * The recorder_ functions are for the recorded program itself, through ctypes. Needs Linux with 64-bit off_t.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

_Static_assert(sizeof(off_t) == 8, "the 64-bit names must be the same functions");

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define ENTER pthread_mutex_lock(&lock)
#define LEAVE(result)                                                                                                  \
    do {                                                                                                               \
        int error_ = errno;                                                                                            \
        pthread_mutex_unlock(&lock);                                                                                   \
        errno = error_;                                                                                                \
        return result;                                                                                                 \
    } while (0)

enum { KILL = 0, TEAR = -1 }; /* what may happen at a call; everything above is the errno it fails with */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char directory[PATH_MAX], acks[PATH_MAX];
static int log_fd = -1;

static int is_armed, fault_action;
static char fault_operation[16]; /* only calls of this kind count; empty: all */
static long calls, fault_first, fault_last, faults;
static char trace[1 << 18];
static size_t trace_length;

/* -- what the recorded program can ask for ------------------------------------------------------------------------ */

void recorder_watch(const char *path, const char *log)
{
    ENTER;
    snprintf(directory, sizeof directory, "%s", path);
    if (log_fd >= 0) NEXT(close)(log_fd);
    log_fd = *log ? NEXT(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    pthread_mutex_unlock(&lock);
}

/* From now on calls count; those from `first` to `last` meet `action`. */
void recorder_arm(const char *operation, long first, long last, int action)
{
    ENTER;
    snprintf(fault_operation, sizeof fault_operation, "%s", operation);
    fault_first = first, fault_last = last, fault_action = action;
    calls = faults = 0, trace_length = 0, trace[0] = 0, is_armed = 1;
    pthread_mutex_unlock(&lock);
}

/* Ends that; how many calls met it. */
long recorder_disarm(void)
{
    is_armed = 0;
    return faults;
}

/* The calls that were counted: a line `operation name` each. */
const char *recorder_trace(void)
{
    return trace;
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("RECORD_DIR"), *log = getenv("RECORD_LOG"), *file = getenv("RECORD_ACKS");
    snprintf(acks, sizeof acks, "%s", file ? file : "");
    if (path && log) recorder_watch(path, log);
}

/* -- how ----------------------------------------------------------------------------------------------------------- */

/* The name of `path` inside the directory, "." for the directory itself, NULL for what lies elsewhere. */
static const char *name_of(const char *path)
{
    size_t length = strlen(directory);
    if (!length || strncmp(path, directory, length)) return NULL;
    if (!path[length]) return ".";
    return path[length] == '/' ? path + length + 1 : NULL;
}

static const char *path_of(int fd, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
    return path;
}

static void enter(const char *operation, unsigned long inode, long offset, const char *name, const void *data, size_t n)
{
    size_t length = strlen(name);
    char head[PATH_MAX + 128];
    if (log_fd < 0 || (length >= 4 && !strcmp(name + length - 4, "-shm"))) return;
    int size = snprintf(head, sizeof head, "%s %lu %ld %zu %s\n", operation, inode, offset, n, name);
    struct iovec parts[] = {{head, (size_t)size}, {(void *)data, n}};
    if (syscall(SYS_writev, log_fd, parts, 2) != (long)(size + n)) abort(); /* half a record would prove nothing */
}

static unsigned long inode_of(int fd)
{
    struct stat found;
    return fstat(fd, &found) ? 0 : found.st_ino;
}

static void die(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
    pause();
}

/* Counts a call. 0: it goes on; above: it fails with that errno; TEAR: half of it is done before the end. */
static int meet(const char *operation, const char *name)
{
    if (!is_armed || (*fault_operation && strcmp(operation, fault_operation))) return 0;
    if (trace_length + NAME_MAX + 32 < sizeof trace)
        trace_length += snprintf(trace + trace_length, NAME_MAX + 32, "%s %s\n", operation, name);
    calls++;
    if (calls < fault_first || calls > fault_last) return 0;
    faults++;
    if (fault_action == KILL || (fault_action == TEAR && strcmp(operation, "write"))) die();
    return fault_action;
}

/* -- files and their names ------------------------------------------------------------------------------------------ */

static int opened(int at, const char *path, int flags, mode_t mode)
{
    ENTER;
    const char *name = name_of(path);
    int is_new = name && (flags & O_CREAT) && access(path, F_OK), failure = name ? meet("open", name) : 0;
    if (failure) {
        errno = failure;
        LEAVE(-1);
    }
    int fd = NEXT(openat)(at, path, flags, mode);
    if (fd >= 0 && name) {
        enter(is_new ? "create" : "open", inode_of(fd), 0, name, "", 0);
        if (flags & O_TRUNC && !is_new) enter("truncate", inode_of(fd), 0, name, "", 0);
    }
    LEAVE(fd);
}

#define OPEN(function)                                                                                                 \
    int function(const char *path, int flags, ...)                                                                     \
    {                                                                                                                  \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        return opened(AT_FDCWD, path, flags, mode);                                                                    \
    }
OPEN(open)
OPEN(open64)

int creat(const char *path, mode_t mode)
{
    return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int unlink(const char *path)
{
    ENTER;
    const char *name = name_of(path);
    int failure = name ? meet("unlink", name) : 0;
    if (failure) {
        errno = failure;
        LEAVE(-1);
    }
    int result = NEXT(unlink)(path);
    if (!result && name) enter("unlink", 0, 0, name, "", 0);
    LEAVE(result);
}

int rename(const char *from, const char *to)
{
    ENTER;
    const char *old = name_of(from), *new = name_of(to);
    int failure = old || new ? meet("rename", old ? old : new) : 0;
    if (failure) {
        errno = failure;
        LEAVE(-1);
    }
    int result = NEXT(rename)(from, to);
    if (!result && old && new) enter("rename", 0, 0, old, new, strlen(new));
    else if (!result && old) enter("unlink", 0, 0, old, "", 0); /* moved away; what moves in from elsewhere is not known */
    LEAVE(result);
}

/* -- their content -------------------------------------------------------------------------------------------------- */

/* `offset` -1: where the file stands. */
static ssize_t put(int fd, const void *data, size_t size, off_t offset)
{
    ENTER;
    char path[PATH_MAX];
    const char *name = name_of(path_of(fd, path));
    int failure = name ? meet("write", name) : 0;
    if (failure > 0) {
        errno = failure;
        LEAVE(-1);
    }
    size_t wanted = failure == TEAR ? size / 2 : size;
    ssize_t done = offset < 0 ? NEXT(write)(fd, data, wanted) : NEXT(pwrite)(fd, data, wanted, offset);
    int error = errno;
    if (done > 0 && name) {
        off_t start = offset < 0 ? lseek(fd, 0, SEEK_CUR) - done : offset;
        enter("write", inode_of(fd), start, name, data, (size_t)done);
    } else if (done > 0 && *acks && !strcmp(path, acks)) {
        enter("ack", 0, 0, "acks", data, (size_t)done);
    }
    if (failure == TEAR) die();
    errno = error;
    LEAVE(done);
}

ssize_t write(int fd, const void *data, size_t size)
{
    return put(fd, data, size, -1);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return put(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    return put(fd, data, size, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    ssize_t sum = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = put(fd, parts[i].iov_base, parts[i].iov_len, -1);
        if (done < 0) return sum ? sum : done;
        sum += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return sum;
}

int ftruncate(int fd, off_t size)
{
    ENTER;
    char path[PATH_MAX];
    const char *name = name_of(path_of(fd, path));
    int failure = name ? meet("truncate", name) : 0;
    if (failure) {
        errno = failure;
        LEAVE(-1);
    }
    int result = NEXT(ftruncate)(fd, size);
    if (!result && name) enter("truncate", inode_of(fd), size, name, "", 0);
    LEAVE(result);
}

int ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, size);
}

/* Gives the errno. A file never becomes smaller by it, so that what is recorded is its size afterwards. */
static int allocated(int fd, int mode, off_t offset, off_t size)
{
    ENTER;
    char path[PATH_MAX];
    const char *name = name_of(path_of(fd, path));
    struct stat found;
    int failure = name ? meet("allocate", name) : 0;
    if (!failure && NEXT(fallocate)(fd, mode, offset, size)) failure = errno;
    if (!failure && name && !fstat(fd, &found)) enter("truncate", found.st_ino, found.st_size, name, "", 0);
    LEAVE(failure);
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    return allocated(fd, 0, offset, size);
}

int posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    return allocated(fd, 0, offset, size);
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    int failure = allocated(fd, mode, offset, size);
    if (failure) errno = failure;
    return failure ? -1 : 0;
}

int fallocate64(int fd, int mode, off64_t offset, off64_t size)
{
    return fallocate(fd, mode, offset, size);
}

/* -- what is on the disk -------------------------------------------------------------------------------------------- */

static int synced(int fd, int is_data_only)
{
    ENTER;
    char path[PATH_MAX];
    const char *name = name_of(path_of(fd, path));
    int failure = name ? meet("sync", name) : 0, result = -1;
    if (failure) errno = failure;
    else result = is_data_only ? NEXT(fdatasync)(fd) : NEXT(fsync)(fd);
    int error = errno;
    if (name) enter(result ? "unsynced" : "sync", inode_of(fd), 0, name, "", 0);
    errno = error;
    LEAVE(result);
}

int fsync(int fd)
{
    return synced(fd, 0);
}

int fdatasync(int fd)
{
    return synced(fd, 1);
}
