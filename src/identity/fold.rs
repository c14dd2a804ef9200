//! Folds recursion: a function that calls itself, directly or through up to three others, counts once, however often it does so.
//!
//! How often it did so is no property of a bug, and neither are the frames outside of it: of a deep recursion the copy of the stack has
//! only the inner part. So the list ends with the recursion, cut or not. Where the stack is cut in a recursion, it was most likely used
//! up, and then it is chance which of the functions was the last one: their order doesn't count.

use std::ops::Range;

use super::FRAMES;

/// A cycle of so many functions is one.
pub(crate) const CYCLE: usize = 4;

/// The first frames that differ, each with what else is known of its innermost call.
#[derive(Clone, Debug)]
pub(super) struct Fold<K, V> {
    kept: Vec<Kept<K, V>>,
    limit: usize,
    /// These frames call each other in a circle, and those behind them don't count: the first one was called again.
    circle: Option<Range<usize>>,
}

/// A frame that was kept.
#[derive(Clone, Debug)]
pub(super) struct Kept<K, V> {
    pub(super) key: K,
    pub(super) value: V,
    /// It was called again further out.
    pub(super) recurs: bool,
    /// It is one of several that call each other in a circle.
    pub(super) in_circle: bool,
}

impl<K, V> Default for Fold<K, V> {
    fn default() -> Self {
        Self { kept: Vec::new(), limit: FRAMES, circle: None }
    }
}

impl<K: Ord, V> Fold<K, V> {
    /// No more frames make a difference.
    pub(super) fn is_full(&self) -> bool {
        self.kept.len() > CYCLE.max(self.limit)
    }

    /// There is one, and no other.
    pub(super) fn is_single(&self) -> bool {
        self.kept.len() == 1
    }

    /// None has counted.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Adds the next frame outwards. If it is one that was kept, `merge` adds its value to that one's.
    pub(super) fn add(&mut self, key: K, value: V, merge: impl FnOnce(&mut V, V)) {
        let count = self.kept.len();
        let last = self.kept.iter_mut().enumerate().skip(count.saturating_sub(CYCLE));
        if let Some((at, again)) = last.rev().find(|(_, kept)| kept.key == key) {
            again.recurs = true;
            merge(&mut again.value, value);
            self.circle.get_or_insert(at..count);
        } else if !self.is_full() {
            self.kept.push(Kept { key, value, recurs: false, in_circle: false });
        }
    }

    /// The frame after this one is the last that counts.
    pub(super) fn end_after_next(&mut self) {
        self.limit = self.limit.min(self.kept.len() + 1);
    }

    /// The frame that was added last is the last that counts.
    pub(super) fn end(&mut self) {
        self.limit = self.limit.min(self.kept.len());
    }

    /// What counts, innermost first. `is_cut`: there were more frames.
    pub(super) fn into_kept(mut self, is_cut: bool) -> Vec<Kept<K, V>> {
        let is_used_up = is_cut && !self.is_full() && self.kept.first().is_some_and(|kept| kept.recurs);
        if is_used_up {
            self.kept.retain(|kept| kept.recurs);
            self.kept.sort_by(|a, b| a.key.cmp(&b.key));
            self.kept.truncate(CYCLE);
        } else if let Some(circle) = self.circle {
            let (from, end) = (circle.start, circle.end);
            let kept = &mut self.kept[circle];
            kept.iter_mut().for_each(|kept| kept.in_circle = end - from > 1);
            // It is chance which of them has called the frame before. If there is none before, one of them has failed itself.
            if from > 0 {
                kept.sort_by(|a, b| a.key.cmp(&b.key));
            }
            self.kept.truncate(end.min(self.limit));
        } else {
            self.kept.truncate(self.limit);
        }
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded_as(stack: &str, is_cut: bool) -> String {
        let mut fold = Fold::default();
        stack.chars().for_each(|function| fold.add(function, (), |_, _| ()));
        fold.into_kept(is_cut).into_iter().map(|kept| kept.key).collect()
    }

    fn folded(stack: &str) -> String {
        folded_as(stack, false)
    }

    #[test]
    fn what_calls_itself_counts_once_and_ends_the_list() {
        assert_eq!(folded("abcdefg"), "abc");
        assert_eq!(folded("aaabc"), "a");
        assert_eq!(folded("fabababc"), "fab", "a cycle of two");
        assert_eq!(folded("ababac"), "ab", "that was entered in its middle");
        assert_eq!(folded("abbbc"), "ab", "a run after another frame");
        assert_eq!(folded("abcdabcdm"), "abc", "a cycle of four");
        assert_eq!(folded("abcdefabcdef"), "abc", "one of six is none");
    }

    #[test]
    fn it_makes_no_difference_where_a_deep_recursion_is_cut() {
        assert_eq!(folded_as(&"x".repeat(100), true), folded("xxxmain"));
        assert_eq!(folded_as(&("f".to_owned() + &"xy".repeat(100)), true), folded("fxyxymain"));
    }

    #[test]
    fn it_makes_no_difference_which_function_used_up_the_stack() {
        for stack in ["xyz", "yzx", "zxy"] {
            assert_eq!(folded_as(&stack.repeat(100), true), "xyz");
        }
        assert_ne!(folded("xyxym"), folded("yxyxm"), "here it is the one that failed");
    }

    #[test]
    fn the_list_may_end_early() {
        let mut fold = Fold::default();
        fold.end_after_next();
        fold.add('a', (), |_, _| ());
        fold.add('b', (), |_, _| ());
        assert_eq!(fold.into_kept(false).len(), 1);
    }
}
