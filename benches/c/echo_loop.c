/* The floor: the least that an echo server on epoll can do. One thread, level-triggered, one read and one write for
 * each event. It is correct, not only fast: what the socket refuses is kept, and nothing more is read from that
 * connection until it is gone, so memory stays bounded by one read per connection.
 */
#include "server.h"

/* What a socket refused. Allocated for a short write only, so an idle connection costs nothing but the kernel's part. */
struct rest {
    size_t start, end;
    char bytes[];
};

static char buffer[READ_BYTES];
static struct rest *rests[DESCRIPTORS_MAX]; /* by descriptor; not null: waits for EPOLLOUT and reads nothing */

static void close_connection(int fd) {
    if (rests[fd]) { /* asked first, so that a page of the table that holds nothing is never written */
        free(rests[fd]);
        rests[fd] = NULL;
    }
    close(fd); /* takes it out of the epoll set as well: nobody duplicated it */
}

static void keep_rest(int fd, const char *bytes, size_t len) {
    struct rest *rest = malloc(sizeof *rest + len);
    if (!rest) fail("malloc");
    rest->start = 0;
    rest->end = len;
    memcpy(rest->bytes, bytes, len);
    rests[fd] = rest;
    set_interest(EPOLL_CTL_MOD, fd, EPOLLOUT | EDGE);
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
    set_interest(EPOLL_CTL_MOD, fd, EPOLLIN | EDGE);
}

/* Whether there may be more that nobody will tell of: edge-triggered, where all that fits was read. A shorter read is
 * trusted, which spares a second one and may miss an end behind it: good for a comparison alone. */
static int echo(int fd) {
    ssize_t len = read(fd, buffer, sizeof buffer);
    if (len <= 0) {
        if (len == 0 || (errno != EAGAIN && errno != EINTR)) close_connection(fd);
        return 0;
    }
    ssize_t written = write(fd, buffer, (size_t)len);
    if (written < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            close_connection(fd);
            return 0;
        }
        written = 0;
    }
    if (written < len) {
        keep_rest(fd, buffer + written, (size_t)(len - written));
        return 0;
    }
    return EDGE && len == sizeof buffer;
}

int main(int argc, char **argv) {
    int listener = start_server(argc, argv);
    static struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int ready = wait_for_events(events);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                for (int n = 0; n < ACCEPTS_PER_TURN && accept_connection(listener) >= 0; n++) continue;
            else if (rests[fd])
                write_rest(fd);
            else
                while (echo(fd)) continue;
        }
    }
}
