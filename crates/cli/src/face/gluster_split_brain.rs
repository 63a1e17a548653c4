//! `gluster volume heal VOL split-brain …` and `statistics` in text (`heal/src/glfs-heal.c`, `cli/src/cli-rpc-ops.c`).

use std::fmt::Write;

use mortar_api::heal::{BrickCrawls, Crawl, Rule, SettleFailureKind, Settled};

use super::Output;

/// The exit code where the file is not there (`EINVAL`), and where it was not settled.
const NOT_FOUND: u8 = 22;
const FAILED: u8 = 1;

/// What became of one file that was named.
pub(super) fn one(rule: &Rule, settled: &[Settled]) -> Output {
    let mut text = String::new();
    let mut code = 0;
    for entry in settled {
        describe(&mut text, rule, entry);
        code = match entry.failure.as_ref().map(|failure| failure.kind) {
            None => code,
            Some(SettleFailureKind::Lookup) => NOT_FOUND,
            Some(_) => FAILED,
        };
    }
    if code != 0 {
        text.push_str("Volume heal failed.\n");
    }
    Output { stdout: text, stderr: String::new(), code }
}

/// What became of all entries of a brick.
pub(super) fn all(rule: &Rule, settled: &[Settled]) -> String {
    let mut text = String::new();
    for entry in settled {
        describe(&mut text, rule, entry);
    }
    let healed = settled.iter().filter(|entry| entry.failure.is_none()).count();
    let _ = write!(text, "Status: Connected\nNumber of healed entries: {healed}\n\n");
    text
}

fn describe(text: &mut String, rule: &Rule, entry: &Settled) {
    let name = &entry.name;
    if entry.directory && matches!(rule, Rule::SourceBrick(_)) {
        let _ = writeln!(text, "'source-brick' option used on a directory ({name}). Performing conservative merge.");
    }
    let _ = match &entry.failure {
        None => writeln!(text, "Healed {name}."),
        Some(failure) if failure.kind == SettleFailureKind::Lookup => {
            writeln!(text, "Lookup failed on {name}:{}.", failure.message)
        }
        Some(failure) if entry.directory && *rule == Rule::BiggerFile => writeln!(text, "{}.", failure.message),
        Some(failure) => writeln!(text, "Healing {name} failed: {}.", failure.message),
    };
}

pub(super) fn statistics(volume: &str, bricks: &[BrickCrawls]) -> String {
    let mut text = format!("Gathering crawl statistics on volume {volume} has been successful \n");
    for (number, brick) in bricks.iter().enumerate() {
        let host = &brick.brick.host;
        let _ = write!(
            text,
            "------------------------------------------------\n\nCrawl statistics for brick no {number}\nHostname of brick {host}\n"
        );
        for of_brick in &brick.crawls {
            crawl(&mut text, of_brick);
        }
    }
    text
}

fn crawl(text: &mut String, crawl: &Crawl) {
    let kind = if crawl.full { "FULL" } else { "INDEX" };
    let _ = writeln!(text, "\nStarting time of crawl: {}\n", date(crawl.began));
    let _ = match crawl.ended {
        Some(ended) => writeln!(text, "Ending time of crawl: {}\n", date(ended)),
        None => writeln!(text, "Crawl is in progress"),
    };
    let _ = writeln!(
        text,
        "Type of crawl: {kind}\nNo. of entries healed: {}\nNo. of entries in split-brain: {}\nNo. of heal failed entries: {}",
        crawl.healed, crawl.split_brain, crawl.failed
    );
}

/// As ctime(3) writes it, in UTC: `Mon Nov 23 03:23:21 2026`.
fn date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [(&str, u64); 12] = [
        ("Jan", 31),
        ("Feb", 28),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let weekday = DAYS[(days % 7) as usize];
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut name = "Jan";
    for (month, length) in MONTHS {
        name = month;
        let length = length + u64::from(month == "Feb" && is_leap(year));
        if day < length {
            break;
        }
        day -= length;
    }
    format!("{weekday} {name} {:>2} {:02}:{:02}:{:02} {year}", day + 1, time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_ctime() {
        assert_eq!(date(0), "Thu Jan  1 00:00:00 1970");
        assert_eq!(date(951_782_400), "Tue Feb 29 00:00:00 2000");
        assert_eq!(date(1_795_404_201), "Mon Nov 23 03:23:21 2026");
        assert_eq!(date(1_798_761_599), "Thu Dec 31 23:59:59 2026");
    }
}
