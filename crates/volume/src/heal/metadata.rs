//! Metadata heal of one inode: owner, mode, xattrs and times of the good copy for the stale ones, under AFR's metadata
//! lock.

use mortar_logic::heal::metadata::{Attributes, Decision, Plan, decide};
use mortar_logic::heal::undo::{drop_accusations, undo};
use mortar_logic::heal::{Children, find_direction};
use mortar_logic::replicate::changelog::Slot;
use mortar_types::fop::{Removexattr, Setattr, Setxattr, setattr_valid};
use mortar_types::{Dict, Errno, FileType, FopKind, Gfid, SubvolId, Value};

use crate::heal::error::SplitBrain;
use crate::heal::look::{Look, Looks};
use crate::heal::set::Session;
use crate::heal::{Error, Healed};

pub async fn heal(session: &Session<'_>, gfid: Gfid) -> Result<Healed, Error> {
    let lock = session.metadata_lock(gfid);
    session.lock(&lock).await?;
    let result = heal_locked(session, gfid).await;
    session.unlock(&lock).await;
    result
}

async fn heal_locked(session: &Session<'_>, gfid: Gfid) -> Result<Healed, Error> {
    let set = session.set;
    let looks = session.look(gfid).await;
    looks.complete()?;
    let mut read = looks.matrix(Slot::Metadata);
    let direction = find_direction(Slot::Metadata, &read, set.all(), set.quorum);
    let plan = match decide(&direction, set.all(), &looks.attributes(), set.policy) {
        Decision::Heal(plan) => plan,
        Decision::Clean => {
            let changed = !read.is_clean();
            if changed {
                let corrections = undo(&read, set.all(), Children::NONE);
                session.correct(gfid, &[(Slot::Metadata, corrections)], None).await?;
            }
            return Ok(Healed { changed, ..Healed::default() });
        }
        Decision::SplitBrain => return Err(Error::SplitBrain(SplitBrain::Metadata)),
    };
    if plan.resolved_split_brain {
        let corrections = drop_accusations(&read, plan.source, plan.sinks);
        session.correct(gfid, &[(Slot::Metadata, corrections)], None).await?;
    } else if !plan.unmarked_sinks.is_empty() {
        session.accuse(gfid, plan.sources, plan.unmarked_sinks, &[Slot::Metadata]).await?;
    }
    if plan.resolved_split_brain || !plan.unmarked_sinks.is_empty() {
        // The marks just made are to be taken back too.
        let marked = session.look(gfid).await;
        marked.complete()?;
        read = marked.matrix(Slot::Metadata);
    }
    let failed = copy(session, gfid, &plan, &looks).await;
    let failed_children: Children = failed.iter().map(|(child, _)| *child).collect();
    let good = plan.sources.or(plan.sinks.minus(failed_children));
    session.correct(gfid, &[(Slot::Metadata, undo(&read, good, failed_children))], None).await?;
    match failed.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(Healed { changed: true, ..Healed::default() }),
    }
}

async fn copy(session: &Session<'_>, gfid: Gfid, plan: &Plan, looks: &Looks) -> Vec<(SubvolId, Error)> {
    let Some(model) = looks.get(plan.source) else { return Vec::new() };
    let mut failed = Vec::new();
    for sink in plan.sinks.iter() {
        let Some(stale) = looks.get(sink) else { continue };
        if let Err(error) = copy_to(session, gfid, model, sink, stale).await {
            failed.push((sink, error));
        }
    }
    let healed = plan.sinks.filter(|sink| !failed.iter().any(|(child, _)| *child == sink));
    failed.extend(session.copy_times(gfid, model, healed).await);
    failed
}

/// Owner before xattrs (a change of owner drops file capabilities), mode again after them (an ACL carries its own mask).
async fn copy_to(session: &Session<'_>, gfid: Gfid, model: &Look, sink: SubvolId, stale: &Look) -> Result<(), Error> {
    let stat = model.stat;
    let owner = setattr_valid::UID | setattr_valid::GID;
    session.must(sink, Setattr { gfid, stat, valid: owner, xdata: None }).await?;
    copy_xattrs(session, gfid, &model.attributes(), sink, &stale.attributes()).await?;
    if stat.file_type() != Some(FileType::Symlink) {
        session.must(sink, Setattr { gfid, stat, valid: setattr_valid::MODE, xdata: None }).await?;
    }
    Ok(())
}

async fn copy_xattrs(
    session: &Session<'_>,
    gfid: Gfid,
    model: &Attributes,
    sink: SubvolId,
    stale: &Attributes,
) -> Result<(), Error> {
    for (name, _) in &stale.xattrs {
        if model.xattrs.iter().any(|(wanted, _)| wanted == name) {
            continue;
        }
        let request = Removexattr { gfid, name: name.clone().into(), xdata: None };
        match session.call(sink, request).await {
            Ok(_) => {}
            Err(failure) if failure.errno == Errno::ENODATA => {}
            Err(failure) => return Err(Error::fop(sink, FopKind::Removexattr, failure.errno)),
        }
    }
    let differing: Dict = model
        .xattrs
        .iter()
        .filter(|pair| !stale.xattrs.contains(pair))
        .map(|(name, value)| (name.clone().into(), Value::Ptr(value.clone())))
        .collect();
    if !differing.is_empty() {
        session.must(sink, Setxattr { gfid, flags: 0, dict: Some(differing), xdata: None }).await?;
    }
    Ok(())
}
