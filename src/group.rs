//! The members of one broadcast on one poller, as the inbox of their actor type keeps them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::registry::{ActorId, ActorKey};

type HashMap<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

/// One [`Members`](crate::Members) of the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct GroupId(u64);

impl GroupId {
    pub(crate) fn next() -> GroupId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        GroupId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where the end of a member is told.
pub(crate) trait Notice: Send + Sync {
    fn left(&self, member: ActorId);
}

/// The members of one group among the actors of one type on one poller, in the order in which they
/// joined.
pub(crate) struct Group {
    notice: Arc<dyn Notice>,
    /// A member that has left leaves a null key behind, so that a walk under way keeps its place.
    members: Vec<ActorKey>,
    places: HashMap<ActorKey, usize>,
}

impl Group {
    pub(crate) fn new(notice: Arc<dyn Notice>) -> Group {
        Group {
            notice,
            members: Vec::new(),
            places: HashMap::default(),
        }
    }

    /// Adds a member; joining twice is joining once.
    pub(crate) fn join(&mut self, member: ActorKey) {
        self.places.entry(member).or_insert_with(|| {
            self.members.push(member);
            self.members.len() - 1
        });
    }

    /// Takes a member out; whether it was one.
    pub(crate) fn leave(&mut self, member: ActorKey) -> bool {
        let Some(place) = self.places.remove(&member) else {
            return false;
        };
        self.members[place] = ActorKey::default();
        true
    }

    pub(crate) fn notice(&self) -> &Arc<dyn Notice> {
        &self.notice
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The places that a walk has to visit.
    pub(crate) fn places(&self) -> usize {
        self.members.len()
    }

    /// The member at a place, or a null key where it has left.
    pub(crate) fn at(&self, place: usize) -> ActorKey {
        self.members[place]
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = ActorKey> {
        self.places.keys().copied()
    }

    /// Closes the gaps when they are more than the members. Not to be called during a walk: places
    /// change.
    pub(crate) fn compact(&mut self) {
        if self.members.len() <= 2 * self.places.len() + 16 {
            return;
        }
        self.members.retain(|member| *member != ActorKey::default());
        self.members.shrink_to_fit();
        self.places.clear();
        self.places.extend(
            self.members
                .iter()
                .enumerate()
                .map(|(place, member)| (*member, place)),
        );
        self.places.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Notice for Nobody {
        fn left(&self, _: ActorId) {}
    }

    fn key(index: u32) -> ActorKey {
        ActorKey::new(index, 1)
    }

    fn group(members: u32) -> Group {
        let mut group = Group::new(Arc::new(Nobody));
        (0..members).for_each(|index| group.join(key(index)));
        group
    }

    /// What a walk visits.
    fn walk(group: &Group) -> Vec<ActorKey> {
        (0..group.places()).map(|place| group.at(place)).collect()
    }

    #[test]
    fn members_stand_in_the_order_in_which_they_joined_and_leave_gaps() {
        let mut group = group(3);
        group.join(key(1));
        assert_eq!(walk(&group), [key(0), key(1), key(2)]);
        assert!(group.leave(key(1)) && !group.leave(key(1)));
        assert_eq!(walk(&group), [key(0), ActorKey::default(), key(2)]);
        group.join(key(1));
        assert_eq!(walk(&group)[2..], [key(2), key(1)]);
        let mut keys: Vec<_> = group.keys().collect();
        keys.sort();
        assert_eq!(keys, [key(0), key(1), key(2)]);
        assert!(!group.is_empty() && keys.iter().all(|member| group.leave(*member)));
        assert!(group.is_empty() && group.keys().next().is_none());
    }

    #[test]
    fn gaps_are_closed_when_they_are_more_than_the_members_and_sixteen() {
        let mut group = group(36);
        (0..26).for_each(|index| assert!(group.leave(key(index))));
        group.compact();
        assert_eq!(group.places(), 36, "2 * 10 + 16");
        assert!(group.leave(key(30)));
        group.compact();
        let left: Vec<_> = (26..36).filter(|index| *index != 30).map(key).collect();
        assert_eq!(walk(&group), left);
        // Each is found at its new place.
        assert!(group.leave(key(31)));
        assert_eq!(group.at(4), ActorKey::default());
        assert!(group.members.capacity() < 36, "the room is given back");
    }

    #[test]
    fn no_two_groups_have_one_name() {
        assert_ne!(GroupId::next(), GroupId::next());
    }
}
