/* Preloaded library: the folder $FAULTY_FOLDER lies on a file system that cannot sync directories, as CIFS, or has no
   locks, as NFS without a lock service. $FAULT names the system call that fails, fsync or flock. */

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_faulty(const char *call, int descriptor)
{
    const char *fault = getenv("FAULT"), *folder = getenv("FAULTY_FOLDER");
    char link[64], path[PATH_MAX + 1];
    if (!fault || !folder || strcmp(fault, call) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return strncmp(path, folder, strlen(folder)) == 0;
}

int fsync(int descriptor)
{
    struct stat status;
    if (is_faulty("fsync", descriptor) && fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_fsync, descriptor);
}

int flock(int descriptor, int operation)
{
    if (is_faulty("flock", descriptor)) {
        errno = ENOLCK;
        return -1;
    }
    return syscall(SYS_flock, descriptor, operation);
}
