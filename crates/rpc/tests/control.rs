//! Control sockets: typed requests and replies between the daemon and a process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mortar_rpc::control::{Client, Error, Handler, LINE_BYTES_MAX, Reply, Request, StatusReply, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Brick;

#[async_trait]
impl Handler for Brick {
    async fn request(&self, request: Request) -> Reply {
        match request {
            Request::Status { .. } => Reply::Status(StatusReply { pid: 7, ..StatusReply::default() }),
            Request::Terminate => Reply::Ok,
            Request::Reload => Reply::Error { message: "the volfile is gone".into() },
            Request::Heal { .. }
            | Request::Progress { .. }
            | Request::Crawls { .. }
            | Request::RebalanceStatus
            | Request::RebalanceControl { .. } => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn requests_are_answered_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("brick.ctl");
    let _server = serve(&path, Arc::new(Brick)).unwrap();
    let client = Client::connect(&path).await.unwrap();
    let (one, two) = tokio::join!(client.status(false, false), client.order(&Request::Terminate));
    assert_eq!(one.unwrap().pid, 7);
    two.unwrap();
    let refused = client.order(&Request::Reload).await;
    assert!(matches!(refused, Err(Error::Refused(message)) if message == "the volfile is gone"));
    let unanswered = tokio::time::timeout(Duration::from_millis(20), client.progress("imap0")).await;
    assert!(unanswered.is_err());
}

#[tokio::test]
async fn the_end_of_the_process_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("brick.ctl");
    let server = serve(&path, Arc::new(Brick)).unwrap();
    let client = Client::connect(&path).await.unwrap();
    client.order(&Request::Terminate).await.unwrap();
    let (ended, progress, ()) = tokio::join!(client.ended(), client.progress("imap0"), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(server);
    });
    let () = ended;
    assert!(matches!(progress, Err(Error::Io(_))));
    assert!(matches!(client.order(&Request::Terminate).await, Err(Error::Io(_))));
    assert!(!path.exists());
}

#[tokio::test]
async fn nonsense_gets_a_sentence_and_an_endless_line_the_door() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("brick.ctl");
    let _server = serve(&path, Arc::new(Brick)).unwrap();
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"{\"request\":\"dance\"}\n").await.unwrap();
    let mut answer = [0; 256];
    let bytes = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..bytes]);
    assert!(
        answer.starts_with("{\"reply\":\"error\",\"message\":\"the request is not understood: unknown variant"),
        "{answer}"
    );
    // The server hangs up in the middle.
    let _ = stream.write_all(&vec![b'x'; LINE_BYTES_MAX + 2]).await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}
