/*
 * A callback fails while a fixture is torn down.
 *
 * finds: callback-exception: LookupError in the callback
 *
 *     @c.CFUNCTYPE(None, c.c_int)
 *     def on_close(code):
 *         if code != 0:
 *             raise LookupError(code)
 *
 *     @pytest.fixture
 *     def connection():
 *         yield
 *         lib.disconnect(on_close)
 *
 *     def test(connection):
 *         pass
 */
void disconnect(void (*on_close)(int))
{
#ifdef BUG
	on_close(-1);
#else
	on_close(0);
#endif
}
