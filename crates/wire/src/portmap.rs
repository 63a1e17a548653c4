//! The portmapper: which TCP port a brick listens on (`rpc/xdr/src/portmap-xdr.x`).

use crate::field::fields;

/// PORT_BY_BRICK; `brick` is the path that SETVOLUME will name.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PortByBrickRequest {
    pub brick: String,
}

/// A brick that is not there: `op_ret` −1, `port` 0.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortByBrickReply {
    pub op_ret: i32,
    pub op_errno: i32,
    pub status: i32,
    pub port: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BrickByPortRequest {
    pub port: i32,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BrickByPortReply {
    pub op_ret: i32,
    pub op_errno: i32,
    pub status: i32,
    pub brick: String,
}

/// SIGN_UP, which nothing sends any more.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SignUpRequest {
    pub brick: String,
    pub port: i32,
}

/// SIGN_IN: a brick process tells where it listens.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SignInRequest {
    pub brick: String,
    pub port: i32,
    pub pid: i32,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SignOutRequest {
    pub brick: String,
    pub port: i32,
    pub rdma_port: i32,
}

/// The answer to SIGN_UP, SIGN_IN and SIGN_OUT.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SignReply {
    pub op_ret: i32,
    pub op_errno: i32,
}

fields! {
    PortByBrickRequest { brick }
    PortByBrickReply { op_ret, op_errno, status, port }
    BrickByPortRequest { port }
    BrickByPortReply { op_ret, op_errno, status, brick }
    SignUpRequest { brick, port }
    SignInRequest { brick, port, pid }
    SignOutRequest { brick, port, rdma_port }
    SignReply { op_ret, op_errno }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::xdr::Writer;

    fn round_trip<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
        let mut out = Writer::new();
        message.encode(&mut out);
        assert_eq!(&M::decode(out.into_inner().freeze()).unwrap(), message);
    }

    #[test]
    fn every_body_comes_back() {
        let brick = "/srv/gfs/brick".to_owned();
        round_trip(&PortByBrickRequest { brick: brick.clone() });
        round_trip(&PortByBrickReply { op_ret: -1, op_errno: 2, status: 3, port: 4 });
        round_trip(&BrickByPortRequest { port: 49152 });
        round_trip(&BrickByPortReply { op_ret: 0, op_errno: 0, status: 1, brick: brick.clone() });
        round_trip(&SignUpRequest { brick: brick.clone(), port: 1 });
        round_trip(&SignInRequest { brick: brick.clone(), port: 1, pid: 2 });
        round_trip(&SignOutRequest { brick, port: 1, rdma_port: 0 });
        round_trip(&SignReply { op_ret: 0, op_errno: 0 });
    }
}
