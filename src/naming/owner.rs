//! The owner of a record: neighbours share the namer, and none of them may take another's share.
//!
//! Somebody with many users or many cgroups still has one share, as far as the numbers of a dead process show it.

use std::sync::Arc;

use crate::process::container_id;

/// How many components of their paths distinguish two cgroups of no known form.
const COMPONENTS_MAX: usize = 6;

/// One of those that share the namer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// A user of the host.
    User(u32),
    /// A container with all its users, or what runs as root in one place.
    Place(Arc<str>),
    /// All users of the user namespaces in one place: any user may have many of them.
    Namespaced(Arc<str>),
    /// All processes that live on, of all users: their records take no turn and no room of deaths.
    Living,
}

impl Owner {
    /// `uid` is the host's number. `cgroup`: the path of the cgroup; `None` means that it isn't known.
    pub(crate) fn of(uid: u32, is_namespaced: bool, cgroup: Option<&str>) -> Self {
        // No cgroup has this path: a process whose path isn't known shares nothing with others.
        let (place, is_container) = cgroup.map_or(("?", false), place);
        match uid {
            _ if is_namespaced => Self::Namespaced(place.into()),
            0 => Self::Place(place.into()),
            _ if is_container => Self::Place(place.into()),
            _ => Self::User(uid),
        }
    }
}

/// The part of a cgroup's path that its processes can't choose, and whether it is a container: whoever is root there may make cgroups
/// below it, and so may a user below the slice of that user.
fn place(cgroup: &str) -> (&str, bool) {
    let mut unit = None;
    let mut end = 0;
    for component in cgroup.split_inclusive('/').take(COMPONENTS_MAX + 1) {
        end += component.len();
        let name = component.trim_end_matches('/');
        let up_to = &cgroup[..end - (component.len() - name.len())];
        if name.starts_with("user-") && name.ends_with(".slice") {
            return (up_to, false);
        }
        if container_id(name).is_some() {
            return (up_to, true);
        }
        if unit.is_none() && (name.ends_with(".service") || name.ends_with(".scope")) {
            unit = Some(up_to);
        }
    }
    (unit.unwrap_or(cgroup[..end].trim_end_matches('/')), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn owner(uid: u32, is_namespaced: bool, cgroup: &str) -> Owner {
        Owner::of(uid, is_namespaced, Some(cgroup))
    }

    #[test]
    fn a_user_is_one_owner_wherever_it_runs() {
        let session = owner(1000, false, "/user.slice/user-1000.slice/session-1.scope");
        assert_eq!(session, Owner::User(1000));
        assert_eq!(session, owner(1000, false, "/system.slice/cron.service"));
        assert_eq!(session, Owner::of(1000, false, None));
        assert_ne!(session, Owner::of(1001, false, None));
    }

    #[test]
    fn root_is_told_apart_by_what_it_runs_in() {
        let of = |cgroup: &str| owner(0, false, cgroup);
        assert_ne!(of("/system.slice/a.service"), of("/system.slice/b.service"));
        assert_eq!(of("/system.slice/a.service"), of("/system.slice/a.service/made/up"));
        assert_ne!(of("/one"), of("/two"));
        assert_ne!(of("/"), of("/one"));
        assert_eq!(of("/"), of("/"));
        assert_ne!(of("/"), owner(0, true, "/"), "not the root of the host");
        assert_eq!(of("/1/2/3/4/5/6"), of("/1/2/3/4/5/6/7"), "its own cgroups are not without end");
        assert_eq!(of("/user.slice/user-0.slice/a.scope"), of("/user.slice/user-0.slice/b.scope"));
    }

    #[test]
    fn a_container_is_one_owner_with_all_its_users_and_cgroups() {
        let other = ID.replace('0', "f");
        for form in [
            "/system.slice/docker-ID.scope",
            "/docker/ID",
            "/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-ID.scope",
            "/kubepods/burstable/pod1-2/ID",
            "/machine.slice/libpod-ID.scope",
            "/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:ID",
        ] {
            let path = form.replace("ID", ID);
            let root = owner(0, false, &path);
            assert_eq!(root, owner(1000, false, &path), "{form}");
            assert_eq!(root, owner(1000, false, &format!("{path}/docker/{other}")), "{form}");
            assert_ne!(root, owner(0, false, &form.replace("ID", &other)), "{form}");
        }
    }

    #[test]
    fn a_user_with_many_users_and_containers_is_one_owner() {
        let of =
            |uid: u32, below: &str| owner(uid, true, &format!("/user.slice/user-1000.slice/user@1000.service/{below}"));
        let one = of(100_000, &format!("user.slice/libpod-{ID}.scope"));
        assert_eq!(one, of(165_535, &format!("user.slice/libpod-{}.scope", ID.replace('0', "f"))));
        assert_ne!(one, owner(100_000, true, "/user.slice/user-1001.slice/session-1.scope"));
        // Nor does it become another by a name.
        assert_eq!(owner(1000, false, &format!("/user.slice/user-1000.slice/docker-{ID}.scope")), Owner::User(1000));
    }

    #[test]
    fn what_is_not_known_is_one_owner() {
        assert_eq!(Owner::of(0, false, None), Owner::of(0, false, None));
        assert_ne!(Owner::of(0, false, None), owner(0, false, "/"));
    }
}
