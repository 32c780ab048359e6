/* A library with one of everything that a declaration can get wrong. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <wchar.h>

enum mode { MODE_OFF, MODE_ON, MODE_AUTO = 300 };

struct sample {
	uint32_t id;
	uint64_t stamp;
	int16_t level;
	enum mode mode;
};

struct __attribute__((packed)) frame {
	uint8_t tag;
	uint32_t length;
	uint16_t crc;
};

typedef struct {
	char *name;
	double weight;
	struct sample first;
	uint16_t history[6];
} record_t;

union value {
	uint32_t word;
	double real;
};

struct tagged {
	uint8_t kind;
	union {
		uint64_t number;
		struct {
			uint32_t low;
			uint32_t high;
		};
	};
	uint32_t check;
};

struct options {
	unsigned int fast : 1;
	unsigned int depth : 5;
	unsigned int rate : 10;
};

struct packet {
	uint32_t size;
	uint8_t payload[];
};

struct hidden;

typedef ssize_t (*visit_cb)(void *context, uint64_t stamp, const struct sample *one);
typedef void done_cb(int status);

struct hooks {
	visit_cb visit;
	done_cb *done;
};

static struct sample only = { 1, 2, 3, MODE_ON };

struct sample *sample_new(int id)
{
	struct sample *one = calloc(1, sizeof(*one));

	if (one != NULL)
		one->id = (uint32_t)id;
	return one;
}

void sample_free(struct sample *one)
{
	free(one);
}

ssize_t sample_write(struct sample *one, const void *data, size_t size)
{
	return one != NULL && data != NULL ? (ssize_t)size : -1;
}

double sample_mean(const struct sample *all, size_t count)
{
	return count != 0 ? all[0].level : 0.5;
}

uint32_t sample_count(void)
{
	return 3000000000u;
}

bool sample_ready(const struct sample *one)
{
	return one->id != 0;
}

int64_t sample_age(const struct sample *one, int64_t now)
{
	return now - (int64_t)one->stamp;
}

struct sample sample_copy(const struct sample *one)
{
	return *one;
}

int sample_store(struct sample one, enum mode mode)
{
	only = one;
	return (int)mode;
}

void sample_span(const struct sample *one, uint64_t *begin, uint64_t *end)
{
	*begin = *end = one->stamp;
}

int sample_each(struct sample *all, visit_cb visit, void *context)
{
	return (int)visit(context, all->stamp, all);
}

int sample_hooks(const struct hooks *hooks)
{
	hooks->done(1);
	return 0;
}

int sample_log(const char *format, ...)
{
	return (int)strlen(format);
}

const char *record_name(const record_t *record)
{
	return record->name;
}

size_t record_wide(const wchar_t *text, float scale)
{
	return text != NULL && scale > 0 ? wcslen(text) : 0;
}

int everything(struct frame *frame, union value *value, struct tagged *tagged, struct options *options,
	       struct packet *packet, struct hidden *hidden)
{
	return frame->tag + (int)value->word + tagged->kind + options->depth + (int)packet->size + (hidden != NULL);
}
