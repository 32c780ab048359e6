//! Sockets. EAGAIN stands only where the descriptor would have to be non-blocking anyway (see `plan`).

use libc::{
    EACCES, EADDRINUSE, ECONNABORTED, ECONNREFUSED, ECONNRESET, EINTR, EINVAL, EMFILE, ENFILE,
    ENOBUFS, ENOMEM, ENOTCONN, EPIPE,
};

use super::{Effect::*, Failure, Function, Group, Partial};

const fn row(name: &'static str, prototype: &'static str) -> Function {
    Function::new(Group::Socket, name, prototype)
}

const MAKE: &[i32] = &[EMFILE, ENFILE, ENOBUFS, ENOMEM];
const ACCEPT: &[i32] = &[EMFILE, ECONNABORTED, EINTR, ENFILE, ENOBUFS, ENOMEM];
const SEND: &[i32] = &[EPIPE, ECONNRESET, EINTR, ENOBUFS, ENOMEM];
const RECEIVE: &[i32] = &[ECONNRESET, EINTR, ENOMEM];

pub(super) const ROWS: &[Function] = &[
    row("socket", "int socket(int domain, int type, int protocol)").minus_one(MAKE).effect(Open),
    row("socketpair", "int socketpair(int domain, int type, int protocol, int fds[2])").minus_one(MAKE).effect(OpenPair(3)),
    row("accept", "int accept(int fd, struct sockaddr *, socklen_t *)").minus_one(ACCEPT).effect(Open),
    row("accept4", "int accept4(int fd, struct sockaddr *, socklen_t *, int flags)").minus_one(ACCEPT).effect(Open),
    row("bind", "int bind(int fd, const struct sockaddr *, socklen_t)").minus_one(&[EADDRINUSE, EACCES, ENOMEM]),
    row("listen", "int listen(int fd, int backlog)").minus_one(&[EADDRINUSE]),
    row("connect", "int connect(int fd, const struct sockaddr *, socklen_t)")
        .alias(&["__connect"])
        .minus_one(&[ECONNREFUSED, EINTR, EACCES, libc::ETIMEDOUT]),
    row("shutdown", "int shutdown(int fd, int how)").minus_one(&[ENOTCONN]),
    row("getsockopt", "int getsockopt(int fd, int level, int option, void *value, socklen_t *size)")
        .minus_one(&[ENOBUFS, libc::ENOPROTOOPT]),
    row("setsockopt", "int setsockopt(int fd, int level, int option, const void *value, socklen_t size)")
        .minus_one(&[ENOMEM, libc::ENOPROTOOPT, EINVAL]),
    row("getsockname", "int getsockname(int fd, struct sockaddr *, socklen_t *)").minus_one(&[ENOBUFS]),
    row("getpeername", "int getpeername(int fd, struct sockaddr *, socklen_t *)").minus_one(&[ENOTCONN, ENOBUFS]),
    row("getnameinfo", "int getnameinfo(const struct sockaddr *, socklen_t, char *, socklen_t, char *, socklen_t, int)")
        .fails(Failure::Status(libc::EAI_MEMORY), &[ENOMEM]),
    row("send", "ssize_t send(int fd, const void *bytes, size_t size, int flags)")
        .alias(&["__send"])
        .minus_one(SEND)
        .writes(2),
    row("sendto", "ssize_t sendto(int fd, const void *bytes, size_t size, int flags, const struct sockaddr *, socklen_t)")
        .minus_one(SEND)
        .writes(2),
    row("sendmsg", "ssize_t sendmsg(int fd, const struct msghdr *message, int flags)")
        .minus_one(SEND)
        .partial(Partial::Message { arg: 1, reads: false }),
    row("sendmmsg", "int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)").minus_one(SEND),
    row("recv", "ssize_t recv(int fd, void *bytes, size_t size, int flags)")
        .alias(&["__recv", "__recv_chk"])
        .minus_one(RECEIVE)
        .reads(2),
    row("recvfrom", "ssize_t recvfrom(int fd, void *bytes, size_t size, int flags, struct sockaddr *, socklen_t *)")
        .minus_one(RECEIVE)
        .reads(2),
    row("__recvfrom_chk", "ssize_t __recvfrom_chk(int fd, void *bytes, size_t size, size_t room, int flags, struct sockaddr *, socklen_t *)")
        .minus_one(RECEIVE)
        .reads(2),
    row("recvmsg", "ssize_t recvmsg(int fd, struct msghdr *message, int flags)")
        .minus_one(RECEIVE)
        .partial(Partial::Message { arg: 1, reads: true })
        .effect(Receive),
    row("recvmmsg", "int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *)")
        .minus_one(RECEIVE)
        .effect(ReceiveMany),
    row("if_nametoindex", "unsigned if_nametoindex(const char *name)").fails(Failure::Null, &[libc::ENODEV, EMFILE]),
    row("if_indextoname", "char *if_indextoname(unsigned index, char *name)").null(&[libc::ENXIO, EMFILE]),
    row("gethostbyname", "struct hostent *gethostbyname(const char *name)").null(&[ENOMEM]),
];
