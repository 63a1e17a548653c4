//! One JSON object per line, of bounded length.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::control::LINE_BYTES_MAX;

/// One line without its end; `None` at the end of the stream. A line beyond the limit is an error.
pub(super) async fn read_line(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    if (&mut *stream).take(limit).read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    if line.pop() == Some(b'\n') {
        return Ok(Some(line));
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long or not ended"))
}

pub(super) async fn write_line(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl serde::Serialize,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    if line.len() > LINE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long for a line"));
    }
    line.push(b'\n');
    stream.write_all(&line).await
}
