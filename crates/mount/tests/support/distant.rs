//! A volume whose listings take a moment, as they do over a network: what is asked ahead is under way for a while.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mortar_types::{Context, Fops, Outcome, Reply, Request};

pub(crate) struct Distant(pub(crate) Arc<dyn Fops>);

#[async_trait]
impl Fops for Distant {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        if matches!(request, Request::Readdir(_) | Request::Readdirp(_)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.0.call(ctx, request).await
    }

    fn name(&self) -> &str {
        self.0.name()
    }
}
