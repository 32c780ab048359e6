//! The C face of [`vfu`]: the functions of `libvfio-user.h`, errno, and the C callbacks.
//!
//! Conventions, for every function:
//!
//! * **Failure** is -1, NULL, 0 or false, as the type has it, with errno; what was wrong stands in the context's log. A
//!   success leaves errno alone, except where the function says otherwise.
//! * **NULL** as context is EINVAL, never a crash. Other pointers may be NULL where the function says so, and are EINVAL
//!   otherwise.
//! * **Ownership**: `vfu_create_ctx` gives, `vfu_destroy_ctx` takes. Arrays, strings and structures that are passed in are
//!   copied before the function returns. Descriptors that are passed in stay the caller's.
//! * **Threads**: a context belongs to one thread at a time. Exceptions say so ("any thread").
//! * **Callbacks** run on the thread that called `vfu_run_ctx`, `vfu_device_quiesced` or `vfu_destroy_ctx`, and may call
//!   anything on the same context; running, attaching and destroying it are refused there. They must return: neither
//!   C++ exceptions nor `longjmp` may leave them.
//! * **Cancellation** (`pthread_cancel`) acts while `vfu_attach_ctx` and `vfu_run_ctx` wait for a client, on a blocking context, and
//!   leaves the context fit to be destroyed. Everywhere else, callbacks included, it is held off until the function returns.
//! * **Panics** are bugs of this library. They stop at `edge`, become ENOTRECOVERABLE, and disable the context.
//!
//! This crate knows nothing of the protocol, and allocates nothing but the context itself.

pub mod abi;
pub mod context;
mod device;
mod edge;
pub mod entry;
pub mod log;
mod wait;
