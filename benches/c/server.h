/* What both floors begin with: a listener on the loopback, an epoll instance that watches it, and the start line.
 *
 *   PROGRAM [PORT [SECONDS]]      PORT 0 (default): any free port; it ends by itself after SECONDS (default 600)
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

/* Connections are watched level-triggered; compiled with -DEDGE=EPOLLET edge-triggered, to compare the two. */
#ifndef EDGE
#define EDGE 0
#endif

static int epoll_fd;

static void fail(const char *operation) {
    perror(operation);
    exit(1);
}

static void set_interest(int operation, int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll_fd, operation, fd, &event) < 0) fail("epoll_ctl");
}

/* A new connection, watched for reading; -1 when there is none. */
static int accept_connection(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN) return -1;
            if (errno == EINTR || errno == ECONNABORTED) continue;
            fail("accept4"); /* EMFILE too: a floor that spins at its descriptor limit would measure nothing */
        }
        if (fd >= DESCRIPTORS_MAX) {
            close(fd);
            continue;
        }
        set_interest(EPOLL_CTL_ADD, fd, EPOLLIN | EDGE);
        return fd;
    }
}

/* Returns the listener. */
static int start_server(int argc, char **argv) {
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
    return listener;
}

/* The events that are ready, in `events`. */
static int wait_for_events(struct epoll_event *events) {
    for (;;) {
        int ready = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        if (ready >= 0) return ready;
        if (errno != EINTR) fail("epoll_wait"); /* EINTR: a debugger or strace attached */
    }
}
