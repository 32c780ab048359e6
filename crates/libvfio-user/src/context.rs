//! `vfu_ctx_t`: a context of the core, the C callbacks, and the caller's private pointer.
//!
//! 1. A context is made by `vfu_create_ctx` and freed by `vfu_destroy_ctx`, and by nothing else. Its address is what
//!    callbacks get.
//! 2. It is never borrowed mutably. What setup functions change, also from inside callbacks, are cells, and a callback is
//!    copied out of its cell before it is called.
//! 3. `Shared` is the part that other threads may use; the rest belongs to the thread that serves the context.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use vfu::{Context, Dma, Irqs, Level, try_box};

use crate::abi::{DmaFn, LogFn};
use crate::device::Callbacks;
use crate::edge::Failure;
use crate::log::Log;
use crate::wait::Source;

/// `vfu_ctx_t`.
#[derive(Debug)]
pub struct VfuCtx {
    shared: Shared,
    core: Context,
    callbacks: Callbacks,
    kind: Kind,
}

/// How a context waits for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It does not.
    NonBlocking,
    /// At a socket.
    Socket,
    /// At a pipe.
    Pipe,
}

impl VfuCtx {
    /// Puts a new context at an address of its own.
    pub(crate) fn create(
        core: Context,
        kind: Kind,
        pvt: *mut c_void,
    ) -> Result<NonNull<Self>, Failure> {
        let irqs = core.irqs();
        let boxed = try_box(Self {
            shared: Shared::new(irqs, pvt),
            core,
            callbacks: Callbacks::default(),
            kind,
        })?;
        let ctx = NonNull::from(Box::leak(boxed));
        // SAFETY: made above, and nobody else has it yet.
        unsafe { ctx.as_ref() }
            .shared
            .this
            .store(ctx.as_ptr(), Ordering::Relaxed);
        Ok(ctx)
    }

    /// Frees a context.
    ///
    /// # Safety
    ///
    /// `ctx` came from [`create`](Self::create), and nobody uses it, now or later.
    pub(crate) unsafe fn free(ctx: *mut Self) {
        // SAFETY: the caller's promise; `create` made it as a box.
        drop(unsafe { Box::from_raw(ctx) });
    }

    /// The part for other threads.
    ///
    /// # Safety
    ///
    /// `ctx` is NULL or a live context, for as long as the result is used.
    pub(crate) unsafe fn shared_of<'a>(ctx: *mut Self) -> Option<&'a Shared> {
        if ctx.is_null() {
            return None;
        }
        // SAFETY: not NULL, hence live; this refers to one field only.
        Some(unsafe { &(*ctx).shared })
    }

    pub(crate) fn is_blocking(&self) -> bool {
        self.kind != Kind::NonBlocking
    }

    /// What a blocking context with a client waits at.
    pub(crate) fn source(&self) -> Result<Source, Failure> {
        let fd = self.core.poll_fd().ok_or(vfu::Error::NotConnected)?;
        if self.kind == Kind::Pipe {
            return Ok(Source::Pipe(fd));
        }
        Ok(Source::Socket(fd, self.core.receive_place()?))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn core(&self) -> &Context {
        &self.core
    }

    pub(crate) fn callbacks(&self) -> &Callbacks {
        &self.callbacks
    }

    /// The pointer that `vfu_create_ctx` returned, for callbacks.
    pub(crate) fn this(&self) -> *mut Self {
        self.shared.this.load(Ordering::Relaxed)
    }

    /// Sends the core's messages to `handler`, too.
    pub(crate) fn set_log(&self, handler: Option<LogFn>, level: c_int) -> Result<(), Failure> {
        let Some(threshold) = Level::new(level) else {
            return Err(Failure::Argument {
                what: "log level",
                value: level.into(),
            });
        };
        let sink = match handler {
            Some(_) => Some(try_box(Sink(AtomicPtr::new(self.this())))? as Box<dyn vfu::Log>),
            None => None,
        };
        self.shared.log.set(handler, level);
        self.core.set_log(sink, threshold);
        Ok(())
    }

    /// Lets the device use client memory.
    pub(crate) fn setup_dma(
        &self,
        max_regions: usize,
        register: Option<DmaFn>,
        unregister: Option<DmaFn>,
    ) -> Result<(), Failure> {
        self.core.setup_dma(max_regions)?;
        if let Some(dma) = self.core.dma() {
            let _ = self.shared.dma.set(dma); // a second call finds the same table there
        }
        self.callbacks.dma_register.set(register);
        self.callbacks.dma_unregister.set(unregister);
        self.shared
            .has_unregister
            .store(unregister.is_some(), Ordering::Release);
        Ok(())
    }
}

/// What any thread may use.
pub(crate) struct Shared {
    /// Address of the context, for log handlers.
    this: AtomicPtr<VfuCtx>,
    log: Log,
    irqs: Irqs,
    /// Set once by `vfu_setup_device_dma`.
    dma: OnceLock<Dma>,
    /// There is an unregister callback, so that mappings may be handed out.
    has_unregister: AtomicBool,
    pvt: AtomicPtr<c_void>,
    /// A panic was caught.
    broken: AtomicBool,
}

const fn any_thread<T: Sync>() {}
const _: () = any_thread::<Shared>();

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("irqs", &self.irqs)
            .field("dma", &self.dma)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn new(irqs: Irqs, pvt: *mut c_void) -> Self {
        Self {
            this: AtomicPtr::new(ptr::null_mut()),
            log: Log::new(),
            irqs,
            dma: OnceLock::new(),
            has_unregister: AtomicBool::new(false),
            pvt: AtomicPtr::new(pvt),
            broken: AtomicBool::new(false),
        }
    }

    /// The client's memory.
    ///
    /// # Errors
    ///
    /// EINVAL before `vfu_setup_device_dma`.
    pub(crate) fn dma(&self) -> Result<&Dma, Failure> {
        const MISSING: Failure = Failure::Core(vfu::Error::NotSetUp {
            what: "DMA (vfu_setup_device_dma)",
        });
        self.dma.get().ok_or(MISSING)
    }

    /// The client's memory, if it is set up and no panic was caught.
    #[inline]
    pub(crate) fn sound_dma(&self) -> Option<&Dma> {
        self.dma.get().filter(|_| !self.is_broken())
    }

    pub(crate) fn has_unregister(&self) -> bool {
        self.has_unregister.load(Ordering::Acquire)
    }

    pub(crate) fn irqs(&self) -> &Irqs {
        &self.irqs
    }

    pub(crate) fn private(&self) -> *mut c_void {
        self.pvt.load(Ordering::Relaxed)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_broken(&self, name: &str, panic: &str) {
        self.broken.store(true, Ordering::Relaxed);
        self.log(
            Level::Critical,
            format_args!("{name}: internal error, this context can only be destroyed now: {panic}"),
        );
    }

    /// Whether the log handler is running, on any thread: the context cannot be destroyed then.
    pub(crate) fn is_logging(&self) -> bool {
        self.log.is_busy()
    }

    /// Whether a message of this level would reach a handler.
    pub(crate) fn log_wanted(&self, level: c_int) -> bool {
        self.log.wanted(level)
    }

    /// Hands a finished, NUL-terminated text to the handler.
    ///
    /// # Safety
    ///
    /// `text` is NUL-terminated.
    pub(crate) unsafe fn emit(&self, level: c_int, text: *const std::ffi::c_char) {
        let this = self.this.load(Ordering::Relaxed);
        // SAFETY: `this` is the context that this log belongs to; the caller vouches for `text`.
        unsafe { self.log.emit(this, level, text) };
    }

    /// Logs a message of the library. errno is kept.
    pub(crate) fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        let level = c_int::from(level as u8);
        if self.log_wanted(level) {
            let text = crate::log::Text::new(message);
            // SAFETY: `Text` ends in NUL.
            unsafe { self.emit(level, text.as_ptr()) };
        }
    }
}

/// Takes the core's messages to the handler.
struct Sink(AtomicPtr<VfuCtx>);

impl vfu::Log for Sink {
    fn log(&self, level: Level, message: &str) {
        let ctx = self.0.load(Ordering::Relaxed);
        // SAFETY: the core that holds this sink is part of that context, hence it is live.
        if let Some(shared) = unsafe { VfuCtx::shared_of(ctx) } {
            shared.log(level, format_args!("{message}"));
        }
    }
}
