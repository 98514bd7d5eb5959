//! The names of things. Each rule keeps a name safe as a path component, a URL segment and a log word.

use super::Invalid;

fn held(text: &str, rule: bool, wanted: &str) -> Result<(), Invalid> {
    if rule { Ok(()) } else { Err(Invalid::new(text, wanted)) }
}

fn within(text: &str, least: usize, most: usize) -> bool {
    (least..=most).contains(&text.len())
}

/// An instance: a DNS label that is not a number, because it becomes the host name inside.
///
/// # Errors
/// When it is not 1 to 63 of `a-z A-Z 0-9 -`, starts or ends with `-`, or is all digits.
pub fn instance(text: &str) -> Result<(), Invalid> {
    let rule = label(text) && !text.bytes().all(|byte| byte.is_ascii_digit());
    held(text, rule, "an instance name (1 to 63 letters, digits and `-`; no `-` at an end, not only digits)")
}

fn label(text: &str) -> bool {
    within(text, 1, 63)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A snapshot.
///
/// # Errors
/// When it is not 1 to 128 visible characters, has a space or `/`, or is `.` or `..`.
pub fn snapshot(text: &str) -> Result<(), Invalid> {
    let rule = within(text, 1, 128)
        && !text.contains('/')
        && !text.chars().any(|letter| letter.is_whitespace() || letter.is_control())
        && !matches!(text, "." | "..");
    held(text, rule, "a snapshot name (1 to 128 characters without spaces and `/`)")
}

/// A device of an instance or profile.
///
/// # Errors
/// When it is not 1 to 63 of `a-z A-Z 0-9 / . - : _`, or starts with `.`.
pub fn device(text: &str) -> Result<(), Invalid> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/.-:_".contains(&byte);
    // More than Incus asks: a name of `/` and `..` could become a path one day.
    let rule = within(text, 1, 63)
        && text.bytes().all(allowed)
        && text.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    held(
        text,
        rule,
        "a device name (1 to 63 letters, digits and `.-:_/`; no part empty or starting with `.`)",
    )
}

/// A network interface, as the kernel takes it.
///
/// # Errors
/// When it is not 2 to 15 of `a-z A-Z 0-9 - _ .`, or starts with `-` or `.`.
pub fn interface(text: &str) -> Result<(), Invalid> {
    let rule = within(text, 2, 15)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !text.starts_with(['-', '.']);
    held(text, rule, "an interface name (2 to 15 letters, digits and `-_.`)")
}

/// A managed network: an interface's name, without those that mean something else under /proc/sys/net.
///
/// # Errors
/// As [`interface`], and for `all`, `default` and `lo`.
pub fn network(text: &str) -> Result<(), Invalid> {
    interface(text)?;
    held(
        text,
        !matches!(text, "all" | "default" | "lo"),
        "a network name (`all`, `default` and `lo` are the kernel's)",
    )
}

/// Profiles, projects, pools and the like (Incus's rule for API names, in ASCII).
///
/// # Errors
/// When it is not 1 to 64 visible ASCII characters, has one of ``/ $ ? & + " ' ` * % # ; \``, or
/// starts or ends with anything but a letter or digit.
pub fn object(text: &str) -> Result<(), Invalid> {
    let ends = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    let rule = within(text, 1, 64)
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/$?&+\"'`*%#;\\".contains(&byte))
        && ends(text.chars().next())
        && ends(text.chars().last());
    held(
        text,
        rule,
        "a name (1 to 64 characters without spaces and reserved ones, a letter or digit at both ends)",
    )
}

/// An alias of an image, in parts: `debian/12`.
///
/// # Errors
/// When it is not 1 to 128 visible ASCII characters, or a part is only dots or empty; after a last `/` nothing may
/// follow, as Incus has it.
pub fn alias(text: &str) -> Result<(), Invalid> {
    let parts = text.strip_suffix('/').unwrap_or(text);
    let rule = within(text, 1, 128)
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?&%#\"'`\\".contains(&byte))
        && parts.split('/').all(|part| !part.bytes().all(|byte| byte == b'.'));
    held(text, rule, "an image alias (1 to 128 visible characters, parts with `/` between)")
}

/// A DNS domain: labels with dots between.
///
/// # Errors
/// When a part is no DNS label, or the whole is over 253 characters.
pub fn domain(text: &str) -> Result<(), Invalid> {
    held(text, within(text, 1, 253) && text.split('.').all(label), "a DNS domain such as `example.net`")
}

/// The name of an environment variable (the part after `environment.`).
///
/// # Errors
/// When it is empty, or has `=` or a control character.
pub fn variable(text: &str) -> Result<(), Invalid> {
    let rule = within(text, 1, 256)
        && !text.chars().any(|letter| letter == '=' || letter.is_control() || letter.is_whitespace());
    held(text, rule, "the name of an environment variable")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Result<(), Invalid>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(rule(text), Ok(()), "{text}");
        }
        for text in bad {
            assert!(rule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_instance_is_a_dns_label_and_no_number() {
        let long = "a".repeat(63);
        check(
            instance,
            &["web", "a", "1a", "Web-1", &long],
            &["", "-a", "a-", "12", "a.b", "a_b", "a b", "a/b", "../a", "ä", "a\n", &"a".repeat(64)],
        );
    }

    #[test]
    fn a_snapshot_has_no_space_and_no_slash() {
        check(
            snapshot,
            &["snap0", "before.upgrade", "ä"],
            &["", "a b", "a/b", ".", "..", "a\u{0}", &"a".repeat(300)],
        );
    }

    #[test]
    fn a_device_stays_beneath_its_directory() {
        check(
            device,
            &["root", "eth0", "a/b", "a:b_c"],
            &["", ".a", "a/../b", "../b", "/a", "a//b", "a b", &"a".repeat(64)],
        );
    }

    #[test]
    fn an_interface_is_what_the_kernel_takes() {
        check(
            interface,
            &["eth0", "br-lan", "a.1"],
            &["", "a", "a/b", "..", "-x", "sixteen-letters!", "abcdefghijklmnop"],
        );
        check(network, &["cabinbr0"], &["all", "default", "lo", "x"]);
    }

    #[test]
    fn an_object_has_no_reserved_characters() {
        check(
            object,
            &["default", "a", "my.pool_1", "a@b"],
            &[
                "",
                "a b",
                "a/b",
                "..",
                "-a",
                "a-",
                "a$b",
                "a?b",
                "a&b",
                "a+b",
                "a\"b",
                "a'b",
                "a`b",
                "a*b",
                "ä",
                &"a".repeat(65),
            ],
        );
    }

    #[test]
    fn an_alias_has_parts() {
        check(
            alias,
            &["debian/12", "debian/12/sysvinit", "a", "x:y", "a/b/"],
            &["", "/", "/a", "a//", "a//b", "a/../b", "a b", "a?b", "a%2e"],
        );
    }

    #[test]
    fn domains_and_variables_are_held_to_their_letters() {
        check(domain, &["incus", "example.net"], &["", ".", "a..b", "a b", "-a.b", "a,b"]);
        check(variable, &["PATH", "a.b"], &["", "A=B", "A B", "A\n"]);
    }
}
