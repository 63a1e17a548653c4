//! The health checker: writes the time to `.glusterfs/health_check` and reads it back, so that a dying disk takes its brick
//! out of service instead of failing every user of it.
//!
//! Source: GlusterFS `posix-helpers.c: posix_health_check_thread_proc`. The check runs on a thread of its own, because a dead
//! disk may never answer; a second thread notices when it has not.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use mortar_sys::at::{self, OpenFlags};
use mortar_sys::{Result, file};
use mortar_types::Errno;

use super::options::StoreOptions;

/// The file, below the brick.
const PATH: &[u8] = b".glusterfs/health_check";

/// Why a brick's disk is not trusted any more.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HealthFailure {
    #[error("cannot write .glusterfs/health_check: {0}")]
    Io(Errno),
    #[error(".glusterfs/health_check holds something else than was written")]
    Different,
    #[error("the disk has not answered for {0:?}")]
    Hangs(Duration),
}

/// Ends the checking when dropped.
pub(crate) struct HealthCheck {
    _stop: mpsc::Sender<()>,
}

/// Starts checking; `None` when the options say not to, or when no thread can be made (logged).
pub(crate) fn start(root: Arc<OwnedFd>, options: &StoreOptions) -> Option<HealthCheck> {
    if options.health_check_interval.is_zero() {
        return None;
    }
    let (stop, stopped) = mpsc::channel();
    let (interval, timeout) = (options.health_check_interval, options.health_check_timeout);
    let on_failure = options.on_health_failure.clone();
    let started = std::thread::Builder::new().name("health-check".to_owned()).spawn(move || {
        while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            if let Err(failure) = check_in_time(root.clone(), timeout) {
                tracing::error!(%failure, "the brick's disk failed its health check; the brick goes out of service");
                if let Some(on_failure) = on_failure {
                    on_failure(&failure);
                }
                return;
            }
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "cannot start the health check");
        return None;
    }
    Some(HealthCheck { _stop: stop })
}

fn check_in_time(root: Arc<OwnedFd>, timeout: Duration) -> std::result::Result<(), HealthFailure> {
    let (answer, answered) = mpsc::channel();
    let checker = std::thread::Builder::new().name("health-io".to_owned()).spawn(move || {
        // The receiver is gone when the answer comes too late.
        let _ = answer.send(check(&root));
    });
    match checker {
        Ok(_) => answered.recv_timeout(timeout).unwrap_or(Err(HealthFailure::Hangs(timeout))),
        // Out of threads is not the disk's fault (GlusterFS forgives EAGAIN).
        Err(_) => Ok(()),
    }
}

/// One check.
pub(crate) fn check(root: &OwnedFd) -> std::result::Result<(), HealthFailure> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    let text = time_text(now);
    match write_and_read(root, text.as_bytes()) {
        Ok(found) if found == text.as_bytes() => Ok(()),
        Ok(_) => Err(HealthFailure::Different),
        Err(Errno::EAGAIN) => Ok(()),
        Err(error) => Err(HealthFailure::Io(error)),
    }
}

fn write_and_read(root: &OwnedFd, text: &[u8]) -> Result<Vec<u8>> {
    let flags = OpenFlags::RDWR | OpenFlags::CREATE | OpenFlags::TRUNC;
    let opened = at::open(root.as_fd(), PATH, flags, 0o644)?;
    file::write_at(opened.as_fd(), 0, text)?;
    file::fdatasync(opened.as_fd())?;
    file::read_at(opened.as_fd(), 0, text.len())
}

/// `2026-11-23 03:28:53 +0000`, from seconds since the epoch.
fn time_text(seconds: i64) -> String {
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Civil date from days, by eras of 400 years that begin in March (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} +0000", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_written_as_glusterfs_does() {
        assert_eq!(time_text(1_795_404_533), "2026-11-23 03:28:53 +0000");
        assert_eq!(time_text(951_782_400), "2000-02-29 00:00:00 +0000");
        assert_eq!(time_text(0), "1970-01-01 00:00:00 +0000");
    }
}
