//! Children lost between the lock of a change and the change: it is made where a quorum still is.

use super::*;
use crate::testing::Fault;

const LOCKS: [FopKind; 3] = [FopKind::Inodelk, FopKind::Finodelk, FopKind::Entrylk];

/// Three replicas and a file. From now on the last one dies of the first lock or mark that it is asked for, and the
/// middle one does too, but is back before the first one has answered.
async fn flapping(compounds: bool, marks: bool) -> (Volume, Client, (Gfid, Fd)) {
    let volume = Volume::new(3);
    volume.bricks.iter().for_each(|brick| brick.set_compounds(compounds));
    let client = volume.client_with(|options| options.optimistic_change_log = !marks);
    let file = client.file("a").await;
    client.layer.quiesce().await;
    let wanted = move |kind: FopKind| {
        let is_mark = matches!(kind, FopKind::Xattrop | FopKind::Fxattrop);
        if marks { is_mark } else { is_mark || LOCKS.contains(&kind) }
    };
    volume.bricks[0].set_delay(|| Duration::from_millis(20));
    let (mut died, brick) = (false, Arc::downgrade(&volume.bricks[1]));
    volume.bricks[1].set_plan(move |call| {
        if died || !wanted(call.request.kind()) {
            return Fault::None;
        }
        died = true;
        let brick = std::sync::Weak::clone(&brick);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            brick.upgrade().expect("the test holds it").set_up(true);
        });
        Fault::DieAfter
    });
    volume.bricks[2].set_plan(move |call| if wanted(call.request.kind()) { Fault::Die } else { Fault::None });
    (volume, client, file)
}

const CASES: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

#[tokio::test(start_paused = true)]
async fn a_write_locks_again() {
    for (compounds, marks) in CASES {
        let (volume, client, file) = flapping(compounds, marks).await;
        client.write(file, 0, "text").await.unwrap_or_else(|failure| panic!("{compounds} {marks} {failure:?}"));
        for brick in &volume.bricks[..2] {
            assert_eq!(brick.at(&["a"]).unwrap().data, b"text", "{compounds} {marks}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_chmod_locks_again() {
    for (compounds, marks) in CASES {
        let (volume, client, (gfid, _)) = flapping(compounds, marks).await;
        client.chmod(gfid, 0o600).await.unwrap_or_else(|failure| panic!("{compounds} {marks} {failure:?}"));
        client.layer.quiesce().await;
        for brick in 0..2 {
            let node = volume.bricks[brick].at(&["a"]).unwrap();
            assert_eq!(node.mode & 0o777, 0o600, "{compounds} {marks}");
            assert_eq!(volume.counters(brick, &["a"], PENDING[2]), "00000000 00000001 00000000");
        }
        assert_eq!(volume.counters(0, &["a"], "trusted.afr.dirty"), "00000000 00000000 00000000");
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_and_an_unlink_lock_again() {
    for (compounds, marks) in CASES {
        let (volume, client, _) = flapping(compounds, marks).await;
        client.create(Gfid::ROOT, "b").await.unwrap_or_else(|failure| panic!("{compounds} {marks} {failure:?}"));
        for brick in 0..2 {
            assert!(volume.bricks[brick].at(&["b"]).is_some(), "{compounds} {marks}");
            assert_eq!(volume.counters(brick, &[], PENDING[2]), "00000000 00000000 00000001");
        }
        let (volume, client, _) = flapping(compounds, marks).await;
        client.unlink(Gfid::ROOT, "a").await.unwrap_or_else(|failure| panic!("{compounds} {marks} {failure:?}"));
        assert!(volume.bricks[..2].iter().all(|brick| brick.at(&["a"]).is_none()), "{compounds} {marks}");
        assert_eq!(volume.counters(0, &[], PENDING[2]), "00000000 00000000 00000001");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_nothing_goes_round_for_ever() {
    let volume = Volume::new(3);
    let client = volume.client();
    let file = client.file("a").await;
    client.layer.quiesce().await;
    for brick in &volume.bricks[1..] {
        // Dead, and the layer is not told.
        brick.set_plan(|_| Fault::Fail(Errno::ENOTCONN));
    }
    assert_eq!(client.write(file, 0, "x").await.unwrap_err().errno, Errno::ENOTCONN);
    assert_eq!(client.chmod(file.0, 0o600).await.unwrap_err().errno, Errno::ENOTCONN);
    assert_eq!(client.unlink(Gfid::ROOT, "a").await.unwrap_err().errno, Errno::ENOTCONN);
    assert!(volume.bricks[0].at(&["a"]).unwrap().data.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_removed_is_not_found_rather_than_unreachable() {
    let volume = Volume::new(3);
    let client = volume.client();
    let (gfid, fd) = client.file("a").await;
    client.release((gfid, fd)).await;
    client.layer.quiesce().await;
    // Another client's unlink has reached brick 1 only; brick 2 dies of the change itself.
    volume.bricks[1].set_plan(|call| match call.request.kind() {
        FopKind::Inodelk => Fault::Fail(Errno::ENOENT),
        _ => Fault::None,
    });
    volume.bricks[2].set_plan(|call| match call.request.kind() {
        FopKind::Setattr => Fault::Die,
        _ => Fault::None,
    });
    assert_eq!(client.chmod(gfid, 0o600).await.unwrap_err().errno, Errno::ENOENT);
}

#[tokio::test(start_paused = true)]
async fn a_refused_change_keeps_the_name_of_an_older_miss_in_the_index() {
    let volume = Volume::new(2);
    let client = volume.client();
    volume.bricks[1].set_up(false);
    client.mkdir(Gfid::ROOT, "d").await.unwrap();
    assert_eq!(client.mkdir(Gfid::ROOT, "d").await.unwrap_err().errno, Errno::EEXIST);
    assert_eq!(volume.bricks[0].indexed_names(Gfid::ROOT), ["d"]);
}
