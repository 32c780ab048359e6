//! The `PyO3` module `pytest_clib._native`.
