//! Users that belong to another one: subuid(5) gives a user thousands of them for containers. With these it would be as many peers.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;

const FILE: &str = "/etc/subuid";

/// How much of it is read.
const BYTES_MAX: u64 = 1 << 20;

/// The ranges, each with the first user of its owner's first one.
#[derive(Default)]
pub(super) struct Subordinates(Vec<(Range<u32>, u32)>);

impl Subordinates {
    /// Those that the system's file has now.
    pub(super) fn read() -> Self {
        let mut bytes = Vec::new();
        // Without the file there are none.
        let _ = File::open(FILE).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Lines of OWNER:FIRST:COUNT.
    fn parse(text: &str) -> Self {
        let mut firsts = HashMap::new();
        let range = |line| {
            let mut fields = str::split(line, ':');
            let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
            let (first, count) = (first.trim().parse::<u32>().ok()?, count.trim().parse::<u32>().ok()?);
            let of_owner = *firsts.entry(owner).or_insert(first);
            Some((first..first.saturating_add(count), of_owner))
        };
        Self(text.lines().filter_map(range).collect())
    }

    /// A number that all users share that belong to the same user as this one. `None` means that it belongs to nobody.
    pub(super) fn family(&self, user: u32) -> Option<u32> {
        self.0.iter().find(|(range, _)| range.contains(&user)).map(|(_, family)| *family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_of_one_owner_are_a_family() {
        let all = Subordinates::parse("a:100000:65536\nb:165536:65536\n\nnonsense\n1000:x:1\na:4294967290:65536\n");
        assert_eq!([100_000, 165_535, 4_294_967_294].map(|user| all.family(user)), [Some(100_000); 3]);
        assert_eq!(all.family(165_536), Some(165_536));
        for user in [0, 1000, 99_999, 231_072] {
            assert_eq!(all.family(user), None, "{user}");
        }
    }
}
