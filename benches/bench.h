/*
 * What the parts of the benchmark share. One process measures one subject (a library, or the floor) in one row: the client's
 * half is the same code for all subjects, so that the difference is the server's.
 */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "libvfio-user.h"

#define NEED(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s does not hold (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
            exit(EXIT_FAILURE); \
        } \
    } while (0)

#define DEVICE_SIZE (2UL << 20)
#define PAGE 4096UL
#define DMA_BASE 0x100000UL
#define DMA_STRIDE 0x2000UL /* a page, and a gap as large */
#define DIRTY_BASE 0x4000000000UL
#define DIRTY_SIZE (1UL << 30)
/* Writing a number here makes the device do so many DMA accesses; see sgl_go() */
#define GO_OFFSET (DEVICE_SIZE - 64)

/* What the device of every subject holds. */
struct device {
    unsigned char memory[DEVICE_SIZE];
    unsigned long writes;
    size_t dma_size; /* bytes of each access that GO_OFFSET asks for */
    bool dma_write;
};

/* The server's half: the library behind its C API, or the floor. */
struct server {
    struct device *device;
    int client; /* the client's socket */
    /* Serves what has come; in a process of its own, until the client has gone. */
    void (*serve)(struct server *server);
    void (*close)(struct server *server);
    /* Finds the region of `addr`; NULL where that is not offered. */
    bool (*translate)(struct server *server, uint64_t addr);
    void (*mark)(struct server *server, uint64_t addr, uint64_t length);
    void (*trigger)(struct server *server);
    /* One access of device->dma_size bytes to client memory by message. */
    void (*dma)(struct server *server);
    void *own;
    pthread_rwlock_t *lock; /* of the floor */
};

/* One for all servers of the process. */
extern struct device the_device;

/* A server whose client has negotiated. `blocking`: serve() waits. */
typedef struct server *(*server_maker)(bool blocking);
struct server *floor_new(bool blocking);
struct server *library_new(bool blocking);
void library_load(const char *path);
/* A receive that finds nothing: recv(), or recvmsg() with room for descriptors. */
void floor_idle(struct server *server, bool with_descriptors);

void sgl_go(struct server *server, uint64_t times);

/* The client (wire.c). */
void wire_send(int sock, uint16_t cmd, uint32_t flags, const void *payload, size_t size, const int *fd);
/* Receives one message whole; its payload begins at wire_payload(). Returns the payload's size. */
size_t wire_recv(int sock);
extern unsigned char wire_buffer[];
void wire_negotiate(int sock);
void wire_read(int sock, size_t size);
void wire_write(int sock, const void *data, size_t size, uint64_t offset);
void wire_map(int sock, uint64_t addr, uint64_t size, int fd);
void wire_unmap(int sock, uint64_t addr, uint64_t size);
void wire_check(int sock, uint16_t cmd); /* receives a reply and needs it to be without error */
void recv_all(int sock, void *to, size_t size);
void send_all(int sock, const void *from, size_t size);

double seconds(clockid_t clock);

#endif
