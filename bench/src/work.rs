//! The work: what mail servers and home directories do, one thread, as an application sees it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// Operations per second by operation, MiB per second for the streams.
pub(crate) type Rates = BTreeMap<String, f64>;

/// The operations in the order they are done and shown.
pub(crate) const OPERATIONS: [&str; 11] =
    ["create", "stat", "read", "append", "rename", "ls -l", "delete", "mkdir", "mail", "stream write", "stream read"];

const SMALL_BYTES: usize = 4096;
const MAIL_BYTES: usize = 8192;
const STREAM_BYTES: usize = 256 << 20;
/// Longer than the entry and attribute timeouts of both systems (1 s): a later pass asks the bricks again.
const CACHE_EXPIRY: Duration = Duration::from_millis(1500);

/// Does everything below `folder`, which must be empty.
pub(crate) fn all(folder: &Path, files: usize) -> Result<Rates> {
    let mut rates = Rates::new();
    let mut rate = |name: &str, count: f64, work: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        let start = Instant::now();
        work()?;
        rates.insert(name.to_owned(), count / start.elapsed().as_secs_f64());
        Ok(())
    };
    let small = folder.join("small");
    fs::create_dir(&small)?;
    let path = |number: usize| small.join(format!("file{number}"));
    let renamed = |number: usize| small.join(format!("renamed{number}"));
    let count = files as f64;
    let each = |work: &mut dyn FnMut(usize) -> Result<()>| (0..files).try_for_each(work);

    rate("create", count, &mut || each(&mut |number| write_new(&path(number), SMALL_BYTES)))?;
    std::thread::sleep(CACHE_EXPIRY);
    rate("stat", count, &mut || {
        each(&mut |number| {
            ensure!(fs::symlink_metadata(path(number))?.size() == SMALL_BYTES as u64);
            Ok(())
        })
    })?;
    std::thread::sleep(CACHE_EXPIRY);
    rate("read", count, &mut || each(&mut |number| read_all(&path(number), SMALL_BYTES)))?;
    rate("append", count, &mut || {
        each(&mut |number| Ok(OpenOptions::new().append(true).open(path(number))?.write_all(&[b'a'; 128])?))
    })?;
    rate("rename", count, &mut || each(&mut |number| Ok(fs::rename(path(number), renamed(number))?)))?;
    std::thread::sleep(CACHE_EXPIRY);
    rate("ls -l", count, &mut || {
        let mut seen = 0;
        for entry in fs::read_dir(&small)? {
            seen += usize::from(entry?.metadata()?.is_file());
        }
        ensure!(seen == files, "{seen} of {files} listed");
        Ok(())
    })?;
    rate("delete", count, &mut || each(&mut |number| Ok(fs::remove_file(renamed(number))?)))?;
    rate("mkdir", count, &mut || each(&mut |number| Ok(fs::create_dir(small.join(format!("dir{number}")))?)))?;
    mail_folders(folder)?;
    rate("mail", count, &mut || each(&mut |number| deliver(folder, number)))?;
    let stream = folder.join("stream");
    let mebibytes = (STREAM_BYTES >> 20) as f64;
    rate("stream write", mebibytes, &mut || stream_write(&stream))?;
    File::open(&stream)?.sync_all()?;
    fs::write("/proc/sys/vm/drop_caches", "1")?;
    rate("stream read", mebibytes, &mut || read_all(&stream, STREAM_BYTES))?;
    Ok(rates)
}

fn write_new(path: &PathBuf, bytes: usize) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(&vec![b'x'; bytes])?;
    Ok(())
}

fn read_all(path: &PathBuf, bytes: usize) -> Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; bytes.min(1 << 20)];
    let mut total = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        total += read;
    }
    ensure!(total >= bytes, "{}: {total} of {bytes} bytes", path.display());
    Ok(())
}

fn mail_folders(folder: &Path) -> Result<()> {
    for name in ["tmp", "new"] {
        fs::create_dir(folder.join(name))?;
    }
    Ok(())
}

/// A delivery as an MTA does it: a new file, 8 KiB, fsync, rename into place.
fn deliver(folder: &Path, number: usize) -> Result<()> {
    let temporary = folder.join("tmp").join(format!("m{number}"));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    file.write_all(&vec![b'm'; MAIL_BYTES])?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, folder.join("new").join(format!("m{number}")))?;
    Ok(())
}

fn stream_write(path: &PathBuf) -> Result<()> {
    let mut file = File::create(path)?;
    let block = vec![b's'; 1 << 20];
    for _ in 0..(STREAM_BYTES >> 20) {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(())
}
