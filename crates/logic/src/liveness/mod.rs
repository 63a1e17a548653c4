//! Whether the peer of a connection still lives, by what is heard from it while it owes an answer.
//!
//! A peer that owes nothing is not asked. One that owes is pinged when it has been quiet for a quarter of the time that
//! it may be silent, and taken for dead when it has been for all of it and a ping was among what it did not answer. Any
//! byte counts as a sign of life, so a peer that is busy with long calls lives as long as it answers pings. Time during
//! which we ourselves did not run is nobody's silence. Pure: the time is an argument, since any fixed moment.

mod latency;

use std::time::Duration;

pub use latency::Latency;

/// Looked at so many times within the time of silence.
const TICKS_PER_SILENCE: u32 = 8;
/// A tick that comes later than so many periods after the one before: we did not run.
const LATE_TICKS: u32 = 3;

/// What a tick asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Alive,
    /// Send a ping; [`Liveness::pinged`] follows.
    Ping,
    /// It is silent: end the connection.
    Dead,
}

#[derive(Clone, Debug)]
pub struct Liveness {
    /// How long it may be silent; zero: for ever.
    silence: Duration,
    /// When something was heard last.
    heard: Duration,
    /// Since when it owes an answer.
    owing: Option<Duration>,
    /// When the ping was sent that is not answered.
    pinged: Option<Duration>,
    ticked: Duration,
}

impl Liveness {
    pub const fn new(silence: Duration, now: Duration) -> Self {
        Self { silence, heard: now, owing: None, pinged: None, ticked: now }
    }

    /// How often to tick; `None`: never needed.
    pub fn period(&self) -> Option<Duration> {
        (!self.silence.is_zero()).then(|| (self.silence / TICKS_PER_SILENCE).max(Duration::from_millis(1)))
    }

    /// Bytes came.
    pub fn heard(&mut self, now: Duration) {
        self.heard = self.heard.max(now);
    }

    /// A ping was sent.
    pub fn pinged(&mut self, now: Duration) {
        self.pinged = Some(now);
    }

    /// The ping was answered.
    pub const fn ponged(&mut self) {
        self.pinged = None;
    }

    /// `owes`: calls wait for its answers.
    pub fn tick(&mut self, now: Duration, owes: bool) -> Verdict {
        let Some(period) = self.period() else { return Verdict::Alive };
        let gap = now.saturating_sub(self.ticked);
        self.ticked = now;
        if gap > period * LATE_TICKS {
            // What it may have sent meanwhile has not been read yet.
            self.forgive(gap - period, now);
        }
        if !owes {
            self.owing = None;
        } else if self.owing.is_none() {
            self.owing = Some(now);
        }
        let Some(since) = self.owing.or(self.pinged) else { return Verdict::Alive };
        let quiet = now.saturating_sub(self.heard.max(since));
        match self.pinged {
            // At least half of the time for the answer, whenever the ping was sent.
            Some(sent) if quiet >= self.silence && now.saturating_sub(sent) >= self.silence / 2 => Verdict::Dead,
            None if quiet >= self.silence / 4 => Verdict::Ping,
            _ => Verdict::Alive,
        }
    }

    fn forgive(&mut self, by: Duration, now: Duration) {
        for time in [Some(&mut self.heard), self.owing.as_mut(), self.pinged.as_mut()].into_iter().flatten() {
            *time = (*time + by).min(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Ticks from `from` to `to` and answers when and what the first thing was that is not [`Verdict::Alive`].
    fn run(liveness: &mut Liveness, from: u64, to: u64, owes: bool) -> Option<(u64, Verdict)> {
        (from..=to).step_by(125).find_map(|at| match liveness.tick(ms(at), owes) {
            Verdict::Alive => None,
            verdict => Some((at, verdict)),
        })
    }

    #[test]
    fn a_silent_peer_is_pinged_after_a_quarter_and_dead_after_the_whole() {
        let mut liveness = Liveness::new(SECOND, ms(0));
        assert_eq!(run(&mut liveness, 0, 5000, true), Some((250, Verdict::Ping)));
        liveness.pinged(ms(250));
        assert_eq!(run(&mut liveness, 375, 5000, true), Some((1000, Verdict::Dead)));
    }

    #[test]
    fn a_busy_peer_that_answers_pings_lives() {
        let mut liveness = Liveness::new(SECOND, ms(0));
        let mut at = 0;
        while at < 60_000 {
            let (when, verdict) = run(&mut liveness, at, at + 1000, true).expect("a ping");
            assert_eq!(verdict, Verdict::Ping);
            liveness.pinged(ms(when));
            at = when + 375;
            assert_eq!(run(&mut liveness, when + 125, at, true), None);
            liveness.heard(ms(at));
            liveness.ponged();
            at += 125;
        }
    }

    #[test]
    fn who_owes_nothing_is_not_asked() {
        let mut liveness = Liveness::new(SECOND, ms(0));
        assert_eq!(run(&mut liveness, 0, 10_000, false), None);
        // The time before the call does not count.
        assert_eq!(run(&mut liveness, 10_125, 20_000, true), Some((10_375, Verdict::Ping)));
    }

    #[test]
    fn time_in_which_we_did_not_run_is_not_its_silence() {
        let mut liveness = Liveness::new(SECOND, ms(0));
        assert_eq!(run(&mut liveness, 0, 500, true), Some((250, Verdict::Ping)));
        liveness.pinged(ms(250));
        assert_eq!(liveness.tick(ms(375), true), Verdict::Alive);
        assert_eq!(liveness.tick(ms(60_000), true), Verdict::Alive);
        assert_eq!(run(&mut liveness, 60_125, 70_000, true), Some((60_500, Verdict::Dead)));
    }

    #[test]
    fn zero_is_for_ever() {
        let mut liveness = Liveness::new(Duration::ZERO, ms(0));
        assert_eq!((liveness.period(), run(&mut liveness, 0, 100_000, true)), (None, None));
    }

    proptest! {
        /// Whatever happens: nobody is dead who was heard within the time, and who is silent is dead soon after it.
        #[test]
        fn dead_is_who_was_silent_and_only_he(events in prop::collection::vec((0_u8..4, 1_u64..130), 1..400)) {
            let mut liveness = Liveness::new(SECOND, ms(0));
            let (mut now, mut last_heard, mut owing) = (0, 0, None);
            for (event, step) in events {
                now += step;
                match event {
                    0 => {
                        liveness.heard(ms(now));
                        last_heard = now;
                    }
                    1 => liveness.ponged(),
                    _ => {}
                }
                let owes = event != 3;
                let first_owing = if owes { Some(owing.unwrap_or(now)) } else { None };
                owing = first_owing;
                let silent_for = now - last_heard.max(owing.unwrap_or(now));
                match liveness.tick(ms(now), owes) {
                    Verdict::Dead => prop_assert!(now - last_heard >= 1000),
                    Verdict::Ping => liveness.pinged(ms(now)),
                    Verdict::Alive => {}
                }
                // A ping that was answered without a byte heard (there is no such) starts anew.
                if event != 1 && silent_for > 2500 {
                    prop_assert_eq!(liveness.tick(ms(now), true), Verdict::Dead);
                }
                if event == 1 {
                    last_heard = now;
                    liveness.heard(ms(now));
                }
            }
        }
    }
}
