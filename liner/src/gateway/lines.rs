//! Which of a gateway's lines there is something new to say about.

use liner_mio::{LineUrl, Node};
use liner_proto::line::LineStats;

/// What was said of each line last.
#[derive(Debug, Default)]
pub(super) struct Lines {
    told: Vec<LineStats>,
}

impl Lines {
    /// Lines on which frames have passed, or been lost, since they were asked for last.
    pub(super) fn changed<'a>(&mut self, node: &'a Node) -> Vec<(&'a LineUrl, LineStats)> {
        let mut changed = Vec::new();
        for (index, (url, stats)) in node.line_stats().enumerate() {
            if self.told.len() <= index {
                self.told.push(LineStats::default());
            }
            let Some(told) = self.told.get_mut(index) else { continue };
            if *told != stats {
                *told = stats;
                changed.push((url, stats));
            }
        }
        changed
    }
}
