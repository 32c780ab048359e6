/*
 * A window is moved: the old one stays mapped, the new one is held by a global.
 *
 * finds: mapping-leak: 1 mapping (4096 bytes) lost: mmap in move_window
 *
 *     def test():
 *         lib.move_window()
 *         lib.move_window()
 */
#include <sys/mman.h>

static void *window;

void move_window(void)
{
#ifndef BUG
	if (window)
		munmap(window, 4096);
#endif
	window = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
