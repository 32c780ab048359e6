#include "shapes.h"
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

struct opaque {
	int fd;
	enum colour colour;
	struct handlers handlers;
};

int some_variable = 3;

__attribute__((noinline)) static int hidden(int value)
{
	return value * 3;
}

struct opaque *opaque_open(const char *path, enum colour colour)
{
	struct opaque *self = malloc(sizeof(*self));

	if (self != NULL) {
		self->fd = hidden(path[0]);
		self->colour = colour;
	}
	return self;
}

ssize_t opaque_read(struct opaque *self, void *buffer, size_t size)
{
	return self->fd + (ssize_t)size + (buffer != NULL);
}

void opaque_close(struct opaque *self)
{
	free(self);
}

bool opaque_ready(const struct opaque *self)
{
	struct timespec now;

	return self->fd > 0 && clock_gettime(CLOCK_MONOTONIC, &now) == 0;
}

int print_some(const char *format, ...)
{
	va_list arguments;
	int value;

	va_start(arguments, format);
	value = va_arg(arguments, int);
	va_end(arguments);
	return value;
}

double scale(float factor, const struct point *p, struct point by_value)
{
	return factor * (p->x + by_value.y);
}

void set_handlers(const struct handlers *handlers, notify_cb *other)
{
	handlers->notify(1, true);
	other(2, false);
}

shape_t *make_shape(struct flags flags, struct wire *wire, struct list *list,
		    struct message *message, enum direction way)
{
	shape_t *shape = calloc(1, sizeof(*shape));

	if (shape != NULL)
		shape->kind = (uint8_t)(flags.mode + wire->tag + (list != NULL) + message->size + (unsigned int)way);
	return shape;
}

#ifndef NO_ALIAS
extern __typeof(opaque_close) opaque_free __attribute__((alias("opaque_close")));
#endif

#ifdef UNPROTOTYPED
int anything();
int anything() { return 3; }
#endif
