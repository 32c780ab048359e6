/* Checks the GPIO card: configuration space, its BAR, its interrupt, and Linux's own driver, by sysfs and by the character device. */
#include <linux/gpio.h>
#include <poll.h>
#include <sys/ioctl.h>

#include "pci.h"

#define HANGS 100 /* seconds */
#define LINES 16 /* outputs first, as many inputs behind them */
#define OUTPUTS_LOW 0
#define INPUTS_LOW 1
#define OUTPUTS_HIGH 4
#define INPUTS_HIGH 5

static uint8_t bar_read(unsigned offset)
{
    uint8_t value;
    int fd = open_attribute("resource2", O_RDWR);
    CHECK(pread(fd, &value, 1, offset) == 1, "port %u", offset);
    close(fd);
    return value;
}

static void bar_write(unsigned offset, uint8_t value)
{
    int fd = open_attribute("resource2", O_RDWR);
    CHECK(pwrite(fd, &value, 1, offset) == 1, "port %u", offset);
    close(fd);
}

static void enable(void)
{
    int fd = open_attribute("enable", O_WRONLY);
    CHECK(write(fd, "1", 1) == 1, "enable");
    close(fd);
}

static void before_drivers(void)
{
    CHECK(config_read32(8) == 0x11800000, "class %#x", config_read32(8));
    CHECK((config_read32(0x18) & 1) == 1, "BAR 2 is no I/O BAR: %#x", config_read32(0x18));
    CHECK((config_read32(0x3c) >> 8 & 0xff) == 1, "interrupt pin");
    for (unsigned index = 0; index < 6; index++)
        CHECK(bar_size(index) == (index == 2 ? 8 : 0), "size of BAR %u", index);
    enable();
    /* what an earlier guest, or this one before it rebooted, has left must be gone */
    CHECK(bar_read(OUTPUTS_LOW) == 0 && bar_read(OUTPUTS_HIGH) == 0, "outputs are not 0");
    for (unsigned value = 0; value < 256; value++) {
        bar_write(OUTPUTS_LOW, value);
        bar_write(OUTPUTS_HIGH, ~value);
        CHECK(bar_read(INPUTS_LOW) == value, "input reads %#x, not %#x", bar_read(INPUTS_LOW), value);
        CHECK(bar_read(INPUTS_HIGH) == (uint8_t)~value, "input of %#x", value);
    }
    bar_write(OUTPUTS_LOW, 0);
    bar_write(OUTPUTS_HIGH, 0);
}

static int request_lines(int chip, unsigned first, uint64_t flags)
{
    struct gpio_v2_line_request request = {.num_lines = LINES, .config.flags = flags};
    for (unsigned line = 0; line < LINES; line++)
        request.offsets[line] = first + line;
    strcpy(request.consumer, "check");
    CHECK(ioctl(chip, GPIO_V2_GET_LINE_IOCTL, &request) == 0, "lines from %u", first);
    return request.fd;
}

static uint64_t get_lines(int fd)
{
    struct gpio_v2_line_values values = {.mask = (1 << LINES) - 1};
    CHECK(ioctl(fd, GPIO_V2_LINE_GET_VALUES_IOCTL, &values) == 0, "get");
    return values.bits;
}

static void set_lines(int fd, uint64_t bits, uint64_t mask)
{
    struct gpio_v2_line_values values = {.bits = bits, .mask = mask};
    CHECK(ioctl(fd, GPIO_V2_LINE_SET_VALUES_IOCTL, &values) == 0, "set");
}

static void check_character_device(void)
{
    int chip = open("/dev/gpiochip0", O_RDWR);
    CHECK(chip >= 0, "/dev/gpiochip0");
    struct gpiochip_info info;
    CHECK(ioctl(chip, GPIO_GET_CHIPINFO_IOCTL, &info) == 0, "chip info");
    CHECK(info.lines == 2 * LINES, "%u lines", info.lines);
    int outputs = request_lines(chip, 0, GPIO_V2_LINE_FLAG_OUTPUT);
    int inputs = request_lines(chip, LINES, GPIO_V2_LINE_FLAG_INPUT);
    for (uint64_t pattern = 1; pattern <= 0xffff; pattern = pattern * 3 + 1) {
        set_lines(outputs, pattern, 0xffff);
        CHECK(get_lines(inputs) == pattern, "inputs %#llx", (unsigned long long)get_lines(inputs));
        CHECK(get_lines(outputs) == pattern, "outputs of %#llx", (unsigned long long)pattern);
    }
    for (unsigned line = 0; line < LINES; line++) { /* one changes, the others stay */
        uint64_t before = get_lines(inputs), bit = (uint64_t)1 << line;
        set_lines(outputs, ~before & bit, bit);
        CHECK(get_lines(inputs) == (before ^ bit), "line %u", line);
    }
    close(outputs);
    close(inputs);
    close(chip);
}

/* How often the card's interrupt has come, by /proc/interrupts. */
static unsigned long interrupts(void)
{
    char line[400], number[16] = "";
    int fd = open_attribute("irq", O_RDONLY);
    CHECK(read(fd, number, sizeof number - 1) > 0, "irq");
    close(fd);
    FILE *file = fopen("/proc/interrupts", "r");
    CHECK(file != NULL, "/proc/interrupts");
    unsigned long count = 0;
    int found = 0;
    while (!found && fgets(line, sizeof line, file)) {
        char *end;
        found = strtol(line, &end, 10) == atoi(number) && *end == ':';
        count = found ? strtoul(end + 1, NULL, 10) : 0;
    }
    fclose(file);
    CHECK(found, "interrupt %s is not there", number);
    return count;
}

/*
 * The driver turns an interrupt of the card into an edge of every line that somebody waits for. All of them are waited for: Linux
 * 6.12 oopses when an interrupt comes while there is a line whose interrupt nobody has ever asked for.
 */
static void check_edges(void)
{
    const uint64_t edges = GPIO_V2_LINE_FLAG_EDGE_RISING | GPIO_V2_LINE_FLAG_EDGE_FALLING;
    int chip = open("/dev/gpiochip0", O_RDWR);
    CHECK(chip >= 0, "/dev/gpiochip0");
    int outputs = request_lines(chip, 0, GPIO_V2_LINE_FLAG_OUTPUT);
    int inputs = request_lines(chip, LINES, GPIO_V2_LINE_FLAG_INPUT | edges);
    unsigned long before = interrupts(), changes = 0;
    for (unsigned change = 0; change < 2 * LINES; change++) { /* one after the other rises, then they fall */
        uint64_t bit = (uint64_t)1 << change % LINES, up = change < LINES ? 0xffff : 0, seen = 0;
        set_lines(outputs, up, bit);
        while (seen != 0xffff) {
            struct pollfd wait = {.fd = inputs, .events = POLLIN};
            CHECK(poll(&wait, 1, HANGS * 1000) == 1, "change %u: edges of %#llx only", change, (unsigned long long)seen);
            struct gpio_v2_line_event event;
            CHECK(read(inputs, &event, sizeof event) == sizeof event, "event");
            uint64_t line = (uint64_t)1 << (event.offset - LINES);
            CHECK(event.line_seqno == change + 1, "line %u: edge %u", event.offset, event.line_seqno);
            int rises = event.id == GPIO_V2_LINE_EVENT_RISING_EDGE;
            CHECK(rises == !!(get_lines(inputs) & line), "line %u: edge %u", event.offset, event.id);
            CHECK(line != bit || rises == !!up, "line %u: edge %u", event.offset, event.id);
            seen |= line;
        }
        /* Or more: QEMU unmasks the pin at any access, so that the driver's look at the status raises it once more. */
        CHECK(interrupts() >= before + ++changes, "%lu interrupts for %lu changes", interrupts() - before, changes);
    }
    close(inputs);
    printf("edges: %lu interrupts for %lu changes\n", interrupts() - before, changes);
    before = interrupts();
    for (unsigned change = 0; change < LINES; change++) /* nobody waits any more: the driver has switched them off */
        set_lines(outputs, change & 1 ? 0 : 0xffff, 0xffff);
    CHECK(interrupts() <= before + 1, "%lu interrupts that are switched off", interrupts() - before);
    close(outputs);
    close(chip);
}

static void attribute(char *data, const char *name, const char *value)
{
    char path[300];
    snprintf(path, sizeof path, "/sys/class/gpio/%s", name);
    int fd = open(path, value ? O_WRONLY : O_RDONLY);
    CHECK(fd >= 0, "open %s", path);
    if (value) {
        CHECK(write(fd, value, strlen(value)) == (ssize_t)strlen(value), "%s to %s", value, path);
    } else {
        ssize_t count = read(fd, data, 31);
        CHECK(count > 0, "read %s", path);
        data[count] = 0;
    }
    close(fd);
}

/* Kernels name a line's folder after the driver's name for it, or after its number. */
static void line_name(char name[64], const char *kind, int line, int pin)
{
    char path[300];
    snprintf(name, 64, "%s%d/value", kind, line);
    snprintf(path, sizeof path, "/sys/class/gpio/%s", name);
    if (access(path, F_OK) != 0)
        snprintf(name, 64, "gpio%d/value", pin);
}

static void check_sysfs(void)
{
    char name[64], text[32];
    int base = -1;
    for (int number = 0; number < 1024 && base < 0; number++) {
        snprintf(name, sizeof name, "/sys/class/gpio/gpiochip%d", number);
        if (access(name, F_OK) == 0)
            base = number;
    }
    CHECK(base >= 0, "no chip in sysfs");
    for (int line = 0; line < LINES; line++) {
        for (int pin = base + line; pin <= base + line + LINES; pin += LINES) {
            snprintf(text, sizeof text, "%d", pin);
            attribute(NULL, "export", text);
        }
        for (int value = 2; value-- > 0;) {
            line_name(name, "OUT", line, base + line);
            attribute(NULL, name, value ? "1" : "0");
            line_name(name, "IIN", line, base + line + LINES);
            attribute(text, name, NULL);
            CHECK(text[0] == '0' + value, "%s: %s", name, text);
        }
    }
}

static void with_drivers(void)
{
    char path[600], driver[300];
    snprintf(path, sizeof path, "%s/driver", device_path);
    ssize_t length = readlink(path, driver, sizeof driver - 1);
    CHECK(length > 0, "no driver is bound");
    driver[length] = 0;
    CHECK(strstr(driver, "idio-16") != NULL, "driver %s", driver);
    printf("driver %s\n", driver);
    check_character_device();
    check_edges();
    check_sysfs();
    bar_write(OUTPUTS_LOW, 0x5a); /* for a reset to clear */
    CHECK(bar_read(INPUTS_LOW) == 0x5a, "input");
}

/* Uses the device until it no longer answers. */
static void watch(void)
{
    puts("WATCH begins");
    while (bar_read(INPUTS_LOW) == 0x5a)
        ;
}

int main(int count, char **words)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *part = count > 1 ? words[1] : "";
    find_device(0x494f, 0x0dc8);
    if (strcmp(part, "before-drivers") == 0)
        before_drivers();
    else if (strcmp(part, "with-drivers") == 0)
        with_drivers();
    else
        watch();
    return 0;
}
