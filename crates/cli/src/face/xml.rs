//! `--xml`: GlusterFS's documents (`cli/src/cli-xml-output.c`), two-space indentation, always on stdout.

use quick_xml::escape::escape;

use mortar_api::heal::BrickPending;
use mortar_api::peer::{Members, Peer, Probed};
use mortar_api::volume::Changed;

use super::gluster::shown_value;
use super::gluster_heal::{entry_name, number, status, tally};
use super::volume_words::peer_state;
use super::{Output, gluster, xml_growth, xml_status, xml_volume};
use crate::Command;
use crate::client::CallError;
use crate::command::HealView;
use crate::execute::Answer;
use mortar_api::heal::EntryState;

/// GlusterFS's catch-all (`EG_INTRNL`), in most failures.
const EG_INTERNAL: i32 = 30800;
/// `EG_NOVOL`.
const EG_NO_VOLUME: i32 = 30806;

/// An element: text or children, or both (then without indentation, as libxml2 writes mixed content).
pub(super) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    text: Option<String>,
    children: Vec<Self>,
}

/// `<name>text</name>`.
pub(super) fn leaf(name: &'static str, text: impl ToString) -> Element {
    Element { name, attributes: Vec::new(), text: Some(text.to_string()), children: Vec::new() }
}

/// An element of elements; `<name/>` when there are none.
pub(super) fn node(name: &'static str, children: Vec<Element>) -> Element {
    Element { name, attributes: Vec::new(), text: None, children }
}

impl Element {
    pub(super) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    pub(super) fn mixed(name: &'static str, text: impl ToString, children: Vec<Self>) -> Self {
        Self { name, attributes: Vec::new(), text: Some(text.to_string()), children }
    }

    /// `indent` `None`: inside mixed content.
    fn write(&self, out: &mut String, indent: Option<usize>) {
        let pad = indent.map(|depth| "  ".repeat(depth)).unwrap_or_default();
        let end = if indent.is_some() { "\n" } else { "" };
        out.push_str(&format!("{pad}<{}", self.name));
        for (name, value) in &self.attributes {
            out.push_str(&format!(" {name}=\"{}\"", escape(value.as_str())));
        }
        let text = self.text.as_deref().unwrap_or_default();
        if text.is_empty() && self.children.is_empty() {
            out.push_str(&format!("/>{end}"));
            return;
        }
        out.push('>');
        out.push_str(&escape(text));
        let inner = if text.is_empty() { indent.map(|depth| depth + 1) } else { None };
        if inner.is_some() {
            out.push('\n');
        }
        for child in &self.children {
            child.write(out, inner);
        }
        if inner.is_some() {
            out.push_str(&pad);
        }
        out.push_str(&format!("</{}>{end}", self.name));
    }
}

fn document(children: Vec<Element>) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n");
    node("cliOutput", children).write(&mut out, Some(0));
    out
}

pub(super) fn head(ret: i32, errno: i32, text: &str) -> Vec<Element> {
    vec![leaf("opRet", ret), leaf("opErrno", errno), leaf("opErrstr", text)]
}

fn success(body: Vec<Element>) -> Output {
    let mut children = head(0, 0, "");
    children.extend(body);
    Output::out(document(children))
}

/// The result of a command.
pub fn render(command: &Command, result: &Result<Answer, CallError>) -> Output {
    match result {
        Ok(answer) => answered(command, answer),
        Err(CallError::NotRunning(_)) => gluster::render(command, result),
        Err(error) => failed(command, &error.to_string()),
    }
}

fn answered(command: &Command, answer: &Answer) -> Output {
    match (command, answer) {
        (Command::PeerProbe { host }, Answer::Probed(probed)) => probed_document(host, *probed),
        (Command::PeerDetach { .. }, _) => success(vec![leaf("output", "success")]),
        (Command::PeerStatus, Answer::Members(members)) => success(vec![peers(members, false)]),
        (Command::PoolList, Answer::Members(members)) => success(vec![peers(members, true)]),
        (Command::VolumeCreate(_), Answer::Changed(changed)) => success(vec![changed_volume("volCreate", changed)]),
        (Command::VolumeStart { .. }, Answer::Changed(changed)) => success(vec![changed_volume("volStart", changed)]),
        (Command::VolumeStop { .. }, Answer::Changed(changed)) => success(vec![changed_volume("volStop", changed)]),
        (Command::VolumeDelete { .. }, Answer::Changed(changed)) => success(vec![changed_volume("volDelete", changed)]),
        (Command::VolumeInfo { .. }, Answer::Volumes(volumes)) => success(vec![xml_volume::info(volumes)]),
        (Command::VolumeList, Answer::Names(names)) => {
            let mut children = vec![leaf("count", names.len())];
            children.extend(names.iter().map(|name| leaf("volume", name)));
            success(vec![node("volList", children)])
        }
        (Command::VolumeStatus { view, .. }, Answer::Status(volumes)) => {
            success(vec![xml_status::status(*view, volumes)])
        }
        (Command::VolumeGet { .. }, Answer::Options(options)) => {
            let mut children = vec![leaf("count", options.len())];
            children.extend(
                options
                    .iter()
                    .map(|option| node("Opt", vec![leaf("Option", &option.key), leaf("Value", shown_value(option))])),
            );
            success(vec![node("volGetopts", children)])
        }
        (Command::VolumeSet { .. }, _) => success(operation("volSet", "Set volume successful")),
        (Command::VolumeReset { .. }, _) => success(operation("volReset", "reset volume successful")),
        (Command::HealInfo { view, .. }, Answer::Pending(bricks)) => {
            let mut children = vec![heal_info(*view, bricks)];
            children.extend(head(0, 0, ""));
            Output::out(document(children))
        }
        (Command::Growth(growth), answer) => match xml_growth::answered(growth, answer) {
            Some(children) => Output::out(document(children)),
            None => gluster::render(command, &Ok(answer.clone())),
        },
        // GlusterFS has no document for the rest and prints its text.
        _ => gluster::render(command, &Ok(answer.clone())),
    }
}

fn failed(command: &Command, why: &str) -> Output {
    let with = |errno: i32, text: &str, body: Vec<Element>, code: u8| {
        let mut children = head(-1, errno, text);
        children.extend(body);
        Output { stdout: document(children), stderr: String::new(), code }
    };
    match command {
        Command::PeerProbe { .. } => with(107, why, vec![], 0),
        Command::PeerDetach { .. } => with(2, why, vec![], 0),
        Command::VolumeCreate(_) => with(0, why, vec![], 0),
        Command::Growth(growth) => {
            let (children, code) = xml_growth::refused(growth, why);
            Output { stdout: document(children), stderr: String::new(), code }
        }
        Command::VolumeInfo { .. } => {
            let none = node("volInfo", vec![node("volumes", vec![leaf("count", 0)])]);
            with(EG_NO_VOLUME, "Volume does not exist", vec![none], 0)
        }
        Command::VolumeStatus { .. } => with(EG_INTERNAL, why, operation("volStatus", why), 0),
        Command::VolumeSet { .. } => with(EG_INTERNAL, why, operation("volSet", "Set volume unsuccessful"), 0),
        Command::VolumeReset { .. } => with(EG_INTERNAL, why, operation("volReset", why), 0),
        Command::VolumeGet { .. } => {
            with(0, why, operation("volGetopts", &format!("volume get option: failed: {why}")), 1)
        }
        Command::HealInfo { .. } => {
            let mut children = vec![node("healInfo", vec![node("bricks", vec![])])];
            children.extend(head(-1, 2, why));
            Output { stdout: document(children), stderr: String::new(), code: 254 }
        }
        _ => with(EG_INTERNAL, why, vec![], 0),
    }
}

/// GlusterFS's "str form": which operation, and a sentence.
pub(super) fn operation(name: &'static str, text: &str) -> Vec<Element> {
    vec![leaf("cliOp", name), leaf("output", text)]
}

fn probed_document(host: &str, probed: Probed) -> Output {
    let (errno, text) = match probed {
        Probed::Added => (0, "success".to_owned()),
        Probed::AlreadyMember => (2, format!("Host {host} port 24007 already in peer list")),
        Probed::Localhost => (2, "Probe on localhost not needed".to_owned()),
    };
    let mut children = head(0, errno, "");
    children.push(leaf("output", text));
    Output::out(document(children))
}

fn changed_volume(name: &'static str, changed: &Changed) -> Element {
    node(name, vec![node("volume", vec![leaf("name", &changed.name), leaf("id", changed.id)])])
}

fn peers(members: &Members, with_local: bool) -> Element {
    let mut children: Vec<Element> = members.peers.iter().map(peer).collect();
    if with_local {
        let local = vec![leaf("uuid", members.local), leaf("hostname", "localhost"), leaf("connected", 1)];
        children.push(node("peer", local));
    }
    node("peerStatus", children)
}

fn peer(peer: &Peer) -> Element {
    let names = std::iter::once(&peer.hostname).chain(&peer.other_names).map(|name| leaf("hostname", name)).collect();
    let (number, text) = peer_state(peer.state);
    node(
        "peer",
        vec![
            leaf("uuid", peer.uuid),
            leaf("hostname", &peer.hostname),
            node("hostnames", names),
            leaf("connected", u8::from(peer.connected)),
            leaf("state", number),
            leaf("stateStr", text),
        ],
    )
}

fn heal_info(view: HealView, bricks: &[BrickPending]) -> Element {
    let children = bricks.iter().map(|brick| {
        let uuid = if brick.connected { brick.host_uuid.to_string() } else { "-".to_owned() };
        let mut children = vec![leaf("name", &brick.brick)];
        let listed = |state: EntryState| view == HealView::Entries || state == EntryState::SplitBrain;
        if view != HealView::Summary {
            children.extend(
                brick
                    .entries
                    .iter()
                    .filter(|entry| listed(entry.state))
                    .map(|entry| leaf("file", entry_name(entry)).with("gfid", &entry.gfid)),
            );
        }
        children.push(leaf("status", status(brick)));
        let (pending, split, healing) = tally(brick);
        match view {
            HealView::Entries => children.push(leaf("numberOfEntries", number(brick, brick.entries.len()))),
            HealView::SplitBrain => children.push(leaf("numberOfEntries", number(brick, split))),
            HealView::Summary => children.extend([
                leaf("totalNumberOfEntries", number(brick, brick.entries.len())),
                leaf("numberOfEntriesInHealPending", number(brick, pending)),
                leaf("numberOfEntriesInSplitBrain", number(brick, split)),
                leaf("numberOfEntriesPossiblyHealing", number(brick, healing)),
            ]),
        }
        node("brick", children).with("hostUuid", uuid)
    });
    node("healInfo", vec![node("bricks", children.collect())])
}
