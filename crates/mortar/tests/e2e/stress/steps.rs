//! The operations, on the file system and on the model alike.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mortar_testkit::{tree, wait};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::Chance;
use super::model::{Entry, File, Model};

/// No file grows beyond this; two of FUSE's largest requests and a bit.
const FILE_BYTES_MAX: usize = 300 << 10;
/// Enough to make directories of several pages, few enough to compare quickly.
const ENTRIES_MAX: usize = 250;

/// One directory under random operations.
pub(super) struct Stress {
    root: PathBuf,
    chance: Chance,
    model: Model,
    /// Makes names that were never used before.
    fresh: usize,
    /// How long a change may stay unseen in the attributes of a file's other names.
    stale: Duration,
}

fn refused<T>(result: io::Result<T>, wanted: Errno, what: &str) -> Result<()> {
    let errno = result.err().and_then(|error| error.raw_os_error());
    ensure!(errno == Some(wanted.raw_os_error()), "{what}: wanted {wanted}, got {errno:?}");
    Ok(())
}

impl Stress {
    pub(super) fn new(root: &Path, seed: u64, stale: Duration) -> Self {
        Self { root: root.to_owned(), chance: Chance::new(seed), model: Model::new(), fresh: 0, stale }
    }

    /// One operation, or none where the one that was drawn finds nothing to work on.
    pub(super) fn step(&mut self) -> Result<()> {
        let full = self.model.entries.len() >= ENTRIES_MAX;
        match self.chance.below(24) {
            0..=2 if !full => self.create(),
            3 if !full => self.mkdir(),
            4 if !full => self.symlink(),
            5 if !full => self.link(),
            6 | 7 => self.write(),
            8 | 9 => self.append(),
            10 => self.truncate(),
            11 | 12 => self.rename_file(),
            13 => self.rename_dir(),
            14 | 15 => self.unlink(),
            16 => self.rmdir(),
            17 => self.chmod(),
            18 => self.set_xattr(),
            19 => self.remove_xattr(),
            20 => self.unlinked_but_open(),
            21 => self.refusals(),
            22 => self.read(),
            _ => self.list(),
        }
    }

    /// Everything there is against the model.
    pub(super) fn compare_all(&self) -> Result<()> {
        for (path, entry) in &self.model.entries {
            match entry {
                Entry::Dir { mode } => {
                    self.compare_list(path)?;
                    let found =
                        fs::symlink_metadata(self.root.join(path)).with_context(|| path.display().to_string())?;
                    ensure!(found.is_dir() && found.mode() & 0o7777 == *mode, "{}: {:o}", path.display(), found.mode());
                }
                Entry::File(_) => {
                    self.compare_attributes(path)?;
                    self.compare_content(path)?;
                    self.compare_xattrs(path)?;
                }
                Entry::Symlink(text) => {
                    let found = fs::read_link(self.root.join(path)).with_context(|| path.display().to_string())?;
                    ensure!(found == Path::new(text), "{} -> {}", path.display(), found.display());
                }
            }
        }
        Ok(())
    }

    fn new_path(&mut self) -> PathBuf {
        let dirs = self.model.dirs();
        let dir = self.chance.pick(&dirs).expect("the top is always there");
        self.fresh += 1;
        let tail = "x".repeat(self.chance.below(40));
        dir.join(format!("{}{tail}", self.fresh))
    }

    fn any_file(&mut self) -> Option<PathBuf> {
        let files = self.model.regular();
        self.chance.pick(&files)
    }

    fn create(&mut self) -> Result<()> {
        let path = self.new_path();
        let mode = [0o600, 0o644, 0o640][self.chance.below(3)];
        let content = self.chance.bytes(20_000);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(self.root.join(&path))?;
        file.write_all(&content)?;
        if self.chance.below(4) == 0 {
            file.sync_all()?;
        }
        drop(file);
        self.model.add_file(&path, File { content, mode, ..File::default() });
        self.compare_attributes(&path)
    }

    fn mkdir(&mut self) -> Result<()> {
        let path = self.new_path();
        if path.components().count() > 6 {
            return Ok(());
        }
        fs::create_dir(self.root.join(&path))?;
        self.model.entries.insert(path, Entry::Dir { mode: 0o755 });
        Ok(())
    }

    fn symlink(&mut self) -> Result<()> {
        let path = self.new_path();
        let text = format!("to/{}", "y".repeat(1 + self.chance.below(200)));
        symlink(&text, self.root.join(&path))?;
        ensure!(fs::read_link(self.root.join(&path))? == Path::new(&text), "{}: another text", path.display());
        self.model.entries.insert(path, Entry::Symlink(text));
        Ok(())
    }

    fn link(&mut self) -> Result<()> {
        let Some(old) = self.any_file() else { return Ok(()) };
        let new = self.new_path();
        let number = self.model.file_number(&old);
        fs::hard_link(self.root.join(&old), self.root.join(&new))?;
        self.model.link(&new, number);
        self.compare_attributes(&old)?;
        self.compare_attributes(&new)
    }

    fn write(&mut self) -> Result<()> {
        let Some(path) = self.any_file() else { return Ok(()) };
        let data = self.chance.bytes(140_000);
        let offset = self.chance.below(FILE_BYTES_MAX - data.len());
        let file = OpenOptions::new().read(true).write(true).open(self.root.join(&path))?;
        file.write_all_at(&data, offset as u64)?;
        self.model.file_mut(&path).write(offset, &data);
        // What one descriptor wrote it reads at once.
        let mut back = vec![0; data.len()];
        file.read_exact_at(&mut back, offset as u64)?;
        ensure!(back == data, "{}: reads other bytes than it wrote at {offset}", path.display());
        drop(file);
        self.compare_attributes(&path)
    }

    fn append(&mut self) -> Result<()> {
        let Some(path) = self.any_file() else { return Ok(()) };
        let data = self.chance.bytes(9000);
        if self.model.file(&path).content.len() + data.len() > FILE_BYTES_MAX {
            return Ok(());
        }
        OpenOptions::new().append(true).open(self.root.join(&path))?.write_all(&data)?;
        self.model.file_mut(&path).content.extend(&data);
        self.compare_attributes(&path)
    }

    fn truncate(&mut self) -> Result<()> {
        let Some(path) = self.any_file() else { return Ok(()) };
        let len = self.chance.below(FILE_BYTES_MAX / 2);
        OpenOptions::new().write(true).open(self.root.join(&path))?.set_len(len as u64)?;
        self.model.file_mut(&path).content.resize(len, 0);
        self.compare_attributes(&path)?;
        self.compare_content(&path)
    }

    fn rename_file(&mut self) -> Result<()> {
        let movable = self.model.paths(|entry| !matches!(entry, Entry::Dir { .. }));
        let Some(from) = self.chance.pick(&movable) else { return Ok(()) };
        let onto = self.chance.pick(&movable).filter(|_| self.chance.below(2) == 0);
        let to = onto.unwrap_or_else(|| self.new_path());
        fs::rename(self.root.join(&from), self.root.join(&to))?;
        // Two names of one file: POSIX says that nothing happens.
        let same = match (self.model.entries.get(&from), self.model.entries.get(&to)) {
            (Some(Entry::File(one)), Some(Entry::File(other))) => one == other,
            _ => from == to,
        };
        if same {
            return Ok(());
        }
        self.model.rename(&from, &to);
        refused(fs::symlink_metadata(self.root.join(&from)), Errno::NOENT, "the old name after a rename")?;
        if matches!(self.model.entries.get(&to), Some(Entry::File(_))) {
            self.compare_attributes(&to)?;
            self.compare_content(&to)?;
        }
        Ok(())
    }

    fn rename_dir(&mut self) -> Result<()> {
        let dirs = self.model.dirs();
        let Some(from) = self.chance.pick(&dirs).filter(|path| !path.as_os_str().is_empty()) else { return Ok(()) };
        let to = self.new_path();
        if to.starts_with(&from) {
            return refused(
                fs::rename(self.root.join(&from), self.root.join(&to)),
                Errno::INVAL,
                "a directory into itself",
            );
        }
        fs::rename(self.root.join(&from), self.root.join(&to))?;
        self.model.rename(&from, &to);
        refused(fs::symlink_metadata(self.root.join(&from)), Errno::NOENT, "the old name of a directory")?;
        self.compare_list(&to)
    }

    fn unlink(&mut self) -> Result<()> {
        let removable = self.model.paths(|entry| !matches!(entry, Entry::Dir { .. }));
        let Some(path) = self.chance.pick(&removable) else { return Ok(()) };
        fs::remove_file(self.root.join(&path))?;
        self.model.remove(&path);
        refused(fs::symlink_metadata(self.root.join(&path)), Errno::NOENT, "a name after unlink")
    }

    fn rmdir(&mut self) -> Result<()> {
        let dirs = self.model.dirs();
        let Some(path) = self.chance.pick(&dirs).filter(|path| !path.as_os_str().is_empty()) else { return Ok(()) };
        let result = fs::remove_dir(self.root.join(&path));
        if self.model.names(&path).is_empty() {
            result?;
            self.model.remove(&path);
            return Ok(());
        }
        refused(result, Errno::NOTEMPTY, "rmdir of a directory that is not empty")
    }

    fn chmod(&mut self) -> Result<()> {
        let paths = self.model.paths(|entry| !matches!(entry, Entry::Symlink(_)));
        let Some(path) = self.chance.pick(&paths).filter(|path| !path.as_os_str().is_empty()) else { return Ok(()) };
        let new = 0o600 | u32::try_from(self.chance.below(0o100)).expect("six bits");
        fs::set_permissions(self.root.join(&path), fs::Permissions::from_mode(new))?;
        let found = fs::symlink_metadata(self.root.join(&path))?.mode() & 0o7777;
        ensure!(found == new, "{}: mode {found:o} after chmod {new:o}", path.display());
        match self.model.entries.get_mut(&path) {
            Some(Entry::Dir { mode }) => *mode = new,
            _ => self.model.file_mut(&path).mode = new,
        }
        Ok(())
    }

    fn set_xattr(&mut self) -> Result<()> {
        let Some(path) = self.any_file() else { return Ok(()) };
        let name = format!("user.name{}", self.chance.below(3));
        let value = self.chance.bytes(200);
        rustix::fs::setxattr(self.root.join(&path), &name, &value, XattrFlags::empty())?;
        self.model.file_mut(&path).xattrs.insert(name, value);
        self.compare_xattrs(&path)
    }

    fn remove_xattr(&mut self) -> Result<()> {
        let Some(path) = self.any_file() else { return Ok(()) };
        let name = format!("user.name{}", self.chance.below(3));
        let result = rustix::fs::removexattr(self.root.join(&path), &name);
        let there = self.model.file_mut(&path).xattrs.remove(&name).is_some();
        let wanted = if there { Ok(()) } else { Err(Errno::NODATA) };
        ensure!(result == wanted, "{}: removexattr of {name}: {result:?}, wanted {wanted:?}", path.display());
        Ok(())
    }

    fn unlinked_but_open(&mut self) -> Result<()> {
        let path = self.new_path();
        let path = self.root.join(path);
        let data = self.chance.bytes(30_000);
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        file.write_all(&data[..data.len() / 2])?;
        fs::remove_file(&path)?;
        file.write_all(&data[data.len() / 2..])?;
        let mut back = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut back)?;
        ensure!(back == data, "{}: another content after unlink", path.display());
        ensure!(file.metadata()?.len() == data.len() as u64, "{}: another size after unlink", path.display());
        Ok(())
    }

    /// Requests that no file system grants.
    fn refusals(&mut self) -> Result<()> {
        let missing = self.new_path();
        let missing = self.root.join(missing);
        refused(fs::File::open(&missing), Errno::NOENT, "open of nothing")?;
        refused(fs::remove_file(&missing), Errno::NOENT, "unlink of nothing")?;
        let dirs = self.model.dirs();
        let dir = self.root.join(self.chance.pick(&dirs).expect("the top is always there"));
        refused(fs::create_dir(&dir), Errno::EXIST, "mkdir of what is there")?;
        refused(fs::remove_file(&dir), Errno::ISDIR, "unlink of a directory")?;
        let Some(file) = self.any_file() else { return Ok(()) };
        let file = self.root.join(file);
        let again = OpenOptions::new().write(true).create_new(true).open(&file);
        refused(again, Errno::EXIST, "exclusive create of what is there")?;
        refused(fs::read_dir(&file), Errno::NOTDIR, "list of a file")?;
        refused(fs::File::open(file.join("below")), Errno::NOTDIR, "open below a file")?;
        refused(fs::remove_dir(&file), Errno::NOTDIR, "rmdir of a file")?;
        refused(fs::hard_link(&dir, &missing), Errno::PERM, "hard link to a directory")
    }

    fn read(&mut self) -> Result<()> {
        let Some(path) = self.any_file() else { return Ok(()) };
        self.compare_attributes(&path)?;
        self.compare_content(&path)
    }

    fn list(&mut self) -> Result<()> {
        let dirs = self.model.dirs();
        let dir = self.chance.pick(&dirs).expect("the top is always there");
        self.compare_list(&dir)
    }

    fn compare_attributes(&self, path: &Path) -> Result<()> {
        let file = self.model.file(path);
        let wanted = (true, file.content.len() as u64, file.mode, file.links);
        let attributes = || -> Result<_> {
            let found = fs::symlink_metadata(self.root.join(path)).with_context(|| path.display().to_string())?;
            Ok((found.is_file(), found.size(), found.mode() & 0o7777, found.nlink()))
        };
        let mut got = attributes()?;
        if got != wanted {
            wait::until(self.stale, || {
                got = attributes().unwrap_or(got);
                got == wanted
            });
        }
        ensure!(wanted == got, "{}: (regular, size, mode, links) is {got:?}, wanted {wanted:?}", path.display());
        Ok(())
    }

    fn compare_content(&self, path: &Path) -> Result<()> {
        let found = fs::read(self.root.join(path)).with_context(|| path.display().to_string())?;
        let wanted = &self.model.file(path).content;
        let at = found.iter().zip(wanted).position(|(one, other)| one != other);
        let (have, want) = (found.len(), wanted.len());
        ensure!(found == *wanted, "{}: {have} bytes, wanted {want}; first difference at {at:?}", path.display());
        Ok(())
    }

    fn compare_xattrs(&self, path: &Path) -> Result<()> {
        let mut found = tree::xattrs(&self.root.join(path))?;
        found.retain(|name, _| name.starts_with("user."));
        let wanted = &self.model.file(path).xattrs;
        ensure!(found == *wanted, "{}: xattrs {found:?}, wanted {wanted:?}", path.display());
        Ok(())
    }

    fn compare_list(&self, dir: &Path) -> Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.root.join(dir)).with_context(|| dir.display().to_string())? {
            found.push(entry?.file_name().to_string_lossy().into_owned());
        }
        found.sort();
        let wanted = self.model.names(dir);
        ensure!(found == wanted, "{}: lists {found:?}, wanted {wanted:?}", dir.display());
        Ok(())
    }
}

#[test]
fn the_model_agrees_with_the_local_file_system() {
    let dir = tempfile_dir();
    super::run(&dir.join("work"), 7, Duration::from_secs(1), Duration::ZERO).unwrap();
    fs::remove_dir_all(dir).unwrap();
}

/// A folder of its own; the target directory is on a real disk, with user xattrs.
fn tempfile_dir() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("stress-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}
