//! Man pages and completions, made from the grammar.

use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use crate::grammar::Words;

/// The completion script of a shell, for `mortar`.
pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Words::command(), "mortar", &mut out);
    out
}

/// Writes `mortar.1`, `mortar-volume.1`, `mortar-volume-create.1` … into `folder`; which files.
pub fn man_pages(folder: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let mut command = Words::command();
    command.build();
    let mut written = Vec::new();
    page(&command, "mortar", folder, &mut written)?;
    Ok(written)
}

fn page(command: &clap::Command, name: &str, folder: &Path, written: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone().name(name.to_owned()).display_name(name.to_owned())).render(&mut text)?;
    let path = folder.join(format!("{}.1", name.replace("::", "")));
    std::fs::write(&path, text)?;
    written.push(path);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        page(sub, &format!("{name}-{}", sub.get_name()), folder, written)?;
    }
    Ok(())
}
