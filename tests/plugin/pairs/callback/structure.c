/*
 * Callbacks in a structure: the wrong one is called.
 *
 * finds: callback-exception: RuntimeError in the callback
 *
 *     void = c.CFUNCTYPE(None)
 *
 *     class Operations(c.Structure):
 *         _fields_ = [("start", void), ("stop", void)]
 *
 *     def stop():
 *         raise RuntimeError("stopped before it was started")
 *
 *     def test():
 *         operations = Operations(void(lambda: None), void(stop))
 *         lib.begin(c.byref(operations))
 */
struct operations {
	void (*start)(void), (*stop)(void);
};

void begin(const struct operations *operations)
{
#ifdef BUG
	operations->stop();
#else
	operations->start();
#endif
}
