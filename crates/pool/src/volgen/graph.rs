//! A volfile under construction, and its text.

use std::fmt::Write as _;

use mortar_logic::pool::Volume;
use mortar_logic::pool::options::{self, Known};

/// One `volume … end-volume` block.
#[derive(Debug)]
pub(super) struct Translator {
    name: String,
    kind: &'static str,
    /// In the order they were set; printed newest first, as GlusterFS's dict is walked.
    options: Vec<(String, String)>,
    subvolumes: Vec<String>,
}

impl Translator {
    pub(super) const fn new(name: String, kind: &'static str, subvolumes: Vec<String>) -> Self {
        Self { name, kind, options: Vec::new(), subvolumes }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A value set again keeps its place.
    pub(super) fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        match self.options.iter_mut().find(|(known, _)| *known == key) {
            Some((_, slot)) => *slot = value,
            None => self.options.push((key, value)),
        }
    }

    pub(super) fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.set(key, value);
        self
    }
}

/// Blocks from the bottom up; the last is the graph's top.
#[derive(Debug, Default)]
pub(super) struct Graph {
    translators: Vec<Translator>,
}

impl Graph {
    pub(super) fn push(&mut self, translator: Translator) {
        self.translators.push(translator);
    }

    /// Puts a translator over the current top.
    pub(super) fn stack(&mut self, name: String, kind: &'static str) -> &mut Translator {
        let below = self.translators.last().map(|top| top.name.clone());
        self.translators.push(Translator::new(name, kind, below.into_iter().collect()));
        self.translators.last_mut().expect("just pushed")
    }

    /// [`Self::stack`] with the usual name, `VOL-` and the type's last part.
    pub(super) fn layer(&mut self, volume: &Volume, kind: &'static str) -> &mut Translator {
        let short = kind.rsplit('/').next().unwrap_or(kind);
        self.stack(format!("{}-{short}", volume.name), kind)
    }

    /// Sets an option on every translator of a type.
    pub(super) fn set_all(&mut self, kind: &str, key: &str, value: &str) {
        for translator in self.translators.iter_mut().filter(|translator| translator.kind == kind) {
            translator.set(key, value);
        }
    }

    /// Walks the option table in its order with the value that each option has on this volume, or its table default.
    pub(super) fn each_option(&mut self, values: &Values<'_>, mut apply: impl FnMut(&mut Self, &'static Known, &str)) {
        for known in options::all() {
            if let Some(value) = values.get(known.key).or(known.map_default) {
                apply(self, known, value);
            }
        }
    }

    /// Options that are written as they are: those not handled apart (`!`).
    pub(super) fn set_plain_options(&mut self, values: &Values<'_>) {
        self.each_option(values, |graph, known, value| {
            if !known.option.starts_with('!') {
                graph.set_all(known.translator, known.option, value);
            }
        });
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for (index, translator) in self.translators.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            translator.print(&mut out);
        }
        out
    }
}

impl Translator {
    fn print(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "volume {}\n    type {}", self.name, self.kind);
        for (key, value) in self.options.iter().rev() {
            let _ = writeln!(out, "    option {key} {value}");
        }
        if !self.subvolumes.is_empty() {
            let _ = writeln!(out, "    subvolumes {}", self.subvolumes.join(" "));
        }
        out.push_str("end-volume\n");
    }
}

/// Option values of a volume: what was set, under values that this volfile has of its own.
#[derive(Debug)]
pub(super) struct Values<'a> {
    volume: &'a Volume,
    /// Count less than the admin's.
    presets: Vec<(&'static str, &'static str)>,
}

impl<'a> Values<'a> {
    pub(super) const fn new(volume: &'a Volume) -> Self {
        Self { volume, presets: Vec::new() }
    }

    pub(super) fn preset(mut self, key: &'static str, value: &'static str) -> Self {
        self.presets.push((key, value));
        self
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.volume
            .option(key)
            .or_else(|| self.presets.iter().find(|(preset, _)| *preset == key).map(|(_, value)| *value))
    }

    /// A switch, off when it is neither set nor has a table default.
    pub(super) fn is_on(&self, key: &str) -> bool {
        let value = self.get(key).or_else(|| options::find(key).and_then(|known| known.map_default));
        value.is_some_and(is_true)
    }
}

pub(super) fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "on" | "yes" | "true" | "enable")
}
