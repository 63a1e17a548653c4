//! Asking the daemon: a command in, its answer out.

use std::collections::BTreeMap;

use mortar_api::brick::Removal;
use mortar_api::heal::{
    BrickCrawls, BrickPending, Heal, Info as HealInfo, Settle, Settled, Statistics, Verified, Verify,
};
use mortar_api::peer::{Detach, List, Members, Probe, Probed, Recover};
use mortar_api::rebalance::{self, Started};
use mortar_api::volume::{
    Changed, Delete, Get, GetSpec, Info, Names, OptionHelp, OptionValue, Reset, Set, Start, Status, Stop, Volume,
    VolumeStatus,
};

use crate::Command;
use crate::client::{CallError, Client};
use crate::command::StatusView;
use crate::growth::Growth;

/// What the daemon answered, by shape.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(untagged)]
pub enum Answer {
    Done,
    Probed(Probed),
    Members(Members),
    Changed(Changed),
    Volumes(Vec<Volume>),
    Names(Vec<String>),
    Status(Vec<VolumeStatus>),
    Options(Vec<OptionValue>),
    OptionHelp(BTreeMap<String, String>),
    Pending(Vec<BrickPending>),
    Removal(Removal),
    Started(Started),
    Rebalance(rebalance::Status),
    Settled(Vec<Settled>),
    Crawls(Vec<BrickCrawls>),
    Verified(Verified),
    Text(String),
}

/// Performs the command.
pub async fn execute(client: &Client, command: &Command) -> Result<Answer, CallError> {
    Ok(match command.clone() {
        Command::PeerProbe { host } => Answer::Probed(client.call(&Probe { host }).await?),
        Command::PeerDetach { host, force } => {
            client.call(&Detach { host, force }).await?;
            Answer::Done
        }
        Command::PeerStatus | Command::PoolList => Answer::Members(client.call(&List {}).await?),
        Command::UuidGet => Answer::Text(client.call(&List {}).await?.local.to_string()),
        Command::PoolRecover => {
            client.call(&Recover { confirmed: true }).await?;
            Answer::Done
        }
        Command::VolumeCreate(create) => Answer::Changed(client.call(&create).await?),
        Command::VolumeStart { name, force } => Answer::Changed(client.call(&Start { name, force }).await?),
        Command::VolumeStop { name, force } => Answer::Changed(client.call(&Stop { name, force }).await?),
        Command::VolumeDelete { name } => Answer::Changed(client.call(&Delete { name }).await?),
        Command::VolumeInfo { name } => Answer::Volumes(client.call(&Info { name }).await?.volumes),
        Command::VolumeList => Answer::Names(client.call(&Names {}).await?),
        Command::VolumeStatus { name, brick, view } => {
            let detail = view == StatusView::Detail;
            let clients = matches!(view, StatusView::Clients | StatusView::ClientList);
            Answer::Status(client.call(&Status { name, brick, detail, clients }).await?)
        }
        Command::VolumeSet { name, options } => Answer::Changed(client.call(&Set { name, options }).await?),
        Command::VolumeSetHelp => Answer::OptionHelp(client.call(&OptionHelp {}).await?),
        Command::VolumeGet { name, key } => Answer::Options(client.call(&Get { name, key }).await?),
        Command::VolumeReset { name, key, force } => Answer::Changed(client.call(&Reset { name, key, force }).await?),
        Command::Heal { name, action } => {
            client.call(&Heal { volume: name, action }).await?;
            Answer::Done
        }
        Command::HealSettle { name, rule, target } => {
            Answer::Settled(client.call(&Settle { volume: name, rule, target }).await?)
        }
        Command::HealStatistics { name } => Answer::Crawls(client.call(&Statistics { volume: name }).await?),
        Command::VolumeVerify { name } => Answer::Verified(client.call(&Verify { volume: name }).await?),
        Command::HealInfo { name, .. } | Command::HealCount { name, .. } => {
            Answer::Pending(client.call(&HealInfo { volume: name }).await?)
        }
        Command::Growth(growth) => grow(client, &growth).await?,
        Command::Getspec { name } => Answer::Text(client.call(&GetSpec { volfile_id: name }).await?),
    })
}

async fn grow(client: &Client, growth: &Growth) -> Result<Answer, CallError> {
    Ok(match growth {
        Growth::Add(add) => Answer::Changed(client.call(add).await?),
        Growth::RemoveStart(start) => Answer::Removal(client.call(start).await?),
        Growth::RemoveStatus(get) => Answer::Rebalance(client.call(get).await?),
        Growth::RemoveStop(stop) => Answer::Rebalance(client.call(stop).await?),
        Growth::RemoveCommit(commit) => Answer::Removal(client.call(commit).await?),
        Growth::Replace(replace) => Answer::Changed(client.call(replace).await?),
        Growth::ResetStart(start) => Answer::Changed(client.call(start).await?),
        Growth::ResetCommit(commit) => Answer::Changed(client.call(commit).await?),
        Growth::RebalanceStart(start) => Answer::Started(client.call(start).await?),
        Growth::RebalanceStatus(get) => Answer::Rebalance(client.call(get).await?),
        Growth::RebalanceControl(steer) => Answer::Rebalance(client.call(steer).await?),
    })
}
