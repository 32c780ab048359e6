//! Names of errnos, and names that are near a mistyped one.

use libc::{
    E2BIG, EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EALREADY, EBADF, EBADMSG,
    EBUSY, ECANCELED, ECHILD, ECONNABORTED, ECONNREFUSED, ECONNRESET, EDEADLK, EDESTADDRREQ, EDOM,
    EDQUOT, EEXIST, EFAULT, EFBIG, EHOSTDOWN, EHOSTUNREACH, EIDRM, EILSEQ, EINPROGRESS, EINTR,
    EINVAL, EIO, EISCONN, EISDIR, ELOOP, EMFILE, EMLINK, EMSGSIZE, ENAMETOOLONG, ENETDOWN,
    ENETRESET, ENETUNREACH, ENFILE, ENOBUFS, ENODATA, ENODEV, ENOENT, ENOEXEC, ENOLCK, ENOMEM,
    ENOMSG, ENOPROTOOPT, ENOSPC, ENOSYS, ENOTCONN, ENOTDIR, ENOTEMPTY, ENOTSOCK, ENOTSUP, ENOTTY,
    ENXIO, EOVERFLOW, EOWNERDEAD, EPERM, EPIPE, EPROTO, EPROTONOSUPPORT, EPROTOTYPE, ERANGE, EROFS,
    ESPIPE, ESRCH, ESTALE, ETIME, ETIMEDOUT, ETXTBSY, EXDEV,
};

macro_rules! errnos {
    ($($name:ident)*) => { &[$((stringify!($name), $name)),*] };
}

const ERRNOS: &[(&str, i32)] = errnos![
    E2BIG EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF EBADMSG EBUSY ECANCELED ECHILD
    ECONNABORTED ECONNREFUSED ECONNRESET EDEADLK EDESTADDRREQ EDOM EDQUOT EEXIST EFAULT EFBIG EHOSTDOWN
    EHOSTUNREACH EIDRM EILSEQ EINPROGRESS EINTR EINVAL EIO EISCONN EISDIR ELOOP EMFILE EMLINK EMSGSIZE
    ENAMETOOLONG ENETDOWN ENETRESET ENETUNREACH ENFILE ENOBUFS ENODATA ENODEV ENOENT ENOEXEC ENOLCK ENOMEM
    ENOMSG ENOPROTOOPT ENOSPC ENOSYS ENOTCONN ENOTDIR ENOTEMPTY ENOTSOCK ENOTSUP ENOTTY ENXIO EOVERFLOW
    EOWNERDEAD EPERM EPIPE EPROTO EPROTONOSUPPORT EPROTOTYPE ERANGE EROFS ESPIPE ESRCH ESTALE ETIME ETIMEDOUT
    ETXTBSY EXDEV
];

/// The name of an errno, if the table knows it.
#[must_use]
pub fn errno_name(errno: i32) -> Option<&'static str> {
    ERRNOS
        .iter()
        .find(|(_, value)| *value == errno)
        .map(|(name, _)| *name)
}

/// The errno of that name, in capitals; `EWOULDBLOCK` and `EOPNOTSUPP` are known too.
#[must_use]
pub fn errno_by_name(name: &str) -> Option<i32> {
    match name {
        "EWOULDBLOCK" => Some(EAGAIN),
        "EOPNOTSUPP" => Some(ENOTSUP),
        _ => ERRNOS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value),
    }
}

/// Which of `names` a user may have meant by `typed`, best first, at most five.
#[must_use]
pub fn near<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let typed = typed.to_lowercase();
    let mut scored: Vec<(usize, &str)> = names
        .into_iter()
        .map(|name| {
            let lower = name.to_lowercase();
            let contained = lower.contains(&typed) && typed.len() >= 3;
            (
                if contained {
                    1
                } else {
                    distance(&typed, &lower)
                },
                name,
            )
        })
        .filter(|(score, name)| *score <= 1 + name.len().min(typed.len()) / 3)
        .collect();
    scored.sort_unstable();
    scored.dedup();
    scored
        .into_iter()
        .take(5)
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// Edit distance with transpositions of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substitution = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substitution.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_have_one_name_both_ways() {
        for (name, value) in ERRNOS {
            assert_eq!(errno_by_name(name), Some(*value));
            assert_eq!(errno_name(*value), Some(*name));
        }
        assert_eq!(errno_by_name("EWOULDBLOCK"), Some(EAGAIN));
        assert_eq!(errno_by_name("enomem"), None);
        assert_eq!(errno_name(0), None);
    }

    #[test]
    fn near_finds_slips_and_parts_of_names() {
        let names = ["malloc", "calloc", "realloc", "sendmsg", "recvmsg"];
        assert_eq!(
            near("mallco", names).first().map(String::as_str),
            Some("malloc")
        );
        assert_eq!(
            near("SENDMSG", names).first().map(String::as_str),
            Some("sendmsg")
        );
        assert_eq!(near("alloc", names), ["calloc", "malloc", "realloc"]);
        assert!(near("zzzzzz", names).is_empty());
    }
}
