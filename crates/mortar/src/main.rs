//! The one binary: which role it plays is said by the name it was called by, or by its first word.
#![forbid(unsafe_code)]

mod daemon;
mod glusterd_args;
mod prepare;
mod quickstart;
mod roles;

use std::path::Path;
use std::process::ExitCode;

use mortar_cli::run::Face;

fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let called = words.next().unwrap_or_default();
    let name = Path::new(&called).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let words: Vec<String> = words.collect();
    match name.as_str() {
        "gluster" => roles::command_line(Face::Gluster, words),
        "glusterd" => roles::glusterd(&words),
        "mortard" => {
            let words = std::iter::once("daemon".to_owned()).chain(words).collect();
            roles::command_line(Face::Mortar, words)
        }
        "glusterfs" | "glusterfsd" => roles::glusterfs(&words),
        _ if name.starts_with("mount.") => roles::mount_helper(&name, &words),
        _ => roles::command_line(Face::Mortar, words),
    }
}
