/* Plays one scripted conversation many times, C at once, over TCP or TLS; prints conversations a second.
 *
 * driver HOST PORT COUNT CONCURRENT TLS(0|1) SCRIPT
 * SCRIPT lines: "> text" sends (\r\n is added; %d is the conversation's number modulo the count given by "mod N");
 * "< prefix" waits for a line with that prefix, and fails on another line whose 4th character is a blank in SMTP scripts
 * only where prefix has three digits; "<< prefix" skips lines until one has the prefix; "@ file" sends a file as it is.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SEND, EXPECT, SKIP };
struct step { int kind; char *text; size_t size; int numbered; };
static struct step steps[200];
static int nsteps, modulo = 1;
struct conv { int fd, step, number, handshake; SSL *ssl; char buf[1 << 17]; size_t have; };
static SSL_CTX *ctx;
static struct sockaddr_in addr;
static int ep, started, finished, failed, count, use_tls;

static void load(const char *path) {
  FILE *f = fopen(path, "r");
  char line[4096];
  if (!f) { perror(path); exit(2); }
  while (fgets(line, sizeof line, f)) {
    line[strcspn(line, "\n")] = 0;
    struct step *s = &steps[nsteps];
    if (!strncmp(line, "mod ", 4)) { modulo = atoi(line + 4); continue; }
    if (line[0] == '>') {
      s->kind = SEND; s->text = malloc(strlen(line) + 8);
      sprintf(s->text, "%s\r\n", line + 2); s->size = strlen(s->text); s->numbered = strstr(s->text, "%d") != 0; nsteps++;
    } else if (line[0] == '@') {
      FILE *c = fopen(line + 2, "rb"); fseek(c, 0, SEEK_END); s->size = ftell(c); rewind(c);
      s->kind = SEND; s->text = malloc(s->size + 1); if (fread(s->text, 1, s->size, c) != s->size) exit(2); fclose(c); nsteps++;
    } else if (!strncmp(line, "<< ", 3)) { s->kind = SKIP; s->text = strdup(line + 3); nsteps++; }
    else if (line[0] == '<') { s->kind = EXPECT; s->text = strdup(line + 2); nsteps++; }
  }
  fclose(f);
}

static void begin(struct conv *c) {
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  int one = 1;
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(c->fd, (void *)&addr, sizeof addr)) { perror("connect"); exit(2); }
  fcntl(c->fd, F_SETFL, O_NONBLOCK);
  c->step = 0; c->have = 0; c->number = started++;
  if (use_tls) { c->ssl = SSL_new(ctx); SSL_set_fd(c->ssl, c->fd); SSL_set_connect_state(c->ssl); c->handshake = 1; }
  struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
  if (use_tls) { if (SSL_do_handshake(c->ssl) == 1) c->handshake = 0; }
}

static void end(struct conv *c, int bad) {
  if (c->ssl) { SSL_shutdown(c->ssl); SSL_free(c->ssl); c->ssl = 0; }
  close(c->fd);
  finished++; failed += bad;
  if (started < count) begin(c); else c->fd = -1;
}

static void put(struct conv *c, const char *p, size_t n) {
  while (n) {
    int w = use_tls ? SSL_write(c->ssl, p, n) : write(c->fd, p, n);
    if (w > 0) { p += w; n -= w; continue; }
    usleep(50); /* the socket's buffer is full: rare with letters of this size */
  }
}

static void play(struct conv *c) {
  for (;;) {
    if (c->step == nsteps) { end(c, 0); return; }
    struct step *s = &steps[c->step];
    if (s->kind == SEND) {
      if (s->numbered) { char t[8192]; int n = snprintf(t, sizeof t, s->text, c->number % modulo); put(c, t, n); }
      else put(c, s->text, s->size);
      c->step++;
      continue;
    }
    char *nl = memmem(c->buf, c->have, "\r\n", 2);
    if (!nl) {
      if (c->have > sizeof c->buf - 100) c->have = 0; /* a long line that nobody waits for */
      return;
    }
    size_t len = nl - c->buf + 2, want = strlen(s->text);
    int match = len >= want && !memcmp(c->buf, s->text, want);
    int more = len > 3 && c->buf[3] == '-';
    if (!match && s->kind == EXPECT) { fprintf(stderr, "wanted %s got %.*s\n", s->text, (int)len - 2, c->buf); end(c, 1); return; }
    memmove(c->buf, c->buf + len, c->have - len); c->have -= len;
    if (match && !(s->kind == EXPECT && more)) c->step++;
  }
}

static void readable(struct conv *c) {
  if (c->handshake) {
    int r = SSL_do_handshake(c->ssl);
    if (r == 1) c->handshake = 0;
    else { int e = SSL_get_error(c->ssl, r); if (e != SSL_ERROR_WANT_READ) { fprintf(stderr, "handshake failed\n"); end(c, 1); } return; }
  }
  for (;;) {
    int fd = c->fd, number = c->number;
    int n = use_tls ? SSL_read(c->ssl, c->buf + c->have, sizeof c->buf - c->have) : read(c->fd, c->buf + c->have, sizeof c->buf - c->have);
    if (n > 0) {
      c->have += n; play(c);
      if (c->fd != fd || c->number != number || c->fd < 0) return;
      continue;
    }
    if (use_tls ? SSL_get_error(c->ssl, n) == SSL_ERROR_WANT_READ : n < 0 && errno == EAGAIN) return;
    fprintf(stderr, "connection ended at step %d (%s)\n", c->step, steps[c->step].text); end(c, 1); return;
  }
}

int main(int argc, char **argv) {
  if (argc != 7) return 2;
  addr.sin_family = AF_INET; addr.sin_port = htons(atoi(argv[2])); inet_pton(AF_INET, argv[1], &addr.sin_addr);
  count = atoi(argv[3]); int concurrent = atoi(argv[4]); use_tls = atoi(argv[5]); load(argv[6]);
  if (use_tls) { ctx = SSL_CTX_new(TLS_client_method()); SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER); }
  ep = epoll_create1(0);
  struct conv *c = calloc(concurrent, sizeof *c);
  struct timespec a, b; clock_gettime(CLOCK_MONOTONIC, &a);
  for (int i = 0; i < concurrent && i < count; i++) begin(&c[i]);
  struct epoll_event ev[256];
  while (finished < count) {
    int n = epoll_wait(ep, ev, 256, 30000);
    if (n <= 0) { fprintf(stderr, "stalled at %d of %d\n", finished, count); return 1; }
    for (int i = 0; i < n; i++) readable(ev[i].data.ptr);
  }
  clock_gettime(CLOCK_MONOTONIC, &b);
  double s = b.tv_sec - a.tv_sec + (b.tv_nsec - a.tv_nsec) / 1e9;
  printf("%.1f %d\n", count / s, failed);
  return failed > count / 100;
}
