/*
 * The server closes what it listens on, not the connection. The client is Python's,
 * and its descriptor is not the library's.
 *
 * finds: fd-leak: 1 descriptor lost: accept in serve
 *
 *     def test(tmp_path):
 *         with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
 *             server.bind(str(tmp_path / "s"))
 *             server.listen()
 *             client.connect(str(tmp_path / "s"))
 *             assert lib.serve(server.fileno()) == 0
 */
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

int serve(int listening)
{
	int connection = accept(listening, NULL, NULL);

	if (connection < 0)
		return -1;
#ifndef BUG
	close(connection);
#endif
	return 0;
}
