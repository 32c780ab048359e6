"""The Python suite of libvfio-user: plain ctypes under pytest."""
