/* A server that knows the truth: what it sent, and when. Linux; one thread, epoll and a timer.

     cc -O2 -o server server.c && ./server --ttft-ms 200 --itl-ms 20        (prints its port; 127.0.0.1 alone)

   `max_tokens` in the request's body says how many tokens to stream, each an event and a chunk of its own, under an id of
   this reply's, as servers do. Without --ttft-ms and --itl-ms they come at once. With them the first is due ttft after the whole request was here and the k-th itl * k later,
   on an absolute schedule; the first one's text is "t=<ns> due=<ns> recv=<ns>": CLOCK_MONOTONIC at its write, when it
   was due, and when the request was complete. That is the clock of time.perf_counter_ns(). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { CONNS = 65536, MOST_TOKENS = 32768, ID = 16 };
#define NOBODY "0000000000000000"
#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nX-Request-Id: " NOBODY \
             "\r\nTransfer-Encoding: chunked\r\n\r\n"
#define EVENT "data: {\"id\": \"cmpl-" NOBODY "\", \"object\": \"chat.completion.chunk\", \"model\": \"null\", "
#define DELTA(text) EVENT "\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"" text "\"}, \"finish_reason\": null}]}\n\n"
#define ROLE EVENT "\"choices\": [{\"index\": 0, \"delta\": {\"role\": \"assistant\", \"content\": \"\"}, \"finish_reason\": null}]}\n\n"
#define FINISH EVENT "\"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"stop\"}]}\n\n"
#define USAGE EVENT "\"choices\": [], \"usage\": {\"prompt_tokens\": 10, \"completion_tokens\": %d, \"total_tokens\": %d}}\n\n"
#define DONE "data: [DONE]\n\n"

typedef uint64_t ns_t;
typedef struct { char *in, *out, id[ID + 1]; size_t got, room, need, left, out_at; int tokens, sent; unsigned turn; ns_t recv; } Conn;
typedef struct { ns_t due; int fd; unsigned turn; } Due;
typedef struct { char *data; size_t size, *ids, n_ids; } Reply;  /* ids: where this reply's own goes */

static Conn conns[CONNS];
static Due *heap;
static size_t n_due, room_due;
static Reply replies[MOST_TOKENS + 1];
static ns_t ttft, itl;
static int paced, ep, timer;
static unsigned long long answered;

static ns_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }

static void push(Due d) {
    if (n_due == room_due) heap = realloc(heap, (room_due = room_due ? room_due * 2 : 1024) * sizeof *heap);
    size_t i = n_due++;
    for (; i && heap[(i - 1) / 2].due > d.due; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = d;
}

static Due pop(void) {
    Due top = heap[0], last = heap[--n_due];
    size_t i = 0, kid;
    for (; (kid = 2 * i + 1) < n_due; i = kid) {
        if (kid + 1 < n_due && heap[kid + 1].due < heap[kid].due) kid++;
        if (heap[kid].due >= last.due) break;
        heap[i] = heap[kid];
    }
    heap[i] = last;
    return top;
}

static void drop(int fd) {
    Conn *c = &conns[fd];
    free(c->in); free(c->out);
    *c = (Conn){.turn = c->turn + 1};
    close(fd);
}

static void watch(int fd, uint32_t events, int how) {
    struct epoll_event e = {.events = events, .data.fd = fd};
    epoll_ctl(ep, how, fd, &e);
}

static void transmit(int fd, const char *data, size_t size) {
    Conn *c = &conns[fd];
    ssize_t n = c->left ? 0 : send(fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) { drop(fd); return; }
    if (n < 0) n = 0;
    if ((size_t)n == size) return;
    char *rest = malloc(c->left + size - n);
    memcpy(rest, c->out + c->out_at, c->left);
    memcpy(rest + c->left, data + n, size - n);
    free(c->out);
    c->out = rest; c->out_at = 0; c->left += size - n;
    watch(fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
}

static size_t chunk(char *to, const char *data, size_t size) {
    size_t n = sprintf(to, "%zx\r\n", size);
    memcpy(to + n, data, size);
    memcpy(to + n + size, "\r\n", 2);
    return n + size + 2;
}

static void name(char *data, size_t size, const char *id) {
    for (char *at = data; (at = memmem(at, size - (at - data), NOBODY, ID)); at += ID) memcpy(at, id, ID);
}

static Reply *whole(int tokens) {
    Reply *r = &replies[tokens];
    if (r->data) return r;
    r->data = malloc(2048 + (size_t)tokens * (sizeof DELTA(" word") + 16));
    r->size = sprintf(r->data, "%s", HEAD);
    r->size += chunk(r->data + r->size, ROLE, sizeof ROLE - 1);
    for (int k = 0; k < tokens; k++) r->size += chunk(r->data + r->size, DELTA(" word"), sizeof DELTA(" word") - 1);
    r->size += chunk(r->data + r->size, FINISH, sizeof FINISH - 1);
    char usage[512];
    r->size += chunk(r->data + r->size, usage, sprintf(usage, USAGE, tokens, 10 + tokens));
    r->size += chunk(r->data + r->size, DONE, sizeof DONE - 1);
    r->size += sprintf(r->data + r->size, "0\r\n\r\n");
    r->ids = malloc((tokens + 8) * sizeof *r->ids);
    for (char *at = r->data; (at = memmem(at, r->size - (at - r->data), NOBODY, ID)); at += ID) r->ids[r->n_ids++] = at - r->data;
    return r;
}

static void token(int fd, ns_t due) {
    Conn *c = &conns[fd];
    char event[1024], out[4608];
    size_t m = 0;
    if (c->sent == 0) {
        m = sprintf(out, "%s", HEAD);
        m += chunk(out + m, ROLE, sizeof ROLE - 1);
        m += chunk(out + m, event, sprintf(event, DELTA("t=%llu due=%llu recv=%llu"), (unsigned long long)now(),
                                           (unsigned long long)due, (unsigned long long)c->recv));
    } else m = chunk(out, DELTA(" word"), sizeof DELTA(" word") - 1);
    if (++c->sent >= c->tokens) {
        m += chunk(out + m, FINISH, sizeof FINISH - 1);
        m += chunk(out + m, event, sprintf(event, USAGE, c->tokens, 10 + c->tokens));
        m += chunk(out + m, DONE, sizeof DONE - 1);
        m += sprintf(out + m, "0\r\n\r\n");
    } else push((Due){c->recv + ttft + itl * c->sent, fd, c->turn});
    name(out, m, c->id);
    transmit(fd, out, m);
}

static void answer(int fd) {
    Conn *c = &conns[fd];
    char *body = memmem(c->in, c->got, "\r\n\r\n", 4), *end = c->in + c->got;
    char *found = memmem(body, end - body, "\"max_tokens\":", 13);
    int tokens = found ? atoi(found + 13) : 1;
    c->tokens = tokens < 1 ? 1 : tokens > MOST_TOKENS ? MOST_TOKENS : tokens;
    c->sent = 0; c->got = c->need = 0; c->recv = now();
    sprintf(c->id, "%016llx", ++answered);
    if (paced) { push((Due){c->recv + ttft, fd, c->turn}); return; }
    Reply *r = whole(c->tokens);
    for (size_t k = 0; k < r->n_ids; k++) memcpy(r->data + r->ids[k], c->id, ID);
    transmit(fd, r->data, r->size);
}

static void take(int fd) {
    Conn *c = &conns[fd];
    if (c->room - c->got < 65536) {
        c->room = c->room ? c->room * 2 : 131072;
        c->in = realloc(c->in, c->room + 1);
    }
    ssize_t n = recv(fd, c->in + c->got, c->room - c->got, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) { drop(fd); return; }
    c->got += n;
    c->in[c->got] = 0;
    if (!c->need) {
        char *end = strstr(c->in, "\r\n\r\n"), *length = strcasestr(c->in, "content-length:");
        if (!end) return;
        c->need = end + 4 - c->in + (length && length < end ? strtoul(length + 15, NULL, 10) : 0);
    }
    if (c->got >= c->need) answer(fd);
}

static void flush_out(int fd) {
    Conn *c = &conns[fd];
    ssize_t n = send(fd, c->out + c->out_at, c->left, MSG_NOSIGNAL);
    if (n < 0) { if (errno != EAGAIN) drop(fd); return; }
    c->out_at += n; c->left -= n;
    if (!c->left) { free(c->out); c->out = NULL; watch(fd, EPOLLIN, EPOLL_CTL_MOD); }
}

int main(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--ttft-ms")) ttft = atof(argv[i + 1]) * 1e6, paced = 1;
        else if (!strcmp(argv[i], "--itl-ms")) itl = atof(argv[i + 1]) * 1e6, paced = 1;
    }
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    if (bind(listener, (void *)&at, size) || listen(listener, 4096)) { perror("listen"); return 1; }
    getsockname(listener, (void *)&at, &size);
    printf("%d\n", ntohs(at.sin_port)); fflush(stdout);
    ep = epoll_create1(0); timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    watch(listener, EPOLLIN, EPOLL_CTL_ADD); watch(timer, EPOLLIN, EPOLL_CTL_ADD);
    struct epoll_event events[256];
    for (ns_t armed = 0;;) {
        int n = epoll_wait(ep, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == timer) { uint64_t fired; if (read(timer, &fired, 8) > 0) armed = 0; continue; }
            if (fd == listener) {
                int new;
                while ((new = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    if (new >= CONNS) { close(new); continue; }
                    setsockopt(new, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    watch(new, EPOLLIN, EPOLL_CTL_ADD);
                }
                continue;
            }
            if (events[i].events & EPOLLOUT) flush_out(fd);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) take(fd);
        }
        while (n_due && heap[0].due <= now()) { Due d = pop(); if (conns[d.fd].turn == d.turn) token(d.fd, d.due); }
        if (n_due && heap[0].due != armed) {
            armed = heap[0].due;
            struct itimerspec when = {.it_value = {armed / 1000000000ull, armed % 1000000000ull}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
        }
    }
}
