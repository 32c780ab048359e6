/*
 * Checks the copy engine from the guest: every byte of every copy, every error bit, both kinds of interrupt.
 *
 * There is no driver for it. Memory is huge pages, whose physical addresses the kernel tells; MSI-X, which is nothing but a
 * memory write, is pointed at one of them; the interrupt pin is waited for through uio_pci_generic.
 */
#include <poll.h>
#include <sys/mman.h>
#include <time.h>

#include "pci.h"

#define HUGE (2ul << 20)
#define HANGS 100 /* seconds */

#define SOURCE 0x00
#define DESTINATION 0x08
#define LENGTH 0x10
#define CONTROL 0x18
#define STATUS 0x1c
#define COPIED 0x20

#define START 1u
#define PAUSE 2u
#define BUSY 1u
#define DONE 2u
#define ERROR_LENGTH 0x100u
#define ERROR_SOURCE 0x200u
#define ERROR_DESTINATION 0x400u
#define ERROR_OVERLAP 0x800u
#define ERROR_BUSY 0x1000u
#define ALL_ONES 0xffffffffu

#define PCI_COMMAND 4
#define COMMAND_MEMORY_MASTER 6u
#define COMMAND_PIN_DISABLE 0x400u
#define PCI_STATUS 6
#define STATUS_PIN 8u
#define MSIX_ENABLE 0x8000u

/* What an MSI-X vector writes, and where. */
#define MESSAGE 0xc0de0000u
static volatile uint32_t *mailbox;
static uint64_t mailbox_address;
static unsigned msix;

static volatile uint8_t *bar, *table;

/* Two places to copy between, physically contiguous, each HUGE bytes. */
static uint8_t *source, *destination;
static uint64_t source_address, destination_address;
static uint8_t *expected;

static uint32_t get(unsigned reg)
{
    return *(volatile uint32_t *)(bar + reg);
}

static void put(unsigned reg, uint32_t value)
{
    *(volatile uint32_t *)(bar + reg) = value;
}

static uint64_t get_long(unsigned reg)
{
    return get(reg) | (uint64_t)get(reg + 4) << 32;
}

static void put_long(unsigned reg, uint64_t value)
{
    put(reg, value);
    put(reg + 4, value >> 32);
}

static volatile uint8_t *map_bar(const char *name)
{
    int fd = open_attribute(name, O_RDWR);
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED, "map %s", name);
    close(fd);
    return memory;
}

static void *huge_page(uint64_t *address)
{
    uint8_t *page = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
    CHECK(page != MAP_FAILED, "no huge page");
    memset(page, 0, HUGE);
    uint64_t entry;
    int fd = open("/proc/self/pagemap", O_RDONLY);
    CHECK(pread(fd, &entry, 8, (uintptr_t)page / 4096 * 8) == 8, "pagemap");
    close(fd);
    CHECK(entry >> 63 && (entry & ((1ull << 55) - 1)), "page is not there: %#llx", (unsigned long long)entry);
    *address = (entry & ((1ull << 55) - 1)) * 4096;
    return page;
}

static unsigned find_capability(uint8_t id)
{
    uint8_t at;
    config_access(0, 0x34, &at, 1);
    while (at) {
        uint16_t head = config_read16(at);
        if ((head & 0xff) == id)
            return at;
        at = head >> 8;
    }
    CHECK(0, "no capability %#x", id);
    return 0;
}

static time_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

/* The device must not be asked while it may be using memory by messages: the guest's own memory says when it is done. */
static void await_vector(unsigned vector)
{
    for (time_t end = now() + HANGS; mailbox[vector] == 0;)
        CHECK(now() < end, "vector %u never comes", vector);
    CHECK(mailbox[vector] == MESSAGE + vector, "vector %u writes %#x", vector, mailbox[vector]);
    mailbox[vector] = 0;
}

static void set_up_msix(void)
{
    msix = find_capability(0x11);
    CHECK((config_read16(msix + 2) & 0x7ff) == 1, "number of vectors, less 1");
    CHECK(config_read32(msix + 4) == 2 && config_read32(msix + 8) == 0x802, "where the table is");
    for (unsigned vector = 0; vector < 2; vector++) {
        volatile uint32_t *entry = (volatile uint32_t *)(table + 16 * vector);
        entry[0] = mailbox_address + 4 * vector;
        entry[1] = (mailbox_address + 4 * vector) >> 32;
        entry[2] = MESSAGE + vector;
        entry[3] = 0; /* not masked */
    }
    config_write16(msix + 2, MSIX_ENABLE);
    CHECK(config_read16(msix + 2) & MSIX_ENABLE, "enable");
}

static void fill(uint8_t *memory, size_t length, uint64_t seed)
{
    for (size_t at = 0; at < length; at++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        memory[at] = seed >> 56;
    }
}

static void set_copy(uint64_t from, uint64_t to, uint64_t length)
{
    put_long(SOURCE, from);
    put_long(DESTINATION, to);
    put_long(LENGTH, length);
}

static void compare(const char *what)
{
    for (size_t at = 0; at < HUGE; at++)
        CHECK(destination[at] == expected[at], "%s: byte %#zx is %#x, not %#x", what, at, destination[at], expected[at]);
}

static void finish(uint32_t status, uint64_t copied)
{
    CHECK(get(STATUS) == status, "status %#x, not %#x", get(STATUS), status);
    CHECK(get_long(COPIED) == copied, "copied %#llx", (unsigned long long)get_long(COPIED));
    put(STATUS, ALL_ONES);
    CHECK(get(STATUS) == 0, "status %#x after it was cleared", get(STATUS));
}

static void copies(void)
{
    static const struct {
        uint32_t from, to, length;
    } cases[] = {{0, 0, 1},           {1, 2, 3},          {0, 0, 4096},         {4095, 1, 4098},
                 {0, 0x1000, 0x10000}, {3, 5, 0x10001},    {0x1234, 0x4321, 0x54321}, {0, 0, HUGE}};
    for (unsigned at = 0; at < sizeof cases / sizeof *cases; at++) {
        uint32_t from = cases[at].from, to = cases[at].to, length = cases[at].length;
        fill(source, HUGE, at);
        memset(destination, 0xee, HUGE);
        memset(expected, 0xee, HUGE);
        memcpy(expected + to, source + from, length);
        set_copy(source_address + from, destination_address + to, length);
        put(CONTROL, START);
        await_vector(0);
        compare("copy");
        finish(DONE, length);
        printf("copied %u bytes, all %lu compared\n", length, HUGE);
    }
}

static void nonsense(void)
{
    uint64_t s = source_address, d = destination_address, hole = 0xd0000000, end = ~0ull;
    const struct {
        uint64_t from, to, length;
        uint32_t error;
    } cases[] = {{s, d, 0, ERROR_LENGTH},
                 {s, d, end, ERROR_LENGTH},
                 {end - 0xff, d, 0x101, ERROR_LENGTH},
                 {s, end - 0xff, 0x101, ERROR_LENGTH},
                 {hole, d, 0x1000, ERROR_SOURCE},
                 {end - 0x1fff, d, 0x1000, ERROR_SOURCE},
                 {s, hole, 0x1000, ERROR_DESTINATION},
                 {s, 1ull << 52, 0x1000, ERROR_DESTINATION},
                 {0x100000, hole, 0x40000000, ERROR_SOURCE}, /* begins in memory, and ends outside */
                 {s, s + 0xfff, 0x1000, ERROR_OVERLAP},
                 {s, s, 1, ERROR_OVERLAP}};
    memset(destination, 0x77, HUGE);
    memset(expected, 0x77, HUGE);
    for (unsigned at = 0; at < sizeof cases / sizeof *cases; at++) {
        set_copy(cases[at].from, cases[at].to, cases[at].length);
        put(CONTROL, START);
        await_vector(1);
        finish(cases[at].error, 0);
        printf("nonsense %u: error %#x\n", at, cases[at].error);
    }
    compare("nonsense");
}

static void start_while_one_runs(void)
{
    fill(source, HUGE, 77);
    memset(destination, 0x55, HUGE);
    memset(expected, 0x55, HUGE);
    memcpy(expected, source, HUGE / 2);
    set_copy(source_address, destination_address, HUGE / 2);
    put(CONTROL, START | PAUSE);
    CHECK(get(STATUS) == BUSY, "status %#x", get(STATUS));
    put(CONTROL, START | PAUSE);
    await_vector(1);
    CHECK(get(STATUS) == (BUSY | ERROR_BUSY), "status %#x", get(STATUS));
    put(STATUS, ERROR_BUSY);
    put_long(DESTINATION, source_address); /* refused, both halves */
    await_vector(1);
    put(STATUS, ERROR_BUSY);
    mailbox[1] = 0; /* the second half raised it, too, at the latest when the status was written */
    put(CONTROL, 0);
    await_vector(0);
    compare("copy that was disturbed");
    finish(DONE, HUGE / 2);
    puts("a start while one runs: refused, the copy is whole");
}

/* As the others, with the pin. */
static void pin(void)
{
    config_write16(msix + 2, 0);
    int uio = open("/dev/uio0", O_RDWR);
    CHECK(uio >= 0, "/dev/uio0");
    for (unsigned round = 1; round <= 3; round++) {
        fill(source, HUGE, 1000 + round);
        memset(destination, 0x99, HUGE);
        memset(expected, 0x99, HUGE);
        uint32_t length = 0x10003 * round, error = round == 3;
        if (!error)
            memcpy(expected + round, source, length);
        config_write16(PCI_COMMAND, COMMAND_MEMORY_MASTER); /* the pin is on again */
        set_copy(source_address, error ? source_address : destination_address + round, length);
        put(CONTROL, START);
        struct pollfd wait = {.fd = uio, .events = POLLIN};
        CHECK(poll(&wait, 1, HANGS * 1000) == 1, "interrupt %u never comes", round);
        uint32_t count;
        CHECK(read(uio, &count, sizeof count) == sizeof count && count == round, "interrupt %u", count);
        CHECK(config_read16(PCI_COMMAND) & COMMAND_PIN_DISABLE, "its handler has not seen the device's status");
        CHECK(config_read16(PCI_STATUS) & STATUS_PIN, "pin's status");
        compare("copy with the pin");
        finish(error ? ERROR_OVERLAP : DONE, error ? 0 : length);
        CHECK(!(config_read16(PCI_STATUS) & STATUS_PIN), "pin's status after it was acknowledged");
        printf("pin: interrupt %u\n", count);
    }
    close(uio);
}

static void bind_uio(void)
{
    int fd = open("/sys/bus/pci/drivers/uio_pci_generic/new_id", O_WRONLY);
    CHECK(fd >= 0, "uio_pci_generic");
    CHECK(write(fd, "1af4 d3a0", 9) == 9, "new_id");
    close(fd);
}

int main(int count, char **words)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    find_device(0x1af4, 0xd3a0);
    if (count < 2 || strcmp(words[1], "with-drivers") != 0) {
        CHECK(config_read32(8) == 0x08010000, "class %#x", config_read32(8));
        CHECK(bar_size(0) == 4096 && bar_size(2) == 4096, "sizes of BARs");
        return 0;
    }
    bind_uio();
    config_write16(PCI_COMMAND, COMMAND_MEMORY_MASTER);
    bar = map_bar("resource0");
    table = map_bar("resource2");
    source = huge_page(&source_address);
    destination = huge_page(&destination_address);
    mailbox = huge_page(&mailbox_address);
    expected = malloc(HUGE);
    CHECK(expected != NULL, "no memory");
    CHECK(get(STATUS) == 0, "status %#x at the start", get(STATUS));
    set_up_msix();
    copies();
    nonsense();
    start_while_one_runs();
    pin();
    return 0;
}
