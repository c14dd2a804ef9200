//! The container that a cgroup path belongs to.
//!
//! It works on the path alone, which the kernel program took while the process was still there.

/// The container id in a cgroup path; `None` means that the path names no container.
///
/// The forms, by the engine that makes them: `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope` (the
/// systemd drivers), `.../docker/ID` and `.../kubepods/.../ID` (the cgroupfs drivers): 64 hexadecimal digits;
/// `machine-NAME.scope` (systemd-nspawn) and `lxc.payload.NAME` (LXC): the machine's name.
pub(crate) fn container_id(cgroup: &str) -> Option<String> {
    // The innermost container is the one that the process is in.
    cgroup.rsplit('/').find_map(|component| {
        let name = component.strip_suffix(".scope").unwrap_or(component);
        let id = name.rsplit(['-', ':']).next().unwrap_or(name);
        if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && !name.contains("conmon") {
            return Some(id.to_ascii_lowercase());
        }
        let machine = component.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope"));
        let payload = component.strip_prefix("lxc.payload.");
        machine.or(payload).filter(|name| !name.is_empty()).map(unescape)
    })
}

/// Undoes systemd's escaping of a unit name: `\x2d` is a dash (systemd-escape(1)).
fn unescape(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(u8::is_ascii);
        match byte {
            Some(byte) => {
                text.push(char::from(byte));
                text.push_str(&part[2..]);
            }
            None => {
                text.push_str("\\x");
                text.push_str(part);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn each_engine_has_its_form() {
        for form in [
            "/system.slice/docker-ID.scope",
            "/docker/ID",
            "/docker/ID/app.slice/init.scope",
            "/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-ID.scope",
            "/kubepods/burstable/pod1-2/ID",
            "/kubepods.slice/crio-ID.scope/container",
            "/machine.slice/libpod-ID.scope/container",
            "/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:ID",
        ] {
            assert_eq!(container_id(&form.replace("ID", ID)).as_deref(), Some(ID), "{form}");
        }
        assert_eq!(container_id("/machine.slice/machine-web\\x2d1.scope/payload").as_deref(), Some("web-1"));
        assert_eq!(container_id("/lxc.payload.web/system.slice").as_deref(), Some("web"));
    }

    #[test]
    fn what_is_no_container_has_no_id() {
        for path in ["/", "", "/user.slice/user-1000.slice/session-1.scope", "/system.slice/cron.service"] {
            assert_eq!(container_id(path), None, "{path}");
        }
        assert_eq!(container_id(&format!("/machine.slice/libpod-conmon-{ID}.scope")), None);
        assert_eq!(container_id(&format!("/docker/{}", &ID[1..])), None);
    }

    #[test]
    fn a_hostile_name_stays_as_it_is() {
        assert_eq!(container_id("/machine.slice/machine-\\xzz\\x2.scope").as_deref(), Some("\\xzz\\x2"));
        assert_eq!(container_id("/lxc.payload.é\\xff").as_deref(), Some("é\\xff"));
    }
}
