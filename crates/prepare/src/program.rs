//! The system's programs: where they are, and how they are started.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where administration programs are; `su` without a dash leaves them off the PATH on Debian.
const FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The program's path, if the machine has it.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()))
}

/// The program, to be given words: without input, speaking English, for its answers are read.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(find(name).unwrap_or_else(|| PathBuf::from(name)));
    command.stdin(Stdio::null()).env("LC_ALL", "C").env("LVM_SUPPRESS_FD_WARNINGS", "1");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_where_it_is_and_a_missing_one_is_not() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("no-program-has-this-name"), None);
    }
}
