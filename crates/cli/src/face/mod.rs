//! Wording of results, without I/O: a command and its answer in, text and an exit code out.

pub mod gluster;
pub mod gluster_growth;
mod gluster_heal;
mod gluster_split_brain;
pub mod gluster_status;
pub mod plain;
mod plain_growth;
mod plain_heal;
pub mod plan;
pub mod table;
pub mod volume_words;
pub mod xml;
mod xml_growth;
mod xml_status;
pub mod xml_volume;

/// What a command prints and how it exits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    pub code: u8,
}

impl Output {
    pub fn out(text: impl Into<String>) -> Self {
        Self { stdout: text.into(), ..Self::default() }
    }

    /// A failure: a line on stderr.
    pub fn fail(text: impl AsRef<str>, code: u8) -> Self {
        Self { stdout: String::new(), stderr: format!("{}\n", text.as_ref()), code }
    }

    /// A remark on stderr, with success.
    pub fn remark(text: impl AsRef<str>) -> Self {
        Self::fail(text, 0)
    }
}
