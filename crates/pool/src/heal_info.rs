//! What is pending on a volume, asked of its bricks by a client graph in this process.

use mortar_api::Error;
use mortar_api::heal::BrickPending;
use mortar_logic::pool::Volume;

use crate::node::Node;

pub(crate) async fn pending(_node: &Node, _volume: &Volume) -> Result<Vec<BrickPending>, Error> {
    Ok(Vec::new())
}
