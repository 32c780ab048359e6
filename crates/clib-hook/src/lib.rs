//! Redirects the function calls that a loaded shared object makes to other objects.
