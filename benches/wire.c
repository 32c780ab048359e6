/* The client's half, the same for every subject. */

#include "bench.h"

unsigned char wire_buffer[DEVICE_SIZE];
struct device the_device;

double
seconds(clockid_t clock)
{
    struct timespec now;

    NEED(clock_gettime(clock, &now) == 0);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void
recv_all(int sock, void *to, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = recv(sock, (char *)to + done, size - done, 0);

        NEED(got > 0);
        done += (size_t)got;
    }
}

void
send_all(int sock, const void *from, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t sent = send(sock, (const char *)from + done, size - done, MSG_NOSIGNAL);

        NEED(sent > 0);
        done += (size_t)sent;
    }
}

void
wire_send(int sock, uint16_t cmd, uint32_t flags, const void *payload, size_t size, const int *fd)
{
    struct vfio_user_header header = { .msg_id = 1, .cmd = cmd, .flags = flags };
    struct iovec parts[2] = { { &header, sizeof(header) }, { (void *)(uintptr_t)payload, size } };
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    ssize_t sent;

    header.msg_size = (uint32_t)(sizeof(header) + size);
    if (fd != NULL) {
        struct cmsghdr *along;

        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        along = CMSG_FIRSTHDR(&message);
        along->cmsg_level = SOL_SOCKET;
        along->cmsg_type = SCM_RIGHTS;
        along->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(along), fd, sizeof(int));
    }
    sent = sendmsg(sock, &message, MSG_NOSIGNAL);
    NEED(sent >= (ssize_t)sizeof(header));
    if ((size_t)sent < sizeof(header) + size) {
        size_t done = (size_t)sent - sizeof(header);

        send_all(sock, (const char *)payload + done, size - done);
    }
}

size_t
wire_recv(int sock)
{
    struct vfio_user_header header;
    ssize_t got = recv(sock, wire_buffer, sizeof(wire_buffer), 0);

    NEED(got >= (ssize_t)sizeof(header));
    memcpy(&header, wire_buffer, sizeof(header));
    NEED(header.msg_size <= sizeof(wire_buffer) && (size_t)got <= header.msg_size);
    recv_all(sock, wire_buffer + got, header.msg_size - (size_t)got);
    return header.msg_size - sizeof(header);
}

void
wire_check(int sock, uint16_t cmd)
{
    struct vfio_user_header header;

    wire_recv(sock);
    memcpy(&header, wire_buffer, sizeof(header));
    NEED(header.cmd == cmd && header.error_no == 0);
}

void
wire_negotiate(int sock)
{
    static const struct {
        uint16_t major, minor;
        char capabilities[64];
    } version = { LIB_VFIO_USER_MAJOR, LIB_VFIO_USER_MINOR, "{\"capabilities\":{\"max_msg_fds\":8}}" };

    wire_send(sock, VFIO_USER_VERSION, 0, &version, 4 + strlen(version.capabilities) + 1, NULL);
}

void
wire_read(int sock, size_t size)
{
    struct vfio_user_region_access access = { .region = VFU_PCI_DEV_BAR0_REGION_IDX, .count = (uint32_t)size };

    wire_send(sock, VFIO_USER_REGION_READ, 0, &access, sizeof(access), NULL);
}

void
wire_write(int sock, const void *data, size_t size, uint64_t offset)
{
    static unsigned char request[sizeof(struct vfio_user_region_access) + DEVICE_SIZE];
    struct vfio_user_region_access access = {
        .offset = offset, .region = VFU_PCI_DEV_BAR0_REGION_IDX, .count = (uint32_t)size
    };

    memcpy(request, &access, sizeof(access));
    if (data != NULL) {
        memcpy(request + sizeof(access), data, size);
    }
    wire_send(sock, VFIO_USER_REGION_WRITE, 0, request, sizeof(access) + size, NULL);
}

void
wire_map(int sock, uint64_t addr, uint64_t size, int fd)
{
    struct vfio_user_dma_map map = {
        .argsz = sizeof(map),
        .flags = VFIO_USER_F_DMA_REGION_READ | VFIO_USER_F_DMA_REGION_WRITE,
        .addr = addr,
        .size = size,
    };

    wire_send(sock, VFIO_USER_DMA_MAP, 0, &map, sizeof(map), fd == -1 ? NULL : &fd);
}

void
wire_unmap(int sock, uint64_t addr, uint64_t size)
{
    struct vfio_user_dma_unmap unmap = { .argsz = sizeof(unmap), .addr = addr, .size = size };

    wire_send(sock, VFIO_USER_DMA_UNMAP, 0, &unmap, sizeof(unmap), NULL);
}
