//! The table of file systems, fstab(5), as text in and text out.

use std::path::Path;

/// A line that mounts something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The line as it stands, without its end.
    pub text: &'a str,
    /// Its first field: `UUID=…`, a device, a remote.
    pub source: &'a str,
}

/// The line that mounts at `target`, if there is one.
pub fn line_for<'a>(table: &'a str, target: &Path) -> Option<Line<'a>> {
    table.lines().find_map(|text| {
        let mut fields = text.split_whitespace();
        let source = fields.next().filter(|source| !source.starts_with('#'))?;
        let mounted_at = Path::new(fields.next()?);
        (mounted_at.components().eq(target.components())).then_some(Line { text, source })
    })
}

/// The lines whose source is one of `sources`.
pub fn lines_of<'a>(table: &'a str, sources: &[String]) -> Vec<Line<'a>> {
    let line = |text: &'a str| Some(Line { text, source: text.split_whitespace().next()? });
    table.lines().filter_map(line).filter(|line| sources.iter().any(|source| source == line.source)).collect()
}

/// The table without the lines `gone`.
pub fn without(table: &str, gone: &[&str]) -> String {
    table.lines().filter(|line| !gone.contains(line)).flat_map(|line| [line, "\n"]).collect()
}

/// The table with `line` in the place of `replaced`, or at its end.
pub fn with_line(table: &str, line: &str, replaced: Option<&str>) -> String {
    let mut text = String::with_capacity(table.len() + line.len() + 2);
    let mut placed = false;
    for found in table.lines() {
        if !placed && Some(found) == replaced {
            text.push_str(line);
            placed = true;
        } else {
            text.push_str(found);
        }
        text.push('\n');
    }
    if !placed {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# a comment /srv/gfs\nUUID=1 / ext4 defaults 0 1\n/dev/vdb\t/srv/gfs/  ext4 defaults 1 2";

    #[test]
    fn the_line_of_a_mount_point_is_found_whatever_its_slashes() {
        let line = line_for(TABLE, Path::new("/srv/gfs")).unwrap();
        assert_eq!(line.source, "/dev/vdb");
        assert_eq!(line_for(TABLE, Path::new("/srv")), None);
    }

    #[test]
    fn lines_are_found_by_their_source_and_taken_out() {
        let found = lines_of(TABLE, &["UUID=9".into(), "/dev/vdb".into()]);
        assert_eq!(found, [Line { text: "/dev/vdb\t/srv/gfs/  ext4 defaults 1 2", source: "/dev/vdb" }]);
        assert_eq!(without(TABLE, &[found[0].text]), "# a comment /srv/gfs\nUUID=1 / ext4 defaults 0 1\n");
    }

    #[test]
    fn a_line_is_added_at_the_end_or_replaces_one() {
        assert_eq!(with_line("a\nb", "c", None), "a\nb\nc\n");
        assert_eq!(with_line("a\nb\n", "c", Some("a")), "c\nb\n");
        assert_eq!(with_line("", "c", None), "c\n");
    }
}
