/* The floor of fan-out: the least that a server can do which sends each line of any connection to all of them. One
 * thread, level-triggered, one bare send(2) for each line and member. It is correct, not only fast: what a socket
 * refuses is kept, up to a bound past which that member is cut off, and a line has a bound as well.
 */
#include "server.h"

enum { LINE_MAX_BYTES = 4096, REST_MAX_BYTES = 16 * 1024 * 1024 };

/* Bytes that wait: for the end of their line, or for room in a socket. */
struct bytes {
    size_t start, end, capacity;
    char *at;
};

struct member {
    int place; /* in `members` */
    struct bytes line, rest; /* rest not empty: waits for EPOLLOUT too */
};

static char buffer[LINE_MAX_BYTES + READ_BYTES]; /* the beginning of a line goes before what is read */
static struct member *by_fd[DESCRIPTORS_MAX];
static int members[DESCRIPTORS_MAX], member_count;

static void keep(struct bytes *bytes, const char *more, size_t len) {
    if (bytes->start > 0) { /* so that what has been sent takes no room for ever */
        bytes->end -= bytes->start;
        memmove(bytes->at, bytes->at + bytes->start, bytes->end);
        bytes->start = 0;
    }
    size_t needed = bytes->end + len;
    if (needed > bytes->capacity) {
        bytes->capacity = needed * 2;
        bytes->at = realloc(bytes->at, bytes->capacity);
        if (!bytes->at) fail("realloc");
    }
    memcpy(bytes->at + bytes->end, more, len);
    bytes->end = needed;
}

static void discard(struct bytes *bytes) {
    free(bytes->at);
    memset(bytes, 0, sizeof *bytes);
}

static void join(int fd) {
    struct member *member = calloc(1, sizeof *member);
    if (!member) fail("calloc");
    member->place = member_count;
    by_fd[fd] = member;
    members[member_count++] = fd;
}

static void leave(int fd) {
    struct member *member = by_fd[fd];
    int last = members[--member_count];
    members[member->place] = last;
    by_fd[last]->place = member->place;
    discard(&member->line);
    discard(&member->rest);
    free(member);
    by_fd[fd] = NULL;
    close(fd); /* takes it out of the epoll set as well: nobody duplicated it */
}

static void keep_rest(int fd, struct member *member, const char *bytes, size_t len) {
    if (member->rest.end - member->rest.start + len > REST_MAX_BYTES) {
        shutdown(fd, SHUT_RDWR); /* its next read finds the end */
        return;
    }
    if (member->rest.end == 0) set_interest(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT);
    keep(&member->rest, bytes, len);
}

static void write_rest(int fd) {
    struct bytes *rest = &by_fd[fd]->rest;
    ssize_t sent = send(fd, rest->at + rest->start, rest->end - rest->start, MSG_NOSIGNAL);
    if (sent < 0) return; /* room that has gone, or an error that the next read finds too */
    rest->start += (size_t)sent;
    if (rest->start < rest->end) return;
    discard(rest);
    set_interest(EPOLL_CTL_MOD, fd, EPOLLIN);
}

static void send_to_all(const char *line, size_t len) {
    for (int i = 0; i < member_count; i++) {
        int fd = members[i];
        struct member *member = by_fd[fd];
        ssize_t sent = 0;
        if (member->rest.end == 0) {
            sent = send(fd, line, len, MSG_NOSIGNAL);
            if (sent < 0) {
                if (errno != EAGAIN && errno != EINTR) continue; /* its next read finds the error too */
                sent = 0;
            }
        }
        if ((size_t)sent < len) keep_rest(fd, member, line + sent, len - (size_t)sent);
    }
}

static void relay(int fd) {
    struct bytes *kept = &by_fd[fd]->line;
    memcpy(buffer, kept->at ? kept->at : "", kept->end);
    ssize_t len = read(fd, buffer + kept->end, READ_BYTES);
    if (len <= 0) {
        if (len == 0 || (errno != EAGAIN && errno != EINTR)) leave(fd);
        return;
    }
    char *line = buffer, *end = buffer + kept->end + len;
    discard(kept);
    for (char *newline; (newline = memchr(line, '\n', (size_t)(end - line))); line = newline + 1)
        send_to_all(line, (size_t)(newline + 1 - line));
    if (end - line > LINE_MAX_BYTES)
        leave(fd);
    else if (end > line)
        keep(kept, line, (size_t)(end - line));
}

int main(int argc, char **argv) {
    int listener = start_server(argc, argv);
    static struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int ready = wait_for_events(events);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                for (int n = 0; n < ACCEPTS_PER_TURN; n++) {
                    int member = accept_connection(listener);
                    if (member < 0) break;
                    join(member);
                }
                continue;
            }
            if (events[i].events & EPOLLOUT && by_fd[fd]->rest.end > 0) write_rest(fd);
            if (events[i].events & ~(uint32_t)EPOLLOUT) relay(fd);
        }
    }
}
