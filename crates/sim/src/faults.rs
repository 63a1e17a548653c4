//! The faults of one run, drawn from its seed.

use std::sync::Arc;
use std::time::Duration;

use crate::brick::Brick;
use crate::disk::Sickness;
use crate::link::Link;
use crate::net::Net;
use crate::rng::Rng;
use crate::scenario::{FaultSet, Scenario};
use crate::trace::Trace;

pub struct Faults {
    pub scenario: Scenario,
    pub set: FaultSet,
    pub bricks: Vec<Arc<Brick>>,
    /// Per client (healer last), per brick.
    pub links: Vec<Vec<Arc<Link>>>,
    pub net: Net,
    pub trace: Trace,
    pub rng: Rng,
}

impl Faults {
    /// Lets faults happen for a while, one after the other or overlapping as the scenario allows, and ends all of them.
    pub async fn run(mut self, for_ms: u64) {
        let until = self.net.now_ms() + for_ms;
        // Without a quorum only one copy may be struck before everything is healed again: always the same one.
        let victim = (self.scenario == Scenario::Replicate2).then(|| self.rng.index(self.bricks.len()));
        let power_victim = victim.unwrap_or_else(|| self.rng.index(self.bricks.len()));
        while self.net.now_ms() < until {
            let pause = self.rng.between(20, 900);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let brick = victim.unwrap_or_else(|| self.rng.index(self.bricks.len()));
            self.strike(brick, power_victim).await;
        }
        self.net.set_spikes(0);
        for brick in &self.bricks {
            brick.disk.set_sickness(Sickness::default());
            brick.start();
        }
        for link in self.links.iter().flatten() {
            link.flow();
        }
    }

    async fn strike(&mut self, at: usize, power_victim: usize) {
        let lasts = if self.rng.chance(70) { self.rng.between(30, 800) } else { self.rng.between(800, 4_000) };
        let kind = self.rng.below(9);
        let brick = Arc::clone(&self.bricks[at]);
        self.trace.step(&[40, kind, at as u64, lasts], || {
            format!("{:>7} fault {kind} at brick {at} for {lasts} ms", self.net.now_ms())
        });
        match kind {
            0 | 1 if self.set.kill => {
                brick.kill(false);
                self.later(lasts, move || brick.start());
            }
            2 if self.set.power_cut => {
                // One host loses its power; two in a row without heal could lose what only they had.
                let brick = Arc::clone(&self.bricks[power_victim]);
                brick.kill(true);
                self.later(lasts, move || brick.start());
            }
            3 if self.set.partition => {
                let links: Vec<Arc<Link>> = self.links.iter().map(|links| Arc::clone(&links[at])).collect();
                self.cut(links, lasts);
            }
            4 | 5 if self.set.partition => {
                let client = self.rng.index(self.links.len());
                let link = Arc::clone(&self.links[client][at]);
                self.cut(vec![link], lasts);
            }
            6 if self.set.disk => {
                let sickness = match self.rng.below(3) {
                    0 => Sickness { full: true, ..Sickness::default() },
                    1 => Sickness { eio_percent: self.rng.between(5, 60), ..Sickness::default() },
                    _ => Sickness { slow_ms: self.rng.between(5, 300), ..Sickness::default() },
                };
                brick.disk.set_sickness(sickness);
                self.later(lasts, move || brick.disk.set_sickness(Sickness::default()));
            }
            7 if self.set.spikes => {
                let spike = self.rng.between(10, 400);
                self.net.set_spikes(spike);
                let net = self.net.clone();
                self.later(lasts, move || net.set_spikes(0));
            }
            8 if self.set.disk => {
                let by = self.rng.below(7_200) as i64 - 3_600;
                brick.disk.jump_clock(by);
            }
            _ => {}
        }
        if self.rng.chance(50) {
            tokio::time::sleep(Duration::from_millis(lasts)).await;
        }
    }

    fn cut(&mut self, links: Vec<Arc<Link>>, lasts: u64) {
        let (to, from) = match self.rng.below(4) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let reset = self.rng.chance(25);
        for link in &links {
            if reset {
                link.give_up();
            } else {
                link.stall(to, from);
            }
        }
        if !reset {
            self.later(lasts, move || links.iter().for_each(|link| link.flow()));
        }
    }

    fn later(&self, wait_ms: u64, then: impl FnOnce() + Send + 'static) {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            then();
        });
    }
}
