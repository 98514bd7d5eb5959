//! The confined process that parses one image for the daemon. All it does is in the library.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cabin_images::child_main()
}
