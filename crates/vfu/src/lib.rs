//! vfio-user in safe Rust: protocol, server, client.
