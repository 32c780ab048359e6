//! Compiles the C half of `vfu_log` and names the shared library.

fn main() {
    cc::Build::new()
        .file("csrc/vfu_log.c")
        .flag("-fvisibility=hidden")
        .warnings(true)
        .extra_warnings(true)
        .compile("vfu_log");
    println!("cargo::rerun-if-changed=csrc/vfu_log.c");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libvfio-user.so.0");
}
