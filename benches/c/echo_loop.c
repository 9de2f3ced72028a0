/* The floor: the least that an echo server on epoll can do. One thread, level-triggered, one read and one write for
 * each event. It is correct, not only fast: what the socket refuses is kept, and nothing more is read from that
 * connection until it is gone, so memory stays bounded by one read per connection.
 *
 *   echo_loop [PORT [SECONDS]]      PORT 0 (default): any free port; it ends by itself after SECONDS (default 600)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 1024, READ_BYTES = 64 * 1024, DESCRIPTORS_MAX = 65536, BACKLOG = 4096, ACCEPTS_PER_TURN = 256 };

/* What a socket refused. Allocated for a short write only, so an idle connection costs nothing but the kernel's part. */
struct rest {
    size_t start, end;
    char bytes[];
};

static char buffer[READ_BYTES];
static struct rest *rests[DESCRIPTORS_MAX]; /* by descriptor; not null: waits for EPOLLOUT and reads nothing */
static int epoll_fd;

static void fail(const char *operation) {
    perror(operation);
    exit(1);
}

static void set_interest(int operation, int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll_fd, operation, fd, &event) < 0) fail("epoll_ctl");
}

static void close_connection(int fd) {
    if (rests[fd]) { /* asked first, so that a page of the table that holds nothing is never written */
        free(rests[fd]);
        rests[fd] = NULL;
    }
    close(fd); /* takes it out of the epoll set as well: nobody duplicated it */
}

static void accept_connections(int listener) {
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN) return;
            if (errno == EINTR || errno == ECONNABORTED) continue;
            fail("accept4"); /* EMFILE too: a floor that spins at its descriptor limit would measure nothing */
        }
        if (fd >= DESCRIPTORS_MAX) {
            close(fd);
            continue;
        }
        set_interest(EPOLL_CTL_ADD, fd, EPOLLIN);
    }
}

static void keep_rest(int fd, const char *bytes, size_t len) {
    struct rest *rest = malloc(sizeof *rest + len);
    if (!rest) fail("malloc");
    rest->start = 0;
    rest->end = len;
    memcpy(rest->bytes, bytes, len);
    rests[fd] = rest;
    set_interest(EPOLL_CTL_MOD, fd, EPOLLOUT);
}

static void write_rest(int fd) {
    struct rest *rest = rests[fd];
    ssize_t written = write(fd, rest->bytes + rest->start, rest->end - rest->start);
    if (written < 0) {
        if (errno != EAGAIN && errno != EINTR) close_connection(fd);
        return;
    }
    rest->start += (size_t)written;
    if (rest->start < rest->end) return;
    free(rest);
    rests[fd] = NULL;
    set_interest(EPOLL_CTL_MOD, fd, EPOLLIN);
}

static void echo(int fd) {
    ssize_t len = read(fd, buffer, sizeof buffer);
    if (len <= 0) {
        if (len == 0 || (errno != EAGAIN && errno != EINTR)) close_connection(fd);
        return;
    }
    ssize_t written = write(fd, buffer, (size_t)len);
    if (written < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            close_connection(fd);
            return;
        }
        written = 0;
    }
    if (written < len) keep_rest(fd, buffer + written, (size_t)(len - written));
}

int main(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 0;
    alarm(argc > 2 ? (unsigned)atoi(argv[2]) : 600); /* nobody has to remember to end it */
    signal(SIGPIPE, SIG_IGN);

    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) fail("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) fail("setrlimit");

    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t address_len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0) fail("socket");
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0) fail("setsockopt SO_REUSEADDR");
    /* Accepted sockets inherit it on Linux: no system call per connection. */
    if (setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0) fail("setsockopt TCP_NODELAY");
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
    if (listen(listener, BACKLOG) < 0) fail("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &address_len) < 0) fail("getsockname");

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0) fail("epoll_create1");
    set_interest(EPOLL_CTL_ADD, listener, EPOLLIN);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);

    static struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int ready = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        if (ready < 0) {
            if (errno == EINTR) continue; /* a debugger or strace attached */
            fail("epoll_wait");
        }
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_connections(listener);
            else if (rests[fd])
                write_rest(fd);
            else
                echo(fd);
        }
    }
}
