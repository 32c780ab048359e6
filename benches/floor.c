/*
 * The floor: one receive, the bare work, one send of the same bytes. Nothing is checked, logged or locked, and a request is
 * found by its command alone.
 */

#define _GNU_SOURCE
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "bench.h"

struct mapping {
    uint64_t addr, size;
    void *memory;
    int fd;
};

struct own {
    int sock;
    bool blocking;
    int event;
    size_t count, room;
    struct mapping *mappings; /* by address */
    unsigned char *dirty;
    unsigned char buffer[DEVICE_SIZE + 4096];
};

/* The mapping of `addr`, or where it would stand. */
static size_t
find(const struct own *own, uint64_t addr)
{
    size_t low = 0, high = own->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (own->mappings[middle].addr + own->mappings[middle].size <= addr) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static size_t
map(struct own *own, const unsigned char *payload, int fd)
{
    struct vfio_user_dma_map request;
    struct mapping new = { .fd = fd };
    size_t at;

    memcpy(&request, payload, sizeof(request));
    new.addr = request.addr;
    new.size = request.size;
    if (fd != -1) {
        new.memory = mmap(NULL, request.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        NEED(new.memory != MAP_FAILED);
    }
    if (own->count == own->room) {
        own->room = own->room * 2 + 64;
        own->mappings = realloc(own->mappings, own->room * sizeof(new));
        NEED(own->mappings != NULL);
    }
    at = find(own, request.addr);
    memmove(own->mappings + at + 1, own->mappings + at, (own->count - at) * sizeof(new));
    own->mappings[at] = new;
    own->count++;
    return 0;
}

static size_t
unmap(struct own *own, const unsigned char *payload)
{
    struct vfio_user_dma_unmap request;
    struct mapping *old;
    size_t at;

    memcpy(&request, payload, sizeof(request));
    at = find(own, request.addr);
    old = own->mappings + at;
    if (old->fd != -1) {
        munmap(old->memory, old->size);
        close(old->fd);
    }
    memmove(old, old + 1, (own->count - at - 1) * sizeof(*old));
    own->count--;
    return sizeof(request);
}

static size_t
report(struct own *own, unsigned char *payload)
{
    const size_t head = sizeof(struct vfio_user_device_feature) + sizeof(struct vfio_user_device_feature_dma_logging_report);
    const size_t bytes = DIRTY_SIZE / PAGE / 8;

    memcpy(payload + head, own->dirty, bytes);
    memset(own->dirty, 0, bytes);
    return head + bytes;
}

/* Serves the message at `at`; the reply takes its place. */
static size_t
answer(struct server *server, unsigned char *at, int fd)
{
    struct own *own = server->own;
    struct vfio_user_header *header = (struct vfio_user_header *)at;
    unsigned char *payload = at + sizeof(*header);
    size_t length = header->msg_size, size = 0;

    if (header->cmd == VFIO_USER_REGION_READ || header->cmd == VFIO_USER_REGION_WRITE) {
        struct vfio_user_region_access access;
        unsigned char *data = payload + sizeof(access);

        memcpy(&access, payload, sizeof(access));
        size = sizeof(access);
        if (header->cmd == VFIO_USER_REGION_READ) {
            memcpy(data, server->device->memory + access.offset, access.count);
            size += access.count;
        } else {
            uint64_t times;

            memcpy(server->device->memory + access.offset, data, access.count);
            server->device->writes++;
            if (access.offset == GO_OFFSET) {
                memcpy(&times, data, sizeof(times));
                sgl_go(server, times);
            }
        }
    } else if (header->cmd == VFIO_USER_DMA_MAP) {
        size = map(own, payload, fd);
    } else if (header->cmd == VFIO_USER_DMA_UNMAP) {
        size = unmap(own, payload);
    } else if (header->cmd == VFIO_USER_DEVICE_FEATURE && header->msg_size == sizeof(*header) + 8 + 24) {
        size = report(own, payload);
    }
    if ((header->flags & VFIO_USER_F_NO_REPLY) == 0) {
        header->flags = VFIO_USER_MESSAGE_REPLY;
        header->msg_size = (uint32_t)(sizeof(*header) + size);
        send_all(own->sock, at, header->msg_size);
    }
    return length;
}

static ssize_t
receive(struct own *own, int *fd)
{
    struct iovec part = { own->buffer, sizeof(own->buffer) };
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
    ssize_t got = recvmsg(own->sock, &message, own->blocking ? 0 : MSG_DONTWAIT);
    struct cmsghdr *along = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;

    *fd = -1;
    if (along != NULL) {
        memcpy(fd, CMSG_DATA(along), sizeof(*fd));
    }
    return got;
}

static void
serve(struct server *server)
{
    struct own *own = server->own;

    do {
        int fd;
        ssize_t got = receive(own, &fd);
        struct vfio_user_header header;

        if (got <= 0) {
            return;
        }
        memcpy(&header, own->buffer, sizeof(header));
        if (header.msg_size > (size_t)got) { /* only messages that fill the socket are in pieces, and they come alone */
            recv_all(own->sock, own->buffer + got, header.msg_size - (size_t)got);
            got = header.msg_size;
        }
        for (ssize_t at = 0; at < got;) {
            at += (ssize_t)answer(server, own->buffer + at, fd);
        }
    } while (own->blocking);
}

void
floor_idle(struct server *server, bool with_descriptors)
{
    struct own *own = server->own;
    int fd;

    if (with_descriptors) {
        NEED(receive(own, &fd) == -1);
    } else {
        NEED(recv(own->sock, own->buffer, sizeof(own->buffer), MSG_DONTWAIT) == -1);
    }
}

static bool
translate(struct server *server, uint64_t addr)
{
    const struct own *own = server->own;
    size_t at;

    if (server->lock == NULL) {
        at = find(own, addr);
        return at < own->count && own->mappings[at].addr <= addr;
    }
    pthread_rwlock_rdlock(server->lock);
    at = find(own, addr);
    pthread_rwlock_unlock(server->lock);
    return at < own->count;
}

static void
mark(struct server *server, uint64_t addr, uint64_t length)
{
    struct own *own = server->own;

    for (uint64_t page = (addr - DIRTY_BASE) / PAGE; page < (addr - DIRTY_BASE + length) / PAGE; page++) {
        own->dirty[page / 8] |= (unsigned char)(1 << (page % 8));
    }
}

static void
trigger(struct server *server)
{
    struct own *own = server->own;

    NEED(eventfd_write(own->event, 1) == 0);
}

/* One send and one receive, data straight from and to the device. */
static void
dma(struct server *server)
{
    struct own *own = server->own;
    struct device *device = server->device;
    struct {
        struct vfio_user_header header;
        uint64_t addr, count;
    } __attribute__((packed)) head = { { .cmd = device->dma_write ? VFIO_USER_DMA_WRITE : VFIO_USER_DMA_READ },
                                       DMA_BASE, device->dma_size };
    struct iovec parts[2] = { { &head, sizeof(head) }, { device->memory, device->dma_size } };
    size_t out = device->dma_write ? device->dma_size : 0, in = device->dma_size - out;
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = out != 0 ? 2 : 1 };
    ssize_t done;

    head.header.msg_size = (uint32_t)(sizeof(head) + out);
    done = sendmsg(own->sock, &message, MSG_NOSIGNAL) - (ssize_t)sizeof(head);
    NEED(done >= 0);
    send_all(own->sock, device->memory + done, out - (size_t)done);
    message.msg_iovlen = in != 0 ? 2 : 1;
    done = recvmsg(own->sock, &message, 0) - (ssize_t)sizeof(head);
    NEED(done >= 0);
    recv_all(own->sock, device->memory + done, in - (size_t)done);
}

static void
destroy(struct server *server)
{
    struct own *own = server->own;

    close(own->sock);
    close(own->event);
    free(own->mappings);
    free(own->dirty);
    free(own);
    free(server);
}

struct server *
floor_new(bool blocking)
{
    struct server *server = calloc(1, sizeof(*server));
    struct own *own = calloc(1, sizeof(*own));
    int pair[2];

    NEED(server != NULL && own != NULL && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    *server = (struct server){ .client = pair[0], .serve = serve, .close = destroy, .translate = translate,
                               .mark = mark, .trigger = trigger, .dma = dma, .own = own };
    server->device = &the_device;
    own->sock = pair[1];
    own->blocking = blocking;
    own->event = eventfd(0, EFD_NONBLOCK);
    own->dirty = calloc(1, DIRTY_SIZE / PAGE / 8);
    NEED(own->dirty != NULL && own->event != -1);
    return server;
}
