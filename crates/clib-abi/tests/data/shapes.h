#ifndef SHAPES_H
#define SHAPES_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct point {
	int32_t x;
	int32_t y;
};

typedef struct {
	uint8_t kind;
	union {
		uint64_t number;
		struct {
			uint32_t low;
			uint32_t high;
		};
	};
	struct point corners[2];
	char label[3][4];
} shape_t;

struct __attribute__((packed)) wire {
	uint8_t tag;
	uint64_t length;
	uint16_t crc;
};

struct flags {
	unsigned int ready : 1;
	unsigned int mode : 3;
	int level : 12;
	unsigned long long wide : 40;
};

enum colour { RED = 1, GREEN = 2, BLUE = 40 };
enum direction { LEFT = -1, RIGHT = 1 };

struct list {
	struct list *next;
	void *data;
};

struct message {
	uint32_t size;
	uint8_t payload[];
};

struct opaque;
typedef ssize_t (*read_cb)(void *context, char *buffer, size_t size);
typedef void notify_cb(int event, bool last);

struct handlers {
	read_cb read;
	notify_cb *notify;
	double weight;
	volatile const char *const name;
	enum colour colour;
};

struct opaque *opaque_open(const char *path, enum colour colour);
ssize_t opaque_read(struct opaque *self, void *buffer, size_t size);
void opaque_close(struct opaque *self);
bool opaque_ready(const struct opaque *self);
int print_some(const char *format, ...);
double scale(float factor, const struct point *p, struct point by_value);
void set_handlers(const struct handlers *handlers, notify_cb *other);
shape_t *make_shape(struct flags flags, struct wire *wire, struct list *list,
		    struct message *message, enum direction way);
extern int some_variable;

#ifdef __cplusplus
}
#endif
#endif
