/* The load generator: members of rooms that send at a pace or as fast as their echoes come, and check what they get.
 *
 *     generator -p PORT… -r ROOMS -m MEMBERS (-R RATE | -k UNDER_WAY) [-s SECONDS] [-S SEED] [-c | -i]
 *
 * 1. ROOMS x MEMBERS connections to 127.0.0.1, each with a name and a token, each waits for its `welcome`. When all
 *    have come in, and nobody has been told anything for a moment, "ready" is printed. With several ports the members
 *    take them in turn: so each room is on all of them.
 * 2. For each line on standard input the members talk for SECONDS. Then all that is under way is waited for, and one
 *    line of JSON is printed. So between two lines nothing is under way, and a server can be measured in turn with
 *    others, from before the one to after the other. Latencies are in microseconds.
 * 3. -R: RATE messages a second in all, evenly spaced, each by a random member of a random room (an open loop).
 *    -k: UNDER_WAY messages in each room: its senders, ten at most, send the next one for each echo (a closed loop).
 *    What is due to one sender at the same time goes out in one write. -c gives each message a `cid`.
 * 4. Each text is a number that no other message has. A frame is read by its header and by the places of that number
 *    and of the id; nothing is parsed as JSON.
 * 5. After each talk every member must have got every message of its room once: as many as were sent, the same numbers
 *    (a sum over their hashes), under ids from 1 without a hole, each sender's own in the order in which it sent them,
 *    and all members of a room in the same order. Otherwise the exit code is 1, and standard error says what was wrong.
 * 6. -i: the server is one of Socket.IO, which is asked for nothing but the same messages: it gives no ids, and no order
 *    that is the same for all members.
 *
 * Every wait has a limit: what can't go on ends with exit code 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull
#define PATIENCE (15 * SECOND) /* without a byte for anybody */
#define JOINED (SECOND / 2)    /* without a byte after the last welcome: then nothing more comes */
#define TALKED (SECOND / 20)   /* the same after the last message */
#define AT_ONCE 50             /* clients between their connect and their welcome */
#define BUFFER (1 << 18)
#define MAX_SENDERS 10
#define MAX_PORTS 8
#define MAX_PAYLOAD 125 /* of what is sent: then the length is one byte */

typedef struct {
    int fd;
    uint32_t room, number; /* number: among all connections */
    uint8_t *rest;         /* an unfinished frame */
    size_t rest_size;
    bool upgraded, welcomed;
    uint64_t frames, sum, order, last_id;
    uint32_t last_own; /* 1 + the number of the last own message that came back */
} Member;

typedef struct { uint64_t sent, sum; } Room;

typedef struct {
    uint64_t at; /* nanoseconds */
    uint32_t sender;
} Message;

/* Microseconds in 32 steps for each power of two: 3 % wide. */
typedef struct { uint64_t counts[64 * 32], total; } Histogram;

static Member *members;
static Room *rooms;
static Message *messages;
static uint32_t message_count, message_room, member_count, per_room, welcomed;
static uint64_t received, owed, usual_frame, last_byte;
static Histogram echo, delivery, late;
static bool sending, with_cids, socket_io;
static int poller;
static uint8_t buffer[BUFFER * 2];
static const char *path = "/?token=dev-token", *message_begins = "{\"event\":\"message\"",
                  *welcome_begins = "{\"event\":\"welcome\"";

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static void record(Histogram *histogram, uint64_t nanoseconds) {
    uint64_t value = nanoseconds / 1000;
    unsigned shift = value < 32 ? 0 : 58 - (unsigned)__builtin_clzll(value);
    histogram->counts[shift * 32 + (value >> shift)]++;
    histogram->total++;
}

static double percentile(const Histogram *histogram, double share) {
    uint64_t wanted = (uint64_t)(share * (double)histogram->total), seen = 0;
    for (unsigned index = 0; index < 64 * 32; index++) {
        seen += histogram->counts[index];
        if (seen > wanted) {
            unsigned shift = index < 64 ? 0 : index / 32 - 1;
            return (double)((uint64_t)(index - shift * 32) << shift);
        }
    }
    return 0;
}

/* Of a message's number; a sum of these can't be right by another set of numbers but by a miracle. */
static uint64_t hash(uint64_t value) {
    value = (value + 1) * 0x9E3779B97F4A7C15ull;
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ull;
    return value ^ (value >> 27);
}

/* Sending */

static size_t put_frame(uint8_t *to, const char *text, size_t size) {
    static const uint8_t mask[4] = {0x37, 0xFA, 0x21, 0x3D}; /* not zero: `ws` doesn't unmask at all by a zero key */
    to[0] = 0x81;
    to[1] = (uint8_t)(0x80 | size);
    memcpy(to + 2, mask, 4);
    for (size_t index = 0; index < size; index++) to[6 + index] = (uint8_t)text[index] ^ mask[index & 3];
    return 6 + size;
}

static size_t put_message(uint8_t *to, Member *member, uint64_t at) {
    if (message_count == message_room) {
        messages = realloc(messages, (message_room = message_room * 2 + 1024) * sizeof *messages);
        if (!messages) errx(1, "no memory");
    }
    uint32_t number = message_count++;
    messages[number] = (Message){at, member->number};
    char text[MAX_PAYLOAD + 1], cid[64] = "";
    if (with_cids) snprintf(cid, sizeof cid, ",\"cid\":\"%08x-0000-4000-8000-%012x\"", member->number, number);
    int size = socket_io
        ? snprintf(text, sizeof text, "42[\"message\",{\"text\":\"%010u\"}]", number)
        : snprintf(text, sizeof text, "{\"event\":\"message\",\"data\":{\"text\":\"%010u\"}%s}", number, cid);
    rooms[member->room].sent++;
    rooms[member->room].sum += hash(number);
    owed += per_room;
    return put_frame(to, text, (size_t)size);
}

static void post(Member *member, uint32_t count) {
    static uint8_t burst[1 << 16];
    size_t size = 0;
    uint64_t at = now();
    if (count > sizeof burst / (MAX_PAYLOAD + 6)) errx(1, "too many messages under way for one sender: %u", count);
    while (count--) size += put_message(burst + size, member, at);
    if (send(member->fd, burst, size, MSG_NOSIGNAL) != (ssize_t)size)
        errx(1, "the server doesn't read what little u%05u sends", member->number);
}

/* Receiving */

/* What stands behind `key`, which is looked for where it stood the last time first. */
static const uint8_t *behind(const uint8_t *payload, size_t size, const char *key, size_t *hint) {
    size_t length = strlen(key);
    if (*hint + length > size || memcmp(payload + *hint, key, length)) {
        const uint8_t *found = memmem(payload, size, key, length);
        if (!found) errx(1, "no %s in %.*s", key, (int)size, payload);
        *hint = (size_t)(found - payload);
    }
    return payload + *hint + length;
}

/* A number up to whatever is no digit; JSON always has something behind one. */
static uint64_t number_at(const uint8_t *place, const uint8_t *end) {
    uint64_t value = 0;
    while (place < end && *place >= '0' && *place <= '9') value = value * 10 + (*place++ - '0');
    return value;
}

static bool begins(const uint8_t *data, size_t size, const char *with) {
    return size >= strlen(with) && !memcmp(data, with, strlen(with));
}

/* Take one message; true if it is an echo. */
static bool take_message(Member *member, const uint8_t *payload, size_t size, uint64_t at) {
    static size_t text_hint, id_hint;
    uint64_t number = number_at(behind(payload, size, "\"text\":\"", &text_hint), payload + size);
    uint64_t id = socket_io ? 0 : number_at(behind(payload, size, "\"id\":", &id_hint), payload + size);
    if (number >= message_count) errx(1, "u%05u got what nobody sent: %.*s", member->number, (int)size, payload);
    if (!socket_io && id != ++member->last_id) errx(1, "u%05u got id %lu for %lu", member->number, id, member->last_id);
    member->frames++;
    member->sum += hash(number);
    member->order = member->order * 31 + number;
    received++;
    usual_frame = size;
    Message *message = &messages[number];
    bool own = message->sender == member->number;
    record(own ? &echo : &delivery, at - message->at);
    if (!own) return false;
    if (number < member->last_own) errx(1, "u%05u got its messages out of order", member->number);
    member->last_own = (uint32_t)number + 1;
    return true;
}

/* Socket.IO wants to be asked for its namespace when the connection stands. */
static void answer_open(Member *member) {
    uint8_t frame[16];
    size_t size = put_frame(frame, "40", 2);
    if (send(member->fd, frame, size, MSG_NOSIGNAL) != (ssize_t)size) errx(1, "u%05u can't send", member->number);
}

/* Cut what has come into frames; returns how many bytes were used up, and counts the echoes. */
static size_t take_frames(Member *member, const uint8_t *data, size_t size, uint64_t at, uint32_t *echoes) {
    size_t used = 0;
    while (size - used >= 2) {
        const uint8_t *frame = data + used;
        size_t head = frame[1] < 126 ? 2 : frame[1] == 126 ? 4 : 10, length = frame[1];
        if (size - used < head) break;
        if (head > 2) {
            length = 0;
            for (size_t index = 2; index < head; index++) length = length << 8 | frame[index];
        }
        if (frame[0] != 0x81 || frame[1] > 127)
            errx(1, "u%05u got no text frame: %02x %02x", member->number, frame[0], frame[1]);
        if (length > BUFFER - 16) errx(1, "u%05u got a frame of %zu bytes", member->number, length);
        if (size - used < head + length) break;
        const uint8_t *payload = frame + head;
        if (begins(payload, length, message_begins)) *echoes += take_message(member, payload, length, at);
        else if (socket_io && begins(payload, length, "0{")) answer_open(member);
        else if (!member->welcomed) {
            if (!begins(payload, length, welcome_begins))
                errx(1, "u%05u got no welcome: %.*s", member->number, (int)length, payload);
            member->welcomed = true;
            welcomed++;
        }
        used += head + length;
    }
    return used;
}

/* The bytes of the answer to the handshake; 0 while it isn't complete. */
static size_t take_upgrade(Member *member, const uint8_t *data, size_t size) {
    const uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (!begins(data, size, "HTTP/1.1 101 ")) errx(1, "u%05u was refused: %.12s", member->number, data);
    member->upgraded = true;
    return (size_t)(end - data) + 4;
}

static void receive(Member *member) {
    size_t size = member->rest_size, used = 0;
    memcpy(buffer, member->rest, size);
    ssize_t more = recv(member->fd, buffer + size, BUFFER, 0);
    if (more < 0 && errno == EAGAIN) return;
    if (more <= 0) errx(1, "the connection of u%05u ended", member->number);
    size += (size_t)more;
    last_byte = now();
    uint32_t echoes = 0;
    if (!member->upgraded) used = take_upgrade(member, buffer, size);
    if (member->upgraded) used += take_frames(member, buffer + used, size - used, last_byte, &echoes);
    member->rest_size = size - used;
    if (member->rest_size) {
        if (!(member->rest = realloc(member->rest, member->rest_size))) errx(1, "no memory");
        memcpy(member->rest, buffer + used, member->rest_size);
    }
    if (echoes && sending) post(member, echoes);
}

/* Receive what is there, or wait for it for at most some milliseconds; true if the timer rang. */
static bool receive_all(int milliseconds) {
    struct epoll_event events[256];
    bool rang = false;
    int count = epoll_wait(poller, events, 256, milliseconds);
    if (count < 0 && errno != EINTR) err(1, "epoll_wait");
    for (int index = 0; index < count; index++) {
        if (events[index].data.ptr) receive(events[index].data.ptr);
        else rang = true;
    }
    return rang;
}

static void fall_silent(uint64_t silence) {
    for (last_byte = now(); now() < last_byte + silence;) receive_all(10);
}

/* The phases of a run */

static void watch(int fd, Member *member) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = member};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) err(1, "epoll_ctl");
}

static void enter(Member *member, uint16_t port) {
    struct sockaddr_in address = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {0}};
    int on = 1;
    member->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (member->fd < 0 || connect(member->fd, (struct sockaddr *)&address, sizeof address))
        err(1, "u%05u can't connect", member->number);
    setsockopt(member->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    char request[512];
    int size = snprintf(request, sizeof request,
                        "GET %s&username=u%05u&room=r%03u HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                        path, member->number, member->room);
    if (send(member->fd, request, (size_t)size, MSG_NOSIGNAL) != size) errx(1, "u%05u can't send", member->number);
    if (fcntl(member->fd, F_SETFL, O_NONBLOCK)) errx(1, "u%05u can't be made non-blocking", member->number);
    watch(member->fd, member);
}

static void enter_all(const uint16_t *ports, uint32_t port_count) {
    uint32_t begun = 0;
    last_byte = now();
    while (welcomed < member_count) {
        while (begun < member_count && begun < welcomed + AT_ONCE) {
            enter(&members[begun], ports[begun % port_count]);
            begun++;
        }
        receive_all(10);
        if (now() > last_byte + PATIENCE) errx(1, "%u of %u were welcomed", welcomed, member_count);
    }
    fall_silent(JOINED);
}

static int start_timer(double rate) {
    long period = (long)(1e9 / rate), second = (long)SECOND;
    struct itimerspec ticks = {.it_value = {0, 1}, .it_interval = {period / second, period % second}};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (timer < 0 || timerfd_settime(timer, 0, &ticks, NULL)) err(1, "timerfd");
    watch(timer, NULL);
    return timer;
}

/* Have a random member send for each time that the timer has rung. */
static void send_due(int timer, double rate, uint64_t begin, uint32_t *sent) {
    uint64_t rings = 0, at = now();
    if (read(timer, &rings, sizeof rings) != sizeof rings) return;
    for (; rings; rings--) {
        uint64_t planned = begin + (uint64_t)((double)(*sent)++ * 1e9 / rate);
        record(&late, at > planned ? at - planned : 0);
        post(&members[lrand48() % member_count], 1);
    }
}

static void start_senders(uint32_t room_count, uint32_t under_way) {
    uint32_t senders = per_room < MAX_SENDERS ? per_room : MAX_SENDERS;
    if (senders > under_way) senders = under_way;
    for (uint32_t room = 0; room < room_count; room++)
        for (uint32_t sender = 0; sender < senders; sender++)
            post(&members[room * per_room + sender], under_way / senders + (sender < under_way % senders));
}

static void check(void) {
    for (uint32_t index = 0; index < member_count; index++) {
        Member *member = &members[index], *first = &members[index - index % per_room];
        uint64_t sent = rooms[member->room].sent, sum = rooms[member->room].sum;
        if (member->frames != sent) errx(1, "u%05u got %lu messages of %lu", index, member->frames, sent);
        if (member->sum != sum) errx(1, "u%05u got other messages than were sent", index);
        if (!socket_io && member->order != first->order)
            errx(1, "u%05u got them in another order than u%05u", index, first->number);
    }
}

static void say_percentiles(const char *name, Histogram *of, const char *end) {
    printf("\"%s\": {\"p50\": %.0f, \"p99\": %.0f}%s", name, percentile(of, 0.5), percentile(of, 0.99), end);
    memset(of, 0, sizeof *of);
}

static void talk(uint32_t room_count, double rate, uint32_t under_way, double seconds) {
    uint64_t begin = now(), end = begin + (uint64_t)(seconds * 1e9), deliveries = received;
    uint32_t sent = 0, messages_before = message_count;
    clock_t cpu = clock();
    int timer = rate > 0 ? start_timer(rate) : -1;
    sending = under_way > 0;
    start_senders(room_count, under_way);
    for (last_byte = begin; now() < end;) {
        if (receive_all(10)) send_due(timer, rate, begin, &sent);
        if (owed > received && now() > last_byte + PATIENCE) errx(1, "nothing comes any more");
    }
    sending = false;
    if (timer >= 0) close(timer);
    for (last_byte = now(); received < owed;) {
        receive_all(10);
        if (now() > last_byte + PATIENCE) errx(1, "%lu deliveries of %lu", received, owed);
    }
    deliveries = received - deliveries, cpu = clock() - cpu, end = last_byte;
    fall_silent(TALKED);
    check();
    printf("{\"messages\": %u, \"deliveries\": %lu, \"seconds\": %.6f, \"cpu\": %.3f, \"frame\": %lu, ",
           message_count - messages_before, deliveries, (double)(end - begin) / 1e9, (double)cpu / CLOCKS_PER_SEC,
           usual_frame);
    say_percentiles("echo", &echo, ", ");
    say_percentiles("delivery", &delivery, ", ");
    say_percentiles("late", &late, "}\n");
}

int main(int count, char **arguments) {
    uint32_t room_count = 1, under_way = 0, port_count = 0;
    double rate = 0, seconds = 1;
    uint16_t ports[MAX_PORTS];
    per_room = 2;
    for (int option; (option = getopt(count, arguments, "p:r:m:R:k:s:S:ci")) != -1;) {
        if (option == 'p' && port_count < MAX_PORTS) ports[port_count++] = (uint16_t)atoi(optarg);
        else if (option == 'r') room_count = (uint32_t)atoi(optarg);
        else if (option == 'm') per_room = (uint32_t)atoi(optarg);
        else if (option == 'R') rate = atof(optarg);
        else if (option == 'k') under_way = (uint32_t)atoi(optarg);
        else if (option == 's') seconds = atof(optarg);
        else if (option == 'S') srand48(atol(optarg));
        else if (option == 'c') with_cids = true;
        else if (option == 'i') socket_io = true;
        else return 2;
    }
    if (!port_count || !room_count || !per_room || (rate > 0) == (under_way > 0)) errx(1, "see the head of generator.c");
    if (socket_io) {
        path = "/socket.io/?EIO=4&transport=websocket";
        message_begins = "42[\"message\"";
        welcome_begins = "40";
    }
    member_count = room_count * per_room;
    members = calloc(member_count, sizeof *members);
    rooms = calloc(room_count, sizeof *rooms);
    if (!members || !rooms) errx(1, "no memory");
    for (uint32_t index = 0; index < member_count; index++)
        members[index] = (Member){.number = index, .room = index / per_room};
    poller = epoll_create1(0);
    setlinebuf(stdout);
    enter_all(ports, port_count);
    puts("ready");
    for (char line[16]; fgets(line, sizeof line, stdin);) talk(room_count, rate, under_way, seconds);
    return 0;
}
