//! The order in which users share what is short, so that none of them takes the room of all.

use std::cmp::Reverse;
use std::collections::HashMap;

/// The items in the order in which they get room: users take turns, and of each the one of the highest rank is first. `of`: an item's user
/// and rank, such as when it was there last.
pub(super) fn in_turn<Item, Rank: Ord>(
    items: impl IntoIterator<Item = Item>,
    of: impl Fn(&Item) -> (u32, Rank),
) -> Vec<Item> {
    let mut highest: Vec<Item> = items.into_iter().collect();
    highest.sort_by_key(|item| Reverse(of(item).1));
    let mut turns: HashMap<u32, u32> = HashMap::new();
    let with_turn = |item: Item| {
        let turn = turns.entry(of(&item).0).or_default();
        *turn += 1;
        (*turn, item)
    };
    let mut by_turn: Vec<(u32, Item)> = highest.into_iter().map(with_turn).collect();
    by_turn.sort_by_key(|(turn, _)| *turn);
    by_turn.into_iter().map(|(_, item)| item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_take_turns_and_the_newest_is_first() {
        let items = [(7, 0), (8, 1), (7, 2), (8, 3), (8, 4), (8, 5)];
        let times: Vec<u64> = in_turn(items, |item| *item).into_iter().map(|(_, time)| time).collect();
        assert_eq!(times, [5, 2, 4, 0, 3, 1]);
    }
}
