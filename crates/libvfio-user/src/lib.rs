//! The C face of `vfu`: entry points, errno, headers.
