/* A PCI device as the guest's sysfs shows it, and what all checks need. */
#ifndef PCI_H
#define PCI_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char device_path[300]; /* /sys/bus/pci/devices/... */

/* Ends the check: the guest's verdict is then that it failed. */
#define CHECK(condition, ...)                                                  \
    do {                                                                       \
        if (!(condition)) {                                                    \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);             \
            printf(__VA_ARGS__);                                               \
            printf(" (%s)\n", strerror(errno));                                \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

static inline int open_attribute(const char *name, int flags)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", device_path, name);
    int fd = open(path, flags);
    CHECK(fd >= 0, "open %s", path);
    return fd;
}

static inline void config_access(int writes, unsigned offset, void *data, size_t size)
{
    int fd = open_attribute("config", O_RDWR);
    ssize_t done = writes ? pwrite(fd, data, size, offset) : pread(fd, data, size, offset);
    CHECK(done == (ssize_t)size, "%zu bytes of config space at %#x: %zd", size, offset, done);
    close(fd);
}

static inline uint16_t config_read16(unsigned offset)
{
    uint16_t value;
    config_access(0, offset, &value, sizeof value);
    return value;
}

static inline void config_write16(unsigned offset, uint16_t value)
{
    config_access(1, offset, &value, sizeof value);
}

static inline uint32_t config_read32(unsigned offset)
{
    uint32_t value;
    config_access(0, offset, &value, sizeof value);
    return value;
}

/* Finds the one device with these numbers. */
static inline void find_device(uint16_t vendor, uint16_t device)
{
    DIR *all = opendir("/sys/bus/pci/devices");
    CHECK(all != NULL, "no PCI");
    unsigned found = 0;
    char last[300] = "";
    for (struct dirent *entry; (entry = readdir(all)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(device_path, sizeof device_path, "/sys/bus/pci/devices/%.200s", entry->d_name);
        uint32_t id = config_read32(0);
        if (id == ((uint32_t)device << 16 | vendor)) {
            found++;
            strcpy(last, device_path);
        }
    }
    closedir(all);
    CHECK(found == 1, "%u devices %04x:%04x", found, vendor, device);
    strcpy(device_path, last);
    printf("found %04x:%04x at %s\n", vendor, device, device_path);
}

/* The bytes of a BAR, 0 if it is not there. */
static inline uint64_t bar_size(unsigned index)
{
    char path[600];
    snprintf(path, sizeof path, "%s/resource", device_path);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL, "open %s", path);
    unsigned long long start = 0, end = 0, flags;
    for (unsigned line = 0; line <= index; line++)
        CHECK(fscanf(file, "%llx %llx %llx", &start, &end, &flags) == 3, "line %u of %s", line, path);
    fclose(file);
    return end ? end - start + 1 : 0;
}

#endif
