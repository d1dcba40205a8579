// A room server as one would write it with Node's `ws`: a message is encoded once, and each member gets it by send().
//
// It speaks the part of our protocol that the measurements use: the token, welcome, joined, left, message with id and ts.
// With --preframed the frame, too, is built once, and written to each socket under the library; that isn't its public API, but
// shows what could be gained. With --tls FILE it speaks TLS by that certificate.
"use strict";
const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");
const { WebSocketServer, Sender } = require("ws");

const TOKENS = new Set(["dev-token", "token-alice", "token-bob", "token-carol"]);
const MAX_TEXT = 4000;
const preframed = process.argv.includes("--preframed");
const tls = process.argv.includes("--tls") ? fs.readFileSync(process.argv[process.argv.indexOf("--tls") + 1]) : null;
const rooms = new Map(); // name -> {name, members: Map of connection to username, lastId}

function broadcast(room, frame) {
  const bytes = Buffer.from(JSON.stringify(frame));
  if (preframed) {
    const whole = Buffer.concat(
      Sender.frame(bytes, { fin: true, opcode: 1, mask: false, readOnly: true, rsv1: false }));
    for (const member of room.members.keys()) member._socket.write(whole);
  } else {
    for (const member of room.members.keys()) member.send(bytes, { binary: false });
  }
}

function answer(room, username, raw) {
  let command;
  try {
    command = JSON.parse(raw);
  } catch {
    return { event: "error", data: { message: "Invalid JSON" }, code: "bad_json" };
  }
  if (command === null || typeof command !== "object" || command.event !== "message") {
    return { event: "error", data: { message: "Unknown event" }, code: "bad_event" };
  }
  let text = command.data?.text ?? "";
  if (typeof text !== "string" || (text = text.trim()).length > MAX_TEXT) {
    return { event: "error", data: { message: "Bad data" }, code: "bad_data" };
  }
  if (text) {
    room.lastId += 1;
    broadcast(room, { event: "message", data: { username, text }, room: room.name, id: room.lastId, ts: Date.now() });
  }
  return null;
}

function enter(socket, query) {
  const name = query.get("room") || "general";
  const username = query.get("username") || "anonymous";
  let room = rooms.get(name);
  if (!room) rooms.set(name, (room = { name, members: new Map(), lastId: 0 }));
  broadcast(room, { event: "joined", data: { username }, room: name });
  const members = [...room.members.values()].sort();
  room.members.set(socket, username);
  socket.send(JSON.stringify({
    event: "welcome", data: { message: `Welcome to #${name}, ${username}!`, members },
    room: name, username, epoch: "-", last_id: room.lastId, replay: 0,
  }));
  socket.on("message", (raw) => {
    const error = answer(room, username, raw);
    if (error) socket.send(JSON.stringify(error));
  });
  socket.on("error", () => socket.terminate());
  socket.on("close", () => {
    room.members.delete(socket);
    if (room.members.size) broadcast(room, { event: "left", data: { username }, room: name });
    else if (rooms.get(name) === room) rooms.delete(name);
  });
}

const accepting = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: 65536 });
const refuse = (request, response) => response.writeHead(404).end();
const server = tls ? https.createServer({ key: tls, cert: tls }, refuse) : http.createServer(refuse);
server.on("upgrade", (request, socket, head) => {
  const query = new URL(request.url, "http://localhost").searchParams;
  if (!TOKENS.has(query.get("token"))) {
    socket.end("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    return;
  }
  accepting.handleUpgrade(request, socket, head, (connection) => enter(connection, query));
});
server.listen({ port: 0, host: "127.0.0.1", backlog: 1024 }, () =>
  console.log(`Listening on http${tls ? "s" : ""}://127.0.0.1:${server.address().port}`));
process.on("SIGTERM", () => process.exit(0));
