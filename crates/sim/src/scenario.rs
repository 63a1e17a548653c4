//! What is simulated: which bricks, which faults may meet.

use mortar_logic::replicate::quorum::Quorum;

use crate::plant::Plant;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// Two copies, no quorum: one brick, the same all the time, is struck.
    Replicate2,
    /// Three copies, quorum auto: any bricks, any links.
    Replicate3,
    /// Two copies and an arbiter, quorum auto.
    Arbiter,
}

impl Scenario {
    pub const ALL: [Self; 3] = [Self::Replicate2, Self::Replicate3, Self::Arbiter];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Replicate2 => "replicate2",
            Self::Replicate3 => "replicate3",
            Self::Arbiter => "arbiter",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == text)
    }

    pub const fn bricks(self) -> usize {
        match self {
            Self::Replicate2 => 2,
            Self::Replicate3 | Self::Arbiter => 3,
        }
    }

    pub const fn arbiter(self) -> Option<usize> {
        match self {
            Self::Arbiter => Some(2),
            _ => None,
        }
    }

    pub const fn quorum(self) -> Quorum {
        match self {
            Self::Replicate2 => Quorum::None,
            Self::Replicate3 | Self::Arbiter => Quorum::Auto,
        }
    }
}

/// Everything that a run depends on.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub scenario: Scenario,
    pub seed: u64,
    pub plant: Option<Plant>,
    /// Kinds of faults that may happen.
    pub faults: FaultSet,
    /// Operations of each actor; fewer when a failure is shrunk.
    pub operations: usize,
    /// All actors work on the contents of one file, without long pauses.
    pub contended: bool,
    pub with_text: bool,
}

/// Which kinds of faults may happen.
#[derive(Clone, Copy, Debug)]
pub struct FaultSet {
    pub kill: bool,
    pub power_cut: bool,
    pub partition: bool,
    pub disk: bool,
    pub spikes: bool,
    pub late_delivery: bool,
}

impl FaultSet {
    pub const NONE: Self =
        Self { kill: false, power_cut: false, partition: false, disk: false, spikes: false, late_delivery: false };
    pub const ALL: Self =
        Self { kill: true, power_cut: true, partition: true, disk: true, spikes: true, late_delivery: true };

    /// From a list such as `kill,partition`; `all`, `none`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut set = Self::NONE;
        for word in text.split(',') {
            match word {
                "all" => set = Self::ALL,
                "none" => {}
                "kill" => set.kill = true,
                "power-cut" => set.power_cut = true,
                "partition" => set.partition = true,
                "disk" => set.disk = true,
                "spikes" => set.spikes = true,
                "late-delivery" => set.late_delivery = true,
                _ => return None,
            }
        }
        Some(set)
    }
}
