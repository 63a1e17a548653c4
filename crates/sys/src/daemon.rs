//! Becoming a background process.

use mortar_types::Errno;

use crate::Result;

/// Which side of a fork this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The caller, with the child's process id.
    Parent(i32),
    Child,
}

/// fork(2), for a process that still has one thread: a child of more would hold whatever locks the other threads held. EBUSY
/// when there are others.
pub fn fork() -> Result<Side> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(|error| Errno::from_io(&error))?.count();
    if threads != 1 {
        return Err(Errno::EBUSY);
    }
    // SAFETY: fork(2) has no memory preconditions; with a single thread, checked above, no lock or allocator state can be
    // caught halfway in the child.
    // JUSTIFICATION: neither std nor rustix offers fork.
    match unsafe { libc::fork() } {
        -1 => Err(Errno::from_io(&std::io::Error::last_os_error())),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        let (keep, gone) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || gone.recv());
        assert_eq!(fork(), Err(Errno::EBUSY));
        drop(keep);
        let _ = other.join();
    }
}
