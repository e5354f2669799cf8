/* A disk that fails or hangs on request: preload it into a server, and it sees the files of SQLite.
 *
 * DISK_FAULTS names a folder. A file in it is an order:
 *   fail-sync-N  the Nth sync from the start of the process fails, and no other
 *   fail-next    the next sync fails
 *   fail-syncs   each sync fails
 *   fail-writes  each write fails
 *   no-space     what fails says ENOSPC, and not EIO
 *   hang-syncs   each sync waits until the file is gone
 *   hang-reads   each read waits until the file is gone
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

typedef int lookup(const char *path);

static int look_up(const char *order, lookup *found)
{
    const char *folder = getenv("DISK_FAULTS");
    char path[512];
    if (!folder)
        return 0;
    snprintf(path, sizeof path, "%s/%s", folder, order);
    return found(path);
}

static int exists(const char *path) { return access(path, F_OK) == 0; }
static int is_removed(const char *path) { return unlink(path) == 0; }

static int ordered(const char *order) { return look_up(order, exists); }
static int ordered_once(const char *order) { return look_up(order, is_removed); }

static int is_database(int file)
{
    char link[64], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strstr(path, ".sqlite3") != NULL;
}

static void wait_while(const char *order)
{
    const struct timespec moment = {0, 10000000};
    while (ordered(order))
        nanosleep(&moment, NULL);
}

static int failed(void)
{
    errno = ordered("no-space") ? ENOSPC : EIO;
    return -1;
}

static int sync_file(int file, const char *function)
{
    static int count;
    int (*next)(int) = dlsym(RTLD_NEXT, function);
    if (is_database(file)) {
        char order[64];
        snprintf(order, sizeof order, "fail-sync-%d", __sync_add_and_fetch(&count, 1));
        wait_while("hang-syncs");
        if (ordered("fail-syncs") || ordered(order) || ordered_once("fail-next"))
            return failed();
    }
    return next(file);
}

int fsync(int file) { return sync_file(file, "fsync"); }
int fdatasync(int file) { return sync_file(file, "fdatasync"); }

static ssize_t write_file(int file, const void *data, size_t size, off_t offset, const char *function)
{
    ssize_t (*next)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, function);
    if (is_database(file) && ordered("fail-writes"))
        return failed();
    return next(file, data, size, offset);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t offset)
{
    return write_file(file, data, size, offset, "pwrite");
}

ssize_t pwrite64(int file, const void *data, size_t size, off_t offset)
{
    return write_file(file, data, size, offset, "pwrite64");
}

static ssize_t read_file(int file, void *data, size_t size, off_t offset, const char *function)
{
    ssize_t (*next)(int, void *, size_t, off_t) = dlsym(RTLD_NEXT, function);
    if (is_database(file))
        wait_while("hang-reads");
    return next(file, data, size, offset);
}

ssize_t pread(int file, void *data, size_t size, off_t offset)
{
    return read_file(file, data, size, offset, "pread");
}

ssize_t pread64(int file, void *data, size_t size, off_t offset)
{
    return read_file(file, data, size, offset, "pread64");
}
