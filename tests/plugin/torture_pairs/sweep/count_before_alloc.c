/*
 * The count says one more than there is.
 *
 * finds: crash: in drop, when malloc in add fails
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

struct item { int value; };
static struct item *items[4];
static int count;

static int add(int value)
{
#ifdef BUG
	int at = count++;
#else
	int at = count;
#endif

	items[at] = malloc(sizeof(struct item));
	if (items[at] == NULL)
		return -1;
	items[at]->value = value;
#ifndef BUG
	count++;
#endif
	return 0;
}

static int drop(void)
{
	int sum = 0;

	while (count > 0) {
		count--;
		sum += items[count]->value;
		free(items[count]);
	}
	return sum;
}

int run(void)
{
	add(1);
	add(2);
	return drop();
}
