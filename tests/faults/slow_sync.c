/* Makes each fsync and fdatasync of a program take SECONDS longer as long as there is a file SLOW_SYNC names.
 *
 * Preloaded (LD_PRELOAD) by the fault tests. Each sync that was made slow adds a byte to that file when it begins.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { SECONDS = 3 };

static void tarry(void)
{
    const char *path = getenv("SLOW_SYNC");
    int fd = path ? open(path, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
    if (fd < 0) return;
    if (write(fd, ".", 1) == 1) sleep(SECONDS);
    close(fd);
}

int fsync(int fd)
{
    tarry();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd)
{
    tarry();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
