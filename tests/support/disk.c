/* A disk that stalls, fails or is full, for one process: loaded before libc, steered by files in $CHAT_DISK.

       stall   fdatasync and fsync don't return while it is there
       fail    they fail with EIO, having done their work if the file says "after"; a number behind that is of
               syncs that still succeed
       full    writes that would make a file longer fail with ENOSPC
       trace   what happened is appended to it, a line each: what is written to the database's log and sent
               to sockets, by the marks "<<NUMBER>>" in the bytes; and when a sync begins and has returned
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int wanted(const char *name, char *content, size_t size) {
    const char *folder = getenv("CHAT_DISK");
    char path[4096];
    if (!folder) return 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    if (content) {
        long n = syscall(SYS_read, fd, content, size - 1);
        content[n > 0 ? n : 0] = 0;
    }
    syscall(SYS_close, fd);
    return 1;
}

static void trace(const char *line) {
    const char *folder = getenv("CHAT_DISK");
    char path[4096];
    if (!folder) return;
    snprintf(path, sizeof path, "%s/trace", folder);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
    if (fd < 0) return;
    syscall(SYS_write, fd, line, strlen(line));
    syscall(SYS_close, fd);
}

static void trace_marks(const char *what, const void *data, size_t size) {
    const char *at = data, *end = at + size;
    char line[64];
    while ((at = memmem(at, end - at, "<<", 2)) && end - at > 4) {
        int number = 0, digits = 0;
        at += 2;
        while (at < end && *at >= '0' && *at <= '9' && digits < 9) number = number * 10 + *at++ - '0', digits++;
        if (digits && end - at >= 2 && at[0] == '>' && at[1] == '>') {
            snprintf(line, sizeof line, "%s %d\n", what, number);
            trace(line);
        }
    }
}

static int is_full(int fd, off_t end) {
    struct stat found;
    return wanted("full", NULL, 0) && !fstat(fd, &found) && S_ISREG(found.st_mode) && end > found.st_size;
}

static int spared; /* syncs since "fail" has been there */

static int synced(int fd, const char *name) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    char how[16];
    struct timespec pause = {0, 5000000};
    trace("sync\n");
    while (wanted("stall", NULL, 0)) nanosleep(&pause, NULL);
    if (!wanted("fail", how, sizeof how)) {
        spared = 0;
    } else if (spared++ >= atoi(how + strcspn(how, " "))) {
        if (!strncmp(how, "after", 5)) real(fd);
        errno = EIO;
        return -1;
    }
    int result = real(fd);
    trace("synced\n");
    return result;
}

int fdatasync(int fd) { return synced(fd, "fdatasync"); }
int fsync(int fd) { return synced(fd, "fsync"); }

static ssize_t written(int fd, const void *data, size_t size, off_t at) {
    if (is_full(fd, at + (off_t)size)) {
        errno = ENOSPC;
        return -1;
    }
    trace_marks("write", data, size);
    return syscall(SYS_pwrite64, fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return written(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return written(fd, data, size, at); }

ssize_t send(int fd, const void *data, size_t size, int flags) {
    trace_marks("send", data, size);
    return syscall(SYS_sendto, fd, data, size, flags, NULL, 0);
}
