/*
 * One process of the benchmark: `bench SUBJECT ROW PARAMETER`, where SUBJECT is a library's path or `floor`.
 *
 * It gets ready, prints `ready`, and then for each number of operations that it reads, a line with the seconds they took, until
 * its input ends. Time is what the thread, or client and server together, spent on the CPU, the kernel's work for them included:
 * what other programs do meanwhile disturbs it little.
 */

#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "bench.h"

static server_maker make;
static struct server *server;
static struct server **many;
static long parameter;
static int memory = -1;
static bool library;
static clockid_t client_clock = CLOCK_PROCESS_CPUTIME_ID;
static clockid_t server_clock;

static uint64_t
next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* Getting ready */

static void
in_one_thread(void)
{
    server = make(false);
}

/* Puts the server into a child, on the same CPU. */
static void
part(void)
{
    pid_t child = fork();

    NEED(child != -1);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(server->client);
        server->serve(server);
        _exit(0);
    }
    NEED(clock_getcpuclockid(child, &server_clock) == 0);
}

/* What client and server have spent so far. */
static double
both(void)
{
    return seconds(client_clock) + seconds(server_clock);
}

static void
in_two_processes(void)
{
    server = make(true);
    part();
}

/* A request, served and answered in this thread. */
static void
turn(uint16_t cmd)
{
    server->serve(server);
    wire_check(server->client, cmd);
}

static void
map_region(long number, int fd)
{
    wire_map(server->client, DMA_BASE + (uint64_t)number * DMA_STRIDE, PAGE, fd);
    turn(VFIO_USER_DMA_MAP);
}

static void
unmap_region(long number)
{
    wire_unmap(server->client, DMA_BASE + (uint64_t)number * DMA_STRIDE, PAGE);
    turn(VFIO_USER_DMA_UNMAP);
}

static void
with_regions(bool descriptors)
{
    in_one_thread();
    memory = memfd_create("bench", MFD_CLOEXEC);
    NEED(memory != -1 && ftruncate(memory, PAGE) == 0);
    for (long number = 0; number < parameter; number++) {
        map_region(number, descriptors ? memory : -1);
    }
}

static void
with_descriptors(void)
{
    with_regions(true);
}

static void
without_descriptors(void)
{
    with_regions(false);
}

/* Running */

static double
read_by_two(long times)
{
    double start = both();

    for (long i = 0; i < times; i++) {
        wire_read(server->client, (size_t)parameter);
        NEED(wire_recv(server->client) == sizeof(struct vfio_user_region_access) + (size_t)parameter);
    }
    return both() - start;
}

static double
write_by_two(long times)
{
    double start = both();

    for (long i = 0; i < times; i++) {
        wire_write(server->client, NULL, (size_t)parameter, 0);
        wire_check(server->client, VFIO_USER_REGION_WRITE);
    }
    return both() - start;
}

static double
read_by_turns(long times)
{
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);

    for (long i = 0; i < times; i++) {
        wire_read(server->client, (size_t)parameter);
        turn(VFIO_USER_REGION_READ);
    }
    return seconds(CLOCK_THREAD_CPUTIME_ID) - start;
}

static double
write_by_turns(long times)
{
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);

    for (long i = 0; i < times; i++) {
        wire_write(server->client, NULL, (size_t)parameter, 0);
        turn(VFIO_USER_REGION_WRITE);
    }
    return seconds(CLOCK_THREAD_CPUTIME_ID) - start;
}

static double
run_empty(long times)
{
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);

    for (long i = 0; i < times; i++) {
        if (library) {
            server->serve(server);
        } else {
            floor_idle(server, parameter != 0);
        }
    }
    return seconds(CLOCK_THREAD_CPUTIME_ID) - start;
}

/* Posted writes of 4 bytes, `parameter` in a burst that is sent at once. */
static double
post_bursts(long times)
{
    static unsigned char burst[512 * 36];
    struct vfio_user_header header = { .cmd = VFIO_USER_REGION_WRITE, .msg_size = 36, .flags = VFIO_USER_F_NO_REPLY };
    struct vfio_user_region_access access = { .region = VFU_PCI_DEV_BAR0_REGION_IDX, .count = 4 };
    double start;

    NEED(parameter <= 512);
    for (long i = 0; i < parameter; i++) {
        access.offset = (uint64_t)i * 4;
        memcpy(burst + i * 36, &header, sizeof(header));
        memcpy(burst + i * 36 + sizeof(header), &access, sizeof(access));
    }
    start = seconds(CLOCK_THREAD_CPUTIME_ID);
    for (long i = 0; i < times; i++) {
        unsigned long wanted = server->device->writes + (unsigned long)parameter;

        send_all(server->client, burst, (size_t)parameter * 36);
        while (server->device->writes < wanted) {
            server->serve(server);
        }
    }
    return seconds(CLOCK_THREAD_CPUTIME_ID) - start;
}

static double
map_pairs(long times, int fd)
{
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);

    for (long i = 0; i < times; i++) {
        map_region(parameter, fd);
        unmap_region(parameter);
    }
    return seconds(CLOCK_THREAD_CPUTIME_ID) - start;
}

static double
map_with_descriptor(long times)
{
    return map_pairs(times, memory);
}

static double
map_without_descriptor(long times)
{
    return map_pairs(times, -1);
}

static double
translate_some(long times, uint64_t seed)
{
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);

    for (long i = 0; i < times; i++) {
        uint64_t number = (next_random(&seed) * (uint64_t)parameter) >> 31;

        NEED(server->translate(server, DMA_BASE + number * DMA_STRIDE + 64));
    }
    return seconds(CLOCK_THREAD_CPUTIME_ID) - start;
}

static double
translate(long times)
{
    return translate_some(times, 1);
}

/* Threads: PARAMETER of them translate among 1,000 regions, each TIMES addresses. The time is the mean of what each spent. */

static long each;

static void *
translating(void *result)
{
    long threads = parameter;

    (void)threads;
    *(double *)result = translate_some(each, (uint64_t)(uintptr_t)result);
    return NULL;
}

static void
with_thousand_regions(void)
{
    static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
    long threads = parameter;

    parameter = 1000;
    with_regions(true);
    each = threads;
    server->lock = library ? NULL : &lock;
}

static double
translate_in_threads(long times)
{
    static long threads;
    pthread_t ids[64];
    double took[64], sum = 0;

    if (threads == 0) {
        threads = each;
    }
    NEED(threads <= 64);
    each = times;
    for (long i = 0; i < threads; i++) {
        NEED(pthread_create(&ids[i], NULL, translating, &took[i]) == 0);
    }
    for (long i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        sum += took[i];
    }
    return sum / (double)threads;
}

static volatile bool stop;
static volatile long churned;

static void *
churning(void *nothing)
{
    (void)nothing;
    while (!stop) {
        if (server->lock != NULL) {
            pthread_rwlock_wrlock(server->lock);
        }
        map_region(1000, memory);
        unmap_region(1000);
        if (server->lock != NULL) {
            pthread_rwlock_unlock(server->lock);
        }
        churned++;
    }
    return NULL;
}

/* The same, while another thread maps and unmaps a region. */
static double
translate_and_churn(long times)
{
    pthread_t id;
    double took;

    stop = false;
    churned = 0;
    NEED(pthread_create(&id, NULL, churning, NULL) == 0);
    while (churned == 0) {
        sched_yield();
    }
    took = translate_in_threads(times);
    stop = true;
    pthread_join(id, NULL);
    return took;
}

/* Client memory by message: the server's device does it when GO_OFFSET is written; the client answers. */

void
sgl_go(struct server *of, uint64_t times)
{
    for (uint64_t i = 0; i < times; i++) {
        of->dma(of);
    }
}

static void
ready_for_messages(bool write)
{
    server = make(true);
    server->device->dma_size = (size_t)parameter;
    server->device->dma_write = write;
    part();
    wire_map(server->client, DMA_BASE, DEVICE_SIZE, -1);
    wire_check(server->client, VFIO_USER_DMA_MAP);
}

static void
to_read_by_message(void)
{
    ready_for_messages(false);
}

static void
to_write_by_message(void)
{
    ready_for_messages(true);
}

static double
access_by_message(long times)
{
    uint64_t number = (uint64_t)times;
    size_t size = (size_t)parameter;
    double start = both();

    wire_write(server->client, &number, sizeof(number), GO_OFFSET);
    for (;;) {
        struct vfio_user_header header;

        wire_recv(server->client);
        memcpy(&header, wire_buffer, sizeof(header));
        if (header.cmd == VFIO_USER_REGION_WRITE) {
            return both() - start;
        }
        header.flags = VFIO_USER_MESSAGE_REPLY;
        header.msg_size = (uint32_t)(sizeof(header) + 16 + (header.cmd == VFIO_USER_DMA_READ ? size : 0));
        memcpy(wire_buffer, &header, sizeof(header));
        send_all(server->client, wire_buffer, header.msg_size);
    }
}

/* Dirty pages: PARAMETER per cent of 1 GiB are marked before each report, which alone is timed. */

static void
with_dirty_pages(void)
{
    struct {
        uint32_t argsz, flags;
        uint64_t page_size;
        uint32_t ranges, reserved;
        uint64_t iova, length;
    } start = { sizeof(start), VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, PAGE, 1, 0,
                DIRTY_BASE, DIRTY_SIZE };

    in_one_thread();
    memory = memfd_create("bench", MFD_CLOEXEC);
    NEED(memory != -1 && ftruncate(memory, DIRTY_SIZE) == 0);
    wire_map(server->client, DIRTY_BASE, DIRTY_SIZE, memory);
    turn(VFIO_USER_DMA_MAP);
    wire_send(server->client, VFIO_USER_DEVICE_FEATURE, 0, &start, sizeof(start), NULL);
    turn(VFIO_USER_DEVICE_FEATURE);
}

static void
need_dirty(long pages)
{
    long bits = 0;
    const unsigned char *bitmap = wire_buffer + sizeof(struct vfio_user_header) + 32;

    for (size_t i = 0; i < DIRTY_SIZE / PAGE / 8; i++) {
        bits += __builtin_popcount(bitmap[i]);
    }
    NEED(bits == pages);
}

static double
report_dirty(long times)
{
    const long pages = DIRTY_SIZE / PAGE;
    const long wanted = pages * parameter / 100;
    struct {
        uint32_t argsz, flags;
        uint64_t iova, length, page_size;
    } report = { 32 + DIRTY_SIZE / PAGE / 8, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
                 DIRTY_BASE, DIRTY_SIZE, PAGE };
    double took = 0;

    for (long i = 0; i < times; i++) {
        double start;

        if (parameter == 100) {
            server->mark(server, DIRTY_BASE, DIRTY_SIZE);
        } else {
            for (long page = 0; page < wanted; page++) {
                server->mark(server, DIRTY_BASE + (uint64_t)(page * (pages / wanted)) * PAGE, PAGE);
            }
        }
        start = seconds(CLOCK_THREAD_CPUTIME_ID);
        wire_send(server->client, VFIO_USER_DEVICE_FEATURE, 0, &report, sizeof(report), NULL);
        turn(VFIO_USER_DEVICE_FEATURE);
        took += seconds(CLOCK_THREAD_CPUTIME_ID) - start;
        need_dirty(wanted);
    }
    return took;
}

/* Interrupts, contexts */

static void
with_interrupt(void)
{
    struct vfio_irq_set set = { sizeof(set), VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, VFU_DEV_MSIX_IRQ, 0, 1 };
    int event = eventfd(0, EFD_NONBLOCK);

    in_one_thread();
    if (library) {
        wire_send(server->client, VFIO_USER_DEVICE_SET_IRQS, 0, &set, sizeof(set), &event);
        turn(VFIO_USER_DEVICE_SET_IRQS);
    }
}

static double
trigger(long times)
{
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);

    for (long i = 0; i < times; i++) {
        server->trigger(server);
    }
    return seconds(CLOCK_THREAD_CPUTIME_ID) - start;
}

static void
with_nothing(void)
{
}

/* A context from its creation to its end, with a client that comes, negotiates and reads once. */
static double
cycle(long times)
{
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);

    for (long i = 0; i < times; i++) {
        server = make(false);
        wire_read(server->client, 4);
        turn(VFIO_USER_REGION_READ);
        close(server->client);
        server->close(server);
    }
    return seconds(CLOCK_THREAD_CPUTIME_ID) - start;
}

static size_t
private_bytes(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    size_t sum = 0, kilobytes;

    NEED(file != NULL);
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "Private_Dirty: %zu kB", &kilobytes) == 1) {
            sum = kilobytes * 1024;
        }
    }
    fclose(file);
    return sum;
}

static size_t per_context;

static void
with_contexts(void)
{
    size_t before;

    many = calloc((size_t)parameter, sizeof(struct server *));
    NEED(many != NULL);
    many[0] = make(false);
    before = private_bytes();
    for (long i = 1; i < parameter; i++) {
        many[i] = make(false);
    }
    per_context = parameter > 1 ? (private_bytes() - before) / (size_t)(parameter - 1) : 0;
}

/* Reads by turns from all contexts, one after the other. */
static double
read_from_contexts(long times)
{
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);

    for (long i = 0; i < times; i++) {
        server = many[i % parameter];
        wire_read(server->client, 4);
        turn(VFIO_USER_REGION_READ);
    }
    return seconds(CLOCK_THREAD_CPUTIME_ID) - start;
}

/* Bytes of memory for each connected context that has served nothing yet, as "seconds". */
static double
size_of_context(long times)
{
    (void)times;
    return (double)per_context;
}

static const struct row {
    const char *name;
    void (*prepare)(void);
    double (*run)(long times);
    bool threads;
} rows[] = {
    { "read", in_two_processes, read_by_two, false },
    { "write", in_two_processes, write_by_two, false },
    { "read-turns", in_one_thread, read_by_turns, false },
    { "write-turns", in_one_thread, write_by_turns, false },
    { "empty", in_one_thread, run_empty, false },
    { "burst", in_one_thread, post_bursts, false },
    { "map-fd", with_descriptors, map_with_descriptor, false },
    { "map", without_descriptors, map_without_descriptor, false },
    { "translate", with_descriptors, translate, false },
    { "translate-nofd", without_descriptors, translate, false },
    { "threads", with_thousand_regions, translate_in_threads, true },
    { "churn", with_thousand_regions, translate_and_churn, true },
    { "sgl-read", to_read_by_message, access_by_message, false },
    { "sgl-write", to_write_by_message, access_by_message, false },
    { "dirty", with_dirty_pages, report_dirty, false },
    { "irq", with_interrupt, trigger, false },
    { "cycle", with_nothing, cycle, false },
    { "contexts", with_contexts, read_from_contexts, false },
    { "context-bytes", with_contexts, size_of_context, false },
};

/* The last CPU that this process may use, so that slices of all subjects meet on the same one. */
static void
pin(void)
{
    cpu_set_t set, one;

    NEED(sched_getaffinity(0, sizeof(set), &set) == 0);
    for (int cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--) {
        if (CPU_ISSET(cpu, &set)) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            NEED(sched_setaffinity(0, sizeof(one), &one) == 0);
            return;
        }
    }
}

static const struct row *
find_row(const char *name)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(rows[i].name, name) == 0) {
            return &rows[i];
        }
    }
    fprintf(stderr, "no row is called %s\n", name);
    exit(EXIT_FAILURE);
}

static const struct row *
prepare(const char *subject, const char *name, long given)
{
    const struct row *row = find_row(name);
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    parameter = given;
    library = strcmp(subject, "floor") != 0;
    make = library ? library_new : floor_new;
    if (library) {
        library_load(subject);
    }
    if (!row->threads) {
        pin();
    }
    row->prepare();
    return row;
}

#ifdef SHARED
/* For counting: the same in a process that watches the library's calls (counts.py). */
static const struct row *prepared;

void bench_prepare(const char *subject, const char *name, long given);
void bench_run(long times);

void
bench_prepare(const char *subject, const char *name, long given)
{
    prepared = prepare(subject, name, given);
}

void
bench_run(long times)
{
    prepared->run(times);
}
#else
int
main(int argc, char **argv)
{
    const struct row *row;
    long times;

    if (argc != 4) {
        fprintf(stderr, "usage: %s LIBRARY|floor ROW PARAMETER\n", argv[0]);
        return EXIT_FAILURE;
    }
    row = prepare(argv[1], argv[2], atol(argv[3]));
    printf("ready\n");
    fflush(stdout);
    while (scanf("%ld", &times) == 1) {
        printf("%.9g\n", row->run(times));
        fflush(stdout);
    }
    return EXIT_SUCCESS;
}
#endif
